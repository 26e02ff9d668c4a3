"""The classifier: raw pixels in, logits out; its JSON configuration and its weights as safetensors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from calibration.errors import InputError
from trainer.models.anomaly import Anomaly
from trainer.models.backbones import create, kind_of
from trainer.models.places import Places
from trainer.models.pooling import POOLS, Pooling

if TYPE_CHECKING:
    from trainer.models.build import Network

Flips = Literal["none", "horizontal", "vertical", "both"]

Views = tuple[tuple[int, ...], ...]
"""Mirrored views of a frame, each as the axes of (N, C, H, W) that are reversed; ((),) is the frame alone."""

FLIPS: dict[str, Views] = {
    "none": ((),),
    "horizontal": ((), (3,)),
    "vertical": ((), (2,)),
    "both": ((), (3,), (2,), (2, 3)),
}
"""The views of a frame that each choice of flips looks at."""

PIXEL_MEAN = 127.0
PIXEL_SCALE = 128.0


@dataclass(frozen=True)
class ClassifierConfig:
    """What a Classifier is built from. ``ClassifierConfig.from_json(c.to_json()) == c``.

    backbone: a name of BACKBONES or "timm:NAME". classes: >= 2. channels: 1 (grey) or 3 (RGB).
    pooling: "mean" of the last map; "mean+max" of the last map and of a stride-16 map (thin defects
    survive); that and "bilinear" pooling of the stride-16 map, or "parts" that attention finds in it.
    dropout: probability of dropping a pooled feature while training, 0 <= dropout < 1.
    flip_average: the logits are the mean over these mirrored views: better, at two or four times the cost.
    anomaly: the distance of a part to the good training parts joins the score, for defects never seen.
    places: single places of a frame vote on its class too, for small defects.
    """

    classes: int
    channels: int
    backbone: str = "efficientnet-lite0"
    pooling: Pooling = "mean+max"
    dropout: float = 0.2
    flip_average: Flips = "none"
    anomaly: bool = False
    places: bool = False

    def __post_init__(self) -> None:
        kind_of(self.backbone)
        if self.pooling not in get_args(Pooling):
            raise InputError(f"pooling: {self.pooling!r} is unknown; use {', '.join(get_args(Pooling))}")
        if self.flip_average not in FLIPS:
            raise InputError(f"flip_average: {self.flip_average!r} is unknown; use {', '.join(FLIPS)}")
        if self.classes < 2:
            raise InputError(f"classes: {self.classes}; a classifier needs at least two")
        if self.channels not in (1, 3):
            raise InputError(f"channels: {self.channels}; use 1 (grey) or 3 (RGB)")
        for name in ("anomaly", "places"):
            if not isinstance(value := getattr(self, name), bool):
                raise InputError(f"{name}: {value!r} is not true or false")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout: {self.dropout} is outside 0 <= dropout < 1")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ClassifierConfig:
        """Inverse of :meth:`to_json`; unknown or missing fields raise InputError."""
        known = {field.name for field in fields(cls)}
        if unknown := set(values) - known:
            raise InputError(f"model configuration: unknown field {sorted(unknown)[0]!r}; retrain or update")
        try:
            return cls(**values)
        except TypeError as error:
            raise InputError(f"model configuration: {error}; retrain or update") from error


class Classifier(nn.Module):
    """Frames (N, C, H, W) of raw pixel values 0..255, uint8 or float -> logits (N, classes) float32.

    For the exporter: everything up to and including the ReLU6 after ``backbone.head`` is Conv, ReLU6 (Clip)
    and Add, and is meant for INT8. **The float tail begins at** :meth:`pool`: no Conv from there on, and no tensor of
    four dimensions but the maps. Reductions, small matrix products and the one Gemm (``self.linear``) cost
    next to nothing and carry the score, so they are best left in float.
    """

    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = create(config.backbone, config.channels)
        self.pooling = POOLS[config.pooling](self.backbone.mid_channels, self.backbone.last_channels)
        self.pooled_sizes = self.pooling.sizes
        features = sum(self.pooled_sizes)
        self.features = features + config.classes * config.places
        # Means after ReLU6 move by tenths, maxima of a stride-16 map by units: see trainer.head.
        self.register_buffer("feature_mean", torch.zeros(features))
        self.register_buffer("feature_scale", torch.ones(features))
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(features, config.classes)
        # Zero: every class equally likely before training, whatever the seed.
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.anomaly = Anomaly(features, config.classes) if config.anomaly else None
        self.places = Places(self.backbone.mid_channels, config.classes) if config.places else None

    def load_imagenet(self) -> None:
        """Fill the backbone with ImageNet weights of installed packages; InputError names a missing one."""
        kind_of(self.config.backbone).load(self.backbone)

    def lower(self, frames: Tensor, stages: int) -> Tensor:
        """Normalise the pixels, run the stem and the first ``stages`` (0..4) stages: what a cache holds."""
        return self.backbone.lower((frames.to(torch.float32) - PIXEL_MEAN) / PIXEL_SCALE, stages)

    def embed(self, lower: Tensor, stages: int) -> Tensor:
        """Output of :meth:`lower` -> pooled features (N, ``self.features``)."""
        return self.pool(*self.backbone.upper(lower, stages))

    def pool(self, mid: Tensor, last: Tensor) -> Tensor:
        """The two maps of the backbone -> (N, features) float32: pooled features, then the votes of places if any."""
        features: Tensor = self.pooling(mid, last)
        return features if self.places is None else torch.cat((features, self.places(mid)), 1)

    def standardise(self, features: Tensor) -> Tensor:
        """Features (..., features) -> the pooled ones, each centred and in the unit of its kind of pooling."""
        return (features[..., : len(self.feature_mean)] - self.feature_mean) * self.feature_scale

    def classify(self, features: Tensor) -> Tensor:
        """Pooled features (N, features) -> logits (N, classes)."""
        standard = self.standardise(features)
        logits: Tensor = self.linear(self.dropout(standard))
        if self.anomaly is not None:
            logits = logits - self.anomaly(standard)
        return logits if self.places is None else logits + features[..., len(self.feature_mean) :]

    def seen(self, frames: Tensor) -> Tensor:
        """Frames (N, C, H, W) of raw pixel values -> pooled features (N, ``self.features``) of the frame as it is."""
        return self.embed(self.lower(frames, 0), 0)

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (N, C, H, W) float32 -> logits (N, classes) of one view."""
        return self.classify(self.pool(*self.backbone.upper(self.backbone.lower(pixels, 0), 0)))

    def forward(self, frames: Tensor) -> Tensor:
        """See the class. With flip averaging the views are one batch, in the order of FLIPS."""
        flips = FLIPS[self.config.flip_average]
        views = torch.cat([torch.flip(frames, axes) if axes else frames for axes in flips])
        logits = self.classify(self.embed(self.lower(views, 0), 0))
        return logits.reshape(len(flips), len(frames), logits.shape[1]).mean(0)


