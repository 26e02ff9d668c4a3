"""How good and how honest recorded scores are, with intervals that know which rows show the same part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.calibration_error import debiased, equal_mass_bins, top_class
from calibration.crossfit import cross_fitted, cross_fitted_vector, group_index
from calibration.metrics import (
    auroc,
    bootstrap,
    ece_of_a_calibrated_model,
    equal_width_bins,
    row_brier,
    row_nll,
    softmax,
)
from calibration.risk import Costs, cost_curve, escape_at_overkill, escape_overkill_curve
from calibration.scores import Scores
from calibration.temperature import fit_temperature
from calibration.values import Interval

OVERKILLS = (0.01, 0.02, 0.05, 0.10, 0.20, 0.30)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Figures:
    """Figures of merit of one set of probabilities; shares in 0..1, NLL in nats, Brier score in 0..2.

    `ece` has equal-width bins, `ece_equal_mass`, `ece_debiased` and `ece_classwise` are those of `calibration_error`.
    `ece_if_calibrated` is the `ece` that a perfectly calibrated model with the same confidences would show on as many
    parts.
    """

    accuracy: Interval
    auroc: Interval
    nll: Interval
    brier: Interval
    ece: Interval
    ece_equal_mass: Interval
    ece_debiased: Interval
    ece_classwise: Interval
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
class LeastCost:
    """The threshold of least expected cost, where passing and scrapping are the only choices.

    Attributes:
        costs, prevalence: reckoned with; the prevalence is the share of defects on the line.
        threshold: defect probability up to which parts are passed there; -inf passes none.
        escape, overkill: shares there.
        cost: per part, in the unit of the costs; its interval re-chooses the threshold in every resample.
        cost_of_rejecting_all: to compare with.
    """

    costs: Costs
    prevalence: float
    threshold: float
    escape: float
    overkill: float
    cost: Interval
    cost_of_rejecting_all: float


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
        vector: likewise with vector scaling instead of a temperature, for comparison.
        operating: escape against overkill, read off these parts.
        least_cost: of one threshold, read off these parts; None without defects or without good parts.
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
    vector: Figures | None
    operating: tuple[Operating, ...]
    least_cost: LeastCost | None

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
    costs: Costs | None = None,
    prevalence: float | None = None,
) -> Report:
    """Judge recorded scores.

    Args:
        file: where they came from; only told.
        scores: as recorded.
        bins: of the calibration errors.
        draws: of the bootstraps. seed: of the bootstraps and of the folds.
        progress: called with (steps done, steps in all).
        costs: of escape and overkill; None takes the defaults of Costs.
        prevalence: share of defects on the line, in (0, 1); None takes that of these parts.
    """
    groups = group_index(scores)
    fold_temperatures, crossed = cross_fitted(scores, seed)
    p = softmax(scores.logits)
    steps = 4 + len(OVERKILLS)
    tell = progress or (lambda _done, _total: None)
    before = _figures(p, scores, groups, bins, draws, seed)
    after_and_vector = []
    for done, probabilities in enumerate((crossed, cross_fitted_vector(scores, seed)), start=1):
        tell(done, steps)
        found = None if probabilities is None else _figures(probabilities, scores, groups, bins, draws, seed)
        after_and_vector.append(found)
    operating = []
    for done, limit in enumerate(OVERKILLS, start=3):
        tell(done, steps)
        operating.append(_operating(p, scores, groups, limit, draws, seed))
    tell(steps - 1, steps)
    least = _least_cost(p, scores, groups, costs or Costs(), prevalence, draws, seed)
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
        after=after_and_vector[0],
        vector=after_and_vector[1],
        operating=tuple(operating),
        least_cost=least,
    )


def defect_probability(p: Floats, ok_index: int) -> Floats:
    """Sum over all classes but the OK one: float64 (n,), at most 1."""
    return np.asarray(np.minimum(np.delete(p, ok_index, axis=1).sum(axis=1), 1.0))


def _figures(p: Floats, scores: Scores, groups: Ints, bins: int, draws: int, seed: int) -> Figures:
    labels, is_defect = scores.labels, scores.is_defect
    defect = defect_probability(p, scores.ok_index)
    top, correct = top_class(p, labels)
    nll, brier = row_nll(p, labels), row_brier(p, labels)
    hits = np.eye(p.shape[1])[labels]

    def interval(statistic: Callable[[Ints], float]) -> Interval:
        return bootstrap(statistic, len(labels), groups, draws, seed)

    def classwise(rows: Ints) -> float:
        return float(np.mean([equal_width_bins(p[rows, k], hits[rows, k], bins).ece for k in range(p.shape[1])]))

    return Figures(
        accuracy=interval(lambda rows: float(correct[rows].mean())),
        auroc=interval(lambda rows: auroc(defect[rows], is_defect[rows])),
        nll=interval(lambda rows: float(nll[rows].mean())),
        brier=interval(lambda rows: float(brier[rows].mean())),
        ece=interval(lambda rows: equal_width_bins(top[rows], correct[rows], bins).ece),
        ece_equal_mass=interval(lambda rows: equal_mass_bins(top[rows], correct[rows], bins).ece),
        ece_debiased=interval(lambda rows: debiased(equal_mass_bins(top[rows], correct[rows], bins))),
        ece_classwise=interval(classwise),
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


def _least_cost(
    p: Floats, scores: Scores, groups: Ints, costs: Costs, prevalence: float | None, draws: int, seed: int
) -> LeastCost | None:
    defect, is_defect = defect_probability(p, scores.ok_index), scores.is_defect
    if is_defect.all() or not is_defect.any():
        return None
    share = float(is_defect.mean()) if prevalence is None else prevalence
    curve = cost_curve(defect, is_defect, costs, share)

    def least(rows: Ints) -> float:
        kinds = is_defect[rows]
        if kinds.all() or not kinds.any():
            return float("nan")
        return float(cost_curve(defect[rows], kinds, costs, share).cost.min())

    at = curve.cheapest
    return LeastCost(
        costs=costs,
        prevalence=share,
        threshold=float(curve.threshold[at]),
        escape=float(curve.escape[at]),
        overkill=float(curve.overkill[at]),
        cost=bootstrap(least, len(groups), groups, draws, seed),
        cost_of_rejecting_all=float(curve.cost[0]),
    )
