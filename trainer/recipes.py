"""Recipes: everything training may be told, as values; and the input size, chosen from the frames."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from calibration.errors import InputError
from trainer.data.sampling import SAMPLINGS, Sampling
from trainer.models.classifier import FLIPS, Flips
from trainer.models.efficientnet_lite import SIZES
from trainer.models.pooling import Pooling

PIXEL_BUDGET = 640 * 640
"""Largest input area in pixels: beyond it a batch no longer fits the time between parts on a small CPU."""

FRAME_BUDGET = 4096 * 4096
"""The same where most of the network sees a reduced frame or a part of it: attention cropping, tiles."""

SHORT_SIDE = 96
"""Smallest short side in pixels: three positions of a stride-32 map, so that pooling still sees places."""


@dataclass(frozen=True)
class Recipe:
    """How to train. ``Recipe.from_json(r.to_json()) == r``.

    Attributes:
        name: for run.json.
        backbone, pooling, dropout: see ClassifierConfig.
        epochs: passes over the training frames in which the upper backbone learns; 0 trains the head alone.
        frozen_stages: 0..5 lower stages that keep ImageNet's weights; what they compute is cached.
        flips: mirrored copies to learn from. Not for parts whose left and right mean different things.
        flip_average: the classifier's answer is the mean over these mirrored views; same caution, and two or four
            times the cost of a part.
        jitter: 0..1; each copy's contrast and brightness vary by up to this share (lamps age).
        batch: frames a step. learning_rate, weight_decay: of AdamW. warmup: share of the steps, 0..1.
        head_rate: the head's learning rate as a share of the backbone's; it starts from a fit, not from nothing.
        ema: 0 <= ema < 1, memory per step of the averaged weights, which are the ones kept.
        patience: epochs without a better validation score before stopping early. The first epochs at a high rate
            are worse than the head they start from, and the last ones far better: keep it above half of the epochs.
        keep_last: the last epoch's weights are kept, whatever patience says, instead of the latest that validate as
            well as the best: for validation folds of so few groups that they would throw a long training away.
        bfloat16: the backbone learns in numbers of eight bits of precision, where the CPU computes with them; weights,
            head and every score stay float32. See trainer.precision.
        committee: >= 1, networks trained apart from one head, whose logits are averaged: see trainer.models.committee.
        gamma: >= 0, of the focal loss; 0 is cross-entropy.
        balance: 0..1, beta of the class weights (Cui et al. 2019); 0 weighs every sample alike, 1 by inverse frequency.
            At 0.99 an image of a class of twenty weighs about five times as much as one of a class of hundreds.
        sampling: which frames are learned from: "instance" as they come, "class-aware" each class as often, "over" or
            "under" rare classes repeated or common ones thinned out, "square-root" half-way between the first two.
            Weights correct only what it leaves unequal.
        smote: >= 0, neighbours (k) of SMOTE on the frozen features the head is fitted on; 0 adds no sample.
        tau: >= 0, strength of logit adjustment (Menon et al. 2021); 0 adjusts nothing, 1 aims at balanced accuracy.
            Folded into the head's bias, so the exported model has it: see trainer.head.
        retrain_head: learn the upper backbone from the frames as they come and only then fit the head anew, with the
            balance, sampling, smote and tau above (decoupled training, Kang et al. 2020).
        soft_labels: learn the annotators' doubt, where the manifest has it, instead of the label.
        crops: >= 0, places that attention cropping looks at in full resolution; 0 looks at the frame as a whole alone.
        tiles: the frame is judged in full resolution, in tiles that overlap: see trainer.models.tiles.
        anomaly: the distance of a part to the good training parts joins the score, for defects that no class of the
            training set stands for: see trainer.models.anomaly.
        places: single places of a frame vote on its class too, for small defects: see trainer.models.places.
        head_penalties: L2 strengths tried for the head on frozen, standardised features; validation picks one.
        int8_penalty: >= 0, most weight in the loss of the variance that INT8 will give the difference of two logits, so
            that INT8 and FP32 give the same verdict more often; see trainer.head. It is measured, which takes an
            export; of backbones other than EfficientNet-Lite it is not, and counts nothing. 0 measures nothing.
    """

    name: str
    backbone: str = "efficientnet-lite0"
    pooling: Pooling = "mean+max"
    dropout: float = 0.3
    epochs: int = 0
    frozen_stages: int = 3
    flips: Flips = "both"
    flip_average: Flips = "none"
    jitter: float = 0.0
    batch: int = 16
    learning_rate: float = 5e-4
    head_rate: float = 1.0
    weight_decay: float = 0.02
    warmup: float = 0.1
    ema: float = 0.99
    patience: int = 6
    keep_last: bool = False
    bfloat16: bool = False
    committee: int = 1
    gamma: float = 0.0
    balance: float = 0.99
    sampling: Sampling = "instance"
    smote: int = 0
    tau: float = 0.0
    retrain_head: bool = False
    soft_labels: bool = True
    crops: int = 0
    tiles: bool = False
    anomaly: bool = False
    places: bool = False
    head_penalties: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    int8_penalty: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not _is_like(getattr(self, field.name), field.type):
                wrong = f"{field.name} is {getattr(self, field.name)!r}"
                raise InputError(f"recipe {self.name}: {wrong}; it must be a (finite) {field.type}")
        bounds = {
            "epochs": self.epochs >= 0,
            "frozen_stages": 0 <= self.frozen_stages <= 5,
            "flips": self.flips in FLIPS,
            "flip_average": self.flip_average in FLIPS,
            "jitter": 0 <= self.jitter < 1,
            "batch": self.batch >= 1,
            "learning_rate": self.learning_rate > 0,
            "head_rate": self.head_rate >= 0,
            "weight_decay": self.weight_decay >= 0,
            "warmup": 0 <= self.warmup <= 1,
            "ema": 0 <= self.ema < 1,
            "patience": self.patience >= 1,
            "committee": self.committee >= 1,
            "gamma": self.gamma >= 0,
            "balance": 0 <= self.balance <= 1,
            "sampling": self.sampling in SAMPLINGS,
            "smote": self.smote >= 0,
            "tau": self.tau >= 0,
            "crops": self.crops >= 0,
            "head_penalties": len(self.head_penalties) > 0 and min(self.head_penalties) > 0,
            "int8_penalty": self.int8_penalty >= 0,
        }
        for name, fine in bounds.items():
            if not fine:
                raise InputError(f"recipe {self.name}: {name} is {getattr(self, name)!r}, out of range")
        for name in ("crops", "tiles"):
            if getattr(self, name) and self.epochs:
                raise InputError(f"recipe {self.name}: {name} need a frozen backbone; set epochs to 0")
            if getattr(self, name) and (self.anomaly or self.places or self.pooling in ("bilinear", "parts")):
                raise InputError(
                    f"recipe {self.name}: {name} go with pooling mean or mean+max, without anomaly and places"
                )
        if self.crops and self.tiles:
            raise InputError(f"recipe {self.name}: crops and tiles are two ways to look at a frame; set one of them")
        if self.smote and self.sampling != "instance":
            raise InputError(f"recipe {self.name}: smote makes classes equal already; set sampling to 'instance'")
        if self.smote and self.epochs and not self.retrain_head:
            raise InputError(f"recipe {self.name}: smote needs frozen features; set epochs to 0, or retrain_head")
        if self.int8_penalty and (self.epochs or self.jitter):
            raise InputError(
                f"recipe {self.name}: int8_penalty needs frozen features of plain frames; set epochs and jitter to 0"
            )
        if self.committee > 1 and not self.epochs:
            raise InputError(f"recipe {self.name}: a committee is of backbones that learn; set epochs above 0")
        if self.bfloat16 and self.backbone not in SIZES:
            raise InputError(f"recipe {self.name}: bfloat16 is for {', '.join(SIZES)}; set it to false")
        if self.retrain_head and not self.epochs:
            raise InputError(f"recipe {self.name}: retrain_head follows a backbone that learned; set epochs above 0")

    @property
    def of_the_backbone(self) -> Recipe:
        """What the backbone is trained by: with retrain_head, the frames as they come; else this recipe."""
        if not self.retrain_head:
            return self
        return replace(self, balance=0.0, sampling="instance", smote=0, tau=0.0, retrain_head=False)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "head_penalties": list(self.head_penalties)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Recipe:
        """Inverse of :meth:`to_json`; fields left out keep their defaults. InputError names a field that is unknown,
        missing, of the wrong type or out of range.
        """
        if unknown := set(values) - {field.name for field in fields(cls)}:
            raise InputError(f"recipe: unknown field {sorted(unknown)[0]!r}; remove it")
        if "name" not in values:
            raise InputError("recipe: field 'name' is missing; give it one")
        penalties = values.get("head_penalties")
        return cls(**(values | {"head_penalties": tuple(penalties)} if isinstance(penalties, list) else values))


def _is_like(value: object, annotation: object) -> bool:
    """Whether a value is of the kind its field is annotated with; JSON writes 1.0 as 1."""
    if annotation == "bool":
        return isinstance(value, bool)
    if annotation == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation == "float":
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if annotation == "tuple[float, ...]":
        return isinstance(value, tuple) and all(_is_like(item, "float") for item in value)
    return isinstance(value, str)


FROZEN = Recipe("frozen", flips="horizontal")
"""Frozen backbone, logistic head, nothing for the device: what cross-validation and comparisons of features train."""

QUICK = replace(FROZEN, name="quick", flip_average="horizontal", int8_penalty=50.0, head_penalties=(0.1, 0.3, 1.0))
"""The same for a device, in minutes: for the demo, and to see whether the pictures hold the answer. Its head shuns what
INT8 blurs, and the answer is the mean over two mirrored views."""

FULL = Recipe("full", epochs=14, flip_average="both", learning_rate=3e-4, patience=14)
"""The head as in FROZEN, then the upper stages learn with it; the answer is the mean over four mirrored views."""

ATTENTION_CROP = replace(FROZEN, name="attention-crop", crops=2)
"""As FROZEN, and the two most unusual places of the frame are looked at in full resolution: small defects."""

TILES = replace(FROZEN, name="tiles", tiles=True)
"""As FROZEN, but every place of the frame is looked at in full resolution, in tiles, at the price of all pixels."""

RECIPES = {recipe.name: recipe for recipe in (QUICK, FULL, ATTENTION_CROP, TILES)}


def choose_input_size(
    heights: tuple[int, int], widths: tuple[int, int], pixel_budget: int = PIXEL_BUDGET
) -> tuple[int, int, str]:
    """Input size of the model from the sizes of the frames.

    Thin defects vanish when a frame is made smaller, so the size of the largest frames is kept, whole and
    with its aspect ratio, up to ``pixel_budget``; frames too small for a stride-32 network are enlarged.

    Args:
        heights, widths: inclusive (least, most) of the frames, in pixels, each >= 1.
        pixel_budget: largest height * width.

    Returns:
        (height, width, reason): pixels, and a sentence for run.json and the report.
    """
    height, width = heights[1], widths[1]
    seen = f"frames are {_span(widths)} wide and {_span(heights)} high"
    short = min(height, width)
    if height * width > pixel_budget:
        scale = math.sqrt(pixel_budget / (height * width))
        size = (max(1, math.floor(height * scale)), max(1, math.floor(width * scale)))
        why = f"reduced to stay within {pixel_budget} pixels; defects thinner than {1 / scale:.1f} px may be lost"
    elif short < SHORT_SIDE:
        scale = SHORT_SIDE / short
        size = (math.ceil(height * scale), math.ceil(width * scale))
        if size[0] * size[1] > pixel_budget:  # a thin strip
            return choose_input_size((size[0], size[0]), (size[1], size[1]), pixel_budget)
        why = f"enlarged so that the short side has the {SHORT_SIDE} pixels a stride-32 network needs"
    else:
        size, why = (height, width), "the largest frames are kept at native size, so thin defects stay visible"
    return *size, f"{seen}; {why} ({size[1]}x{size[0]})"


def _span(least_most: tuple[int, int]) -> str:
    least, most = least_most
    return f"{most} px" if least == most else f"{least} to {most} px"
