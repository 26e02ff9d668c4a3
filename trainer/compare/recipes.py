"""The declared set: each candidate differs from the baseline in one thing, the last ones put together what may help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from calibration.errors import InputError
from trainer.recipes import PIXEL_BUDGET, Recipe, choose_input_size

BASELINE = "baseline"


@dataclass(frozen=True)
class Candidate:
    """A recipe in a comparison.

    Attributes:
        about: what it is, for the report. recipe: how it is trained; its name is the candidate's.
        scale: > 0, input size relative to the one chosen from the frames.
    """

    about: str
    recipe: Recipe
    scale: float = 1.0

    @property
    def name(self) -> str:
        """As it is called with --recipes."""
        return self.recipe.name


FROZEN = Recipe(BASELINE, frozen_stages=5, flips="none", balance=0.0)
"""Logistic regression on frozen ImageNet features, plain cross-entropy."""

TUNED = replace(FROZEN, name="fine-tuned", epochs=6, flips="both", flip_average="both", bfloat16=True)
"""The upper two stages learn as well; the answer is the mean over four mirrored views."""

DEEP = replace(TUNED, name="deep", frozen_stages=3, epochs=5, sampling="square-root")
"""The upper four stages learn, shown rare classes more often; about one and a half times the cost of TUNED."""

WHOLE = replace(DEEP, name="whole", frozen_stages=0, epochs=16, keep_last=True, jitter=0.15)
"""Every stage learns until the training parts hold nothing more, from brighter and darker copies too."""

COMMITTEE = replace(WHOLE, name="committee", committee=2)
"""Two such networks, trained apart, which deal out the four views: twice the cost to train, the same on the device."""


def _frozen(name: str, about: str, scale: float = 1.0, **changes: Any) -> Candidate:
    return Candidate(about, replace(FROZEN, name=name, **changes), scale)


def _tuned(name: str, about: str, scale: float = 1.0, **changes: Any) -> Candidate:
    return Candidate(about, replace(TUNED, name=name, **changes), scale)


def _deep(name: str, about: str, **changes: Any) -> Candidate:
    return Candidate(about, replace(DEEP, name=name, **changes))


def _whole(name: str, about: str, **changes: Any) -> Candidate:
    return Candidate(about, replace(WHOLE, name=name, **changes))


def _committee(name: str, about: str, **changes: Any) -> Candidate:
    return Candidate(about, replace(COMMITTEE, name=name, **changes))


CANDIDATES = (
    _frozen(BASELINE, "frozen features, logistic head, plain cross-entropy"),
    _frozen("inverse-frequency", "weights by inverse frequency", balance=1.0),
    _frozen("class-balanced", "weights by effective number, beta 0.99 (Cui 2019)", balance=0.99),
    _frozen("focal", "focal loss, gamma 2 (Lin 2017)", gamma=2.0),
    _frozen("logit-adjusted", "logit adjustment, tau 1 (Menon 2021)", tau=1.0),
    _frozen("oversampling", "rare classes repeated at random", sampling="over"),
    _frozen("undersampling", "common classes thinned out", sampling="under"),
    _frozen("class-aware", "every class drawn as often (Shen 2016)", sampling="class-aware"),
    _frozen("smote", "SMOTE in feature space, 5 neighbours (Chawla 2002)", smote=5),
    _frozen("mean", "mean of the last map alone instead of mean and maximum of two", pooling="mean"),
    _frozen("bilinear", "bilinear pooling of the stride-16 map added (Lin 2015)", pooling="bilinear"),
    _frozen("parts", "eight places found by attention added (after Zheng 2017)", pooling="parts"),
    _frozen("anomaly", "Mahalanobis distance to the good parts joins the score", anomaly=True),
    _frozen("places", "single places of a frame vote on its class too, logit adjustment, tau 1", tau=1.0, places=True),
    _frozen(
        "mirrored", "learns from four mirrored views and answers with their mean", flips="both", flip_average="both"
    ),
    _frozen("half-size", "half the input size", 0.5),
    _frozen("larger", "1.5 times the input size", 1.5),
    _frozen("larger-adjusted", "1.5 times the input size, logit adjustment, tau 1", 1.5, tau=1.0),
    _tuned("fine-tuned", "upper two stages learn too, flip averaging"),
    _tuned("fine-tuned-adjusted", "the same with logit adjustment, tau 1", tau=1.0),
    _tuned("fine-tuned-anomaly", "the same, and the distance to the good parts joins the score", tau=1.0, anomaly=True),
    _tuned("fine-tuned-places", "the same, and single places of a frame vote too", tau=1.0, places=True),
    _tuned("fine-tuned-both", "the same with that distance and those votes", tau=1.0, anomaly=True, places=True),
    _tuned("fine-tuned-balanced", "the same with class-balanced weights, beta 0.99", balance=0.99),
    _tuned(
        "decoupled",
        "stages learn from the parts as they come, then the head anew, class-balanced (Kang 2020)",
        balance=0.99,
        retrain_head=True,
    ),
    _deep("deep", "upper four stages learn, classes drawn by the square roots of their sizes, flip averaging"),
    _deep("deep-adjusted", "the same with logit adjustment, tau 1", tau=1.0),
    _deep("deep-anomaly", "the same, and the distance to the good parts joins the score", tau=1.0, anomaly=True),
    _whole("whole", "every stage learns, three times as long, from brighter and darker copies too"),
    _whole("whole-adjusted", "the same with logit adjustment, tau 1", tau=1.0),
    _whole("whole-anomaly", "the same, and the distance to the good parts joins the score", tau=1.0, anomaly=True),
    _committee("committee", "two such networks, trained apart; each answers from two of the four views"),
    _committee("committee-adjusted", "the same with logit adjustment, tau 1", tau=1.0),
    _committee(
        "committee-anomaly", "the same, and the distance to the good parts joins the score", tau=1.0, anomaly=True
    ),
)


def input_size(candidate: Candidate, heights: tuple[int, int], widths: tuple[int, int]) -> tuple[int, int]:
    """Height and width in pixels that a candidate looks at, for frames of (least, most) heights and widths."""
    height, width, _ = choose_input_size(heights, widths)
    return round(height * candidate.scale), round(width * candidate.scale)


def affordable(
    candidates: Sequence[Candidate], heights: tuple[int, int], widths: tuple[int, int]
) -> tuple[Candidate, ...]:
    """Those whose enlarged input stays within the pixels that training would choose at most."""
    sizes = {candidate: input_size(candidate, heights, widths) for candidate in candidates}
    return tuple(c for c, (height, width) in sizes.items() if c.scale <= 1 or height * width <= PIXEL_BUDGET)


BY_NAME = {candidate.name: candidate for candidate in CANDIDATES}


def pick(names: Sequence[str] | None, option: str = "--recipes") -> tuple[Candidate, ...]:
    """The candidates named, in the declared order and the baseline always first; all of them for None.

    Raises:
        InputError: a name that is not declared, listing those that are; or no name at all. It names the ``option``.
    """
    if names is None:
        return CANDIDATES
    unknown = [name for name in names if name not in BY_NAME]
    if unknown or not names:
        shown = f"{unknown[0]!r} is unknown" if unknown else "no name is given"
        raise InputError(f"{option}: {shown}; choose among {', '.join(BY_NAME)}")
    return tuple(candidate for candidate in CANDIDATES if candidate.name in {BASELINE, *names})
