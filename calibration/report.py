"""How good and how honest recorded scores are, with intervals that know which rows show the same part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.metrics import (
    Interval,
    accuracy,
    auroc,
    bootstrap,
    brier,
    ece,
    ece_of_a_calibrated_model,
    nll,
    softmax,
)
from calibration.risk import escape_at_overkill, escape_overkill_curve
from calibration.scores import Scores
from calibration.temperature import fit_temperature

FOLDS = 5
OVERKILLS = (0.01, 0.02, 0.05, 0.10, 0.20, 0.30)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Figures:
    """Figures of merit of one set of probabilities; shares in 0..1, NLL in nats, Brier score in 0..2.

    `ece_if_calibrated` is what a perfectly calibrated model with the same confidences would show on as many parts.
    """

    accuracy: Interval
    auroc: Interval
    nll: float
    brier: float
    ece: Interval
    ece_if_calibrated: Interval


@dataclass(frozen=True)
class Operating:
    """One point of the trade-off: at most `overkill` of the good parts rejected.

    Attributes:
        overkill: the limit, in 0..1.
        threshold: defect probability up to which parts are passed there.
        escape: share of the defects that are passed.
    """

    overkill: float
    threshold: float
    escape: Interval


@dataclass(frozen=True)
class Report:
    """All that `calibration report` tells.

    Attributes:
        file: the scores.
        parts, defects: rows, and those whose label is not the OK class.
        groups: physical parts, shots or lots; intervals resample these.
        classes, ok_class, bins: as given.
        before: figures of the probabilities as recorded.
        temperature: fitted on all parts: the one to use.
        fold_temperatures: fitted without one fold of the groups each.
        after: figures where each part's temperature was fitted without its own fold, so that no part is judged by a
            temperature that has seen it; None with fewer than two groups.
        operating: escape against overkill, read off these parts.
    """

    file: Path
    parts: int
    defects: int
    groups: int
    classes: tuple[str, ...]
    ok_class: str
    bins: int
    before: Figures
    temperature: float
    fold_temperatures: tuple[float, ...]
    after: Figures | None
    operating: tuple[Operating, ...]

    @property
    def escape_at_10(self) -> Interval:
        """Escape rate at 10 % overkill."""
        return next(point.escape for point in self.operating if point.overkill == 0.10)


def make_report(
    file: Path,
    scores: Scores,
    bins: int = 15,
    draws: int = 500,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Judge recorded scores.

    Args:
        file: where they came from; only told.
        scores: as recorded.
        bins: of the ECE.
        draws: of the bootstraps. seed: of the bootstraps and of the folds.
        progress: called with (steps done, steps in all).
    """
    groups = group_index(scores)
    p = softmax(scores.logits)
    fold_temperatures, crossed = cross_fitted(scores, seed)
    steps = 2 + len(OVERKILLS)
    tell = progress or (lambda _done, _total: None)
    before = _figures(p, scores, groups, bins, draws, seed)
    tell(1, steps)
    after = None if crossed is None else _figures(crossed, scores, groups, bins, draws, seed)
    operating = []
    for done, limit in enumerate(OVERKILLS, start=2):
        tell(done, steps)
        operating.append(_operating(p, scores, groups, limit, draws, seed))
    tell(steps, steps)
    return Report(
        file=file,
        parts=len(groups),
        defects=int(scores.is_defect.sum()),
        groups=int(groups.max()) + 1,
        classes=scores.classes,
        ok_class=scores.ok_class,
        bins=bins,
        before=before,
        temperature=fit_temperature(scores.logits, scores.labels),
        fold_temperatures=fold_temperatures,
        after=after,
        operating=tuple(operating),
    )


def group_index(scores: Scores) -> Ints:
    """Number of each row's group, int64 (n,), 0..groups-1. A row without a group is one of its own."""
    names = [group or f"\0row {i}" for i, group in enumerate(scores.groups)]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def grouped_folds(groups: Ints, labels: Ints, folds: int, seed: int) -> Ints:
    """Fold of each row, int64 (n,): whole groups, dealt so that each label (of a group's first row) is spread evenly.

    There are never more folds than groups.
    """
    first = np.unique(groups, return_index=True)[1]
    shuffled = np.random.default_rng(seed).permutation(len(first))
    dealt = shuffled[np.argsort(labels[first[shuffled]], kind="stable")]
    fold = np.empty(len(first), np.int64)
    fold[dealt] = np.arange(len(first)) % min(folds, len(first))
    return fold[groups]


def cross_fitted(scores: Scores, seed: int = 0) -> tuple[tuple[float, ...], Floats | None]:
    """Temperature fitted without each of the grouped folds, and the probabilities (n, classes) each fold gets by it.

    None instead of probabilities where all rows are of one group.
    """
    folds = grouped_folds(group_index(scores), scores.labels, FOLDS, seed)
    count = int(folds.max()) + 1
    if count < 2:
        return (), None
    p = np.empty(scores.logits.shape, np.float64)
    temperatures = []
    for fold in range(count):
        inside = folds == fold
        t = fit_temperature(scores.logits[~inside], scores.labels[~inside])
        p[inside] = softmax(scores.logits[inside] / np.float64(t))
        temperatures.append(t)
    return tuple(temperatures), p


def defect_probability(p: Floats, ok_index: int) -> Floats:
    """Sum over all classes but the OK one: float64 (n,), at most 1."""
    return np.asarray(np.minimum(np.delete(p, ok_index, axis=1).sum(axis=1), 1.0))


def _figures(p: Floats, scores: Scores, groups: Ints, bins: int, draws: int, seed: int) -> Figures:
    labels, is_defect = scores.labels, scores.is_defect
    defect = defect_probability(p, scores.ok_index)

    def interval(statistic: Callable[[Ints], float]) -> Interval:
        return bootstrap(statistic, len(labels), groups, draws, seed)

    return Figures(
        accuracy=interval(lambda rows: accuracy(p[rows], labels[rows])),
        auroc=interval(lambda rows: auroc(defect[rows], is_defect[rows])),
        nll=nll(p, labels),
        brier=brier(p, labels),
        ece=interval(lambda rows: ece(p[rows], labels[rows], bins)),
        ece_if_calibrated=ece_of_a_calibrated_model(p, bins, seed=seed),
    )


def _operating(p: Floats, scores: Scores, groups: Ints, limit: float, draws: int, seed: int) -> Operating:
    defect, is_defect = defect_probability(p, scores.ok_index), scores.is_defect
    curve = escape_overkill_curve(defect, is_defect)
    at = int(np.argmax(curve.overkill <= limit + 1e-12))
    threshold = float("nan") if np.isnan(curve.overkill[0]) else float(curve.threshold[at])
    escape = bootstrap(
        lambda rows: escape_at_overkill(defect[rows], is_defect[rows], limit), len(defect), groups, draws, seed
    )
    return Operating(limit, threshold, escape)
