"""What a stated bound on the escape rate costs on recorded scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from calibration.conformal import (
    EscapeBound,
    confident_escape_bound,
    defect_scores,
    defects_needed_confidently,
    escape_bound,
)
from calibration.crossfit import group_index
from calibration.metrics import softmax
from calibration.report import defect_probability
from calibration.risk import wilson
from calibration.scores import Scores
from calibration.values import Interval


@dataclass(frozen=True)
class Limit:
    """A bound's threshold on the parts it was read off.

    Attributes:
        bound: the threshold and its promise.
        passed: defective parts (groups) that pass there.
        overkill: share of the good parts' images that do not, with its Wilson interval; NaN without good parts.
    """

    bound: EscapeBound
    passed: int
    overkill: Interval


@dataclass(frozen=True)
class BoundReport:
    """All that `calibration bound` tells.

    Attributes:
        file: the scores. parts: its rows.
        defects: defective parts, a group being one.
        alpha: the bound on the escape rate.
        expected: in mean. confident: with 95 % confidence, None where there are fewer than `needed_confidently`.
    """

    file: Path
    parts: int
    defects: int
    alpha: float
    expected: Limit
    confident: Limit | None
    needed_confidently: int


def bound_report(file: Path, scores: Scores, alpha: float) -> BoundReport:
    """Both bounds on recorded scores; the defect probabilities are taken as recorded, without a temperature.

    Raises:
        ValueError: too few defects for the bound in mean (the message names the number needed), or alpha outside
            (0, 1).
    """
    p, groups = defect_probability(softmax(scores.logits), scores.ok_index), group_index(scores)
    defects = defect_scores(p, scores.is_defect, groups)
    good = p[~scores.is_defect]

    def limit(bound: EscapeBound) -> Limit:
        rejected = int((good > bound.threshold).sum())
        return Limit(bound, int((defects <= bound.threshold).sum()), wilson(rejected, len(good)))

    expected = limit(escape_bound(p, scores.is_defect, alpha, groups))
    needed = defects_needed_confidently(alpha)
    enough = len(defects) >= needed
    confident = limit(confident_escape_bound(p, scores.is_defect, alpha, groups)) if enough else None
    return BoundReport(file, len(p), len(defects), alpha, expected, confident, needed)