def save_run_model(model: Network, classes: Sequence[str], path: Path) -> None:
    """Write weights and (as JSON in the metadata) configuration to one safetensors file."""
    if len(classes) != model.config.classes:
        raise ValueError(f"{len(classes)} class names for a model of {model.config.classes} classes")
    # One entry: safetensors writes several in an order that differs from run to run, and equal runs must be equal.
    metadata = {"model": json.dumps({"config": model.config.to_json(), "classes": list(classes)})}
    weights = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, path, metadata)


def load_run_model(path: Path) -> tuple[Network, list[str]]:
    """The model of :func:`save_run_model` in evaluation mode, on the CPU, and its class names in logit order.

    Raises InputError where the file is missing, is not such a file, or does not fit its own configuration.
    """
    from trainer.models.build import build, config_from_json  # here, since it builds on this module

    remedy = "train again, or restore the file"
    try:
        with safe_open(path, "pt") as opened:
            metadata = opened.metadata() or {}
        described = json.loads(metadata["model"])
        model = build(config_from_json(described["config"]))
        model.load_state_dict(load_file(path))
        classes = [str(name) for name in described["classes"]]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no trained model here; run `trainer train` first") from error
    except (SafetensorError, KeyError, json.JSONDecodeError, RuntimeError) as error:
        raise InputError(f"{path}: not a trained model ({error}); {remedy}") from error
    return model.eval(), classes
