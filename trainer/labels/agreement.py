"""Attribute agreement analysis: do inspectors agree with themselves, with each other and with the truth?

After AIAG, Measurement Systems Analysis, 4th ed. 2010, chapter III C (attribute measurement systems). The same item is
shown to each inspector several times; answers of one inspector to one item are trials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.risk import wilson
from calibration.values import Interval
from trainer.labels.consensus import checked_answers

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DRAWS = 1000
"""Bootstrap resamples of the items behind each interval of a kappa."""

ACCEPTABLE = {"effectiveness": (0.90, 0.80), "miss": (0.02, 0.05), "false_alarm": (0.05, 0.10)}
"""AIAG's criteria for an inspector: (acceptable, marginal); effectiveness at least so high, the others at most."""

GOOD_KAPPA = 0.75
"""AIAG: kappa above it is good to excellent agreement."""


@dataclass(frozen=True)
class Appraiser:
    """One inspector, or all of them together. Shares in 0..1; None where the answers do not show it.

    Attributes:
        items, answers: how many.
        same: share of the items with several answers that got the same one every time, with Wilson's interval.
        kappa: Fleiss' kappa of those answers. Of one inspector both say how well he repeats himself, of all together
            how well they agree.
        effectiveness: share of the items with a known truth whose answers were all right.
        miss, false_alarm: shares of the answers to known defects that were OK, and to known good parts that were not;
            need the class of the good parts.
        kappa_truth: Cohen's kappa between answers and truth.
        verdict: "acceptable", "marginal" or "unacceptable" by ACCEPTABLE; empty without truth and OK class.
    """

    items: int
    answers: int
    same: Interval | None
    kappa: Interval | None
    effectiveness: Interval | None
    miss: Interval | None
    false_alarm: Interval | None
    kappa_truth: Interval | None
    verdict: str


@dataclass(frozen=True)
class Agreement:
    """What an attribute agreement analysis found: of each inspector, in their order, and of all together."""

    appraisers: tuple[Appraiser, ...]
    together: Appraiser


def agreement(
    answers: ArrayLike,
    n_classes: int,
    *,
    truth: Mapping[int, int] | None = None,
    ok: int | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Agreement:
    """Analyse answers.

    Args:
        answers: int (n, 3) of (item, annotator, label); several of one annotator to one item are trials.
        n_classes: labels are 0..n_classes-1.
        truth: known class of some items, by item number. ok: the class of the good parts.
        draws: of the bootstrap over items. seed: of the bootstrap.

    Raises:
        ValueError: answers of another shape, or numbers out of range.
    """
    rows = checked_answers(answers, n_classes)
    known, study = dict(truth or {}), _Study(n_classes, ok, draws, seed)
    each = tuple(study.appraiser(rows[rows[:, 1] == who], known) for who in range(int(rows[:, 1].max()) + 1))
    return Agreement(each, study.appraiser(rows, known))


def fleiss_kappa(counts: ArrayLike) -> float:
    """Fleiss' kappa (Psychological Bulletin 76, 1971) of answers by item and class, numbers (items, classes).

    Items may have different numbers of answers; those with fewer than two say nothing. 1 where all answers are the
    same class, since nothing was ever answered otherwise; NaN without an item of two answers.
    """
    n = np.asarray(counts, np.float64)
    n = n[n.sum(axis=1) >= 2]
    if not len(n):
        return float("nan")
    total = n.sum(axis=1)
    seen = float((((n**2).sum(axis=1) - total) / (total * (total - 1))).mean())
    chance = float(((n.sum(axis=0) / n.sum()) ** 2).sum())
    return 1.0 if chance >= 1 else (seen - chance) / (1 - chance)


def cohen_kappa(confusion: ArrayLike) -> float:
    """Cohen's kappa (Educational and Psychological Measurement 20, 1960) of a confusion matrix, numbers (classes,
    classes). 1 where both only ever say the same one class; NaN without answers."""
    n = np.asarray(confusion, np.float64)
    if not n.sum():
        return float("nan")
    p = n / n.sum()
    seen, chance = float(np.trace(p)), float(p.sum(axis=0) @ p.sum(axis=1))
    return 1.0 if chance >= 1 else (seen - chance) / (1 - chance)


class _Study:
    """The settings of one analysis."""

    def __init__(self, classes: int, ok: int | None, draws: int, seed: int) -> None:
        self.classes, self.ok, self.draws, self.seed = classes, ok, draws, seed

    def appraiser(self, rows: Ints, known: Mapping[int, int]) -> Appraiser:
        """One inspector's answers, or everybody's."""
        counts = _counts(rows, self.classes)
        repeated = counts[counts.sum(axis=1) > 1]
        same = int((repeated.max(axis=1) == repeated.sum(axis=1)).sum())
        judged = rows[np.isin(rows[:, 0], list(known))]
        true = np.array([known[item] for item in judged[:, 0].tolist()], np.int64)
        effectiveness, miss, false_alarm = self._rates(judged, true)
        return Appraiser(
            items=int((counts.sum(axis=1) > 0).sum()),
            answers=len(rows),
            same=wilson(same, len(repeated)) if len(repeated) else None,
            kappa=self._bootstrap(fleiss_kappa, repeated),
            effectiveness=effectiveness,
            miss=miss,
            false_alarm=false_alarm,
            kappa_truth=self._kappa_truth(judged, true),
            verdict=_verdict(effectiveness, miss, false_alarm),
        )

    def _rates(self, judged: Ints, true: Ints) -> tuple[Interval | None, Interval | None, Interval | None]:
        """Effectiveness, misses and false alarms."""
        right, items = judged[:, 2] == true, np.unique(judged[:, 0])
        always = sum(bool(right[judged[:, 0] == item].all()) for item in items)
        bad, called_ok = true != self.ok, judged[:, 2] == self.ok
        effectiveness = _share(always, len(items))
        if self.ok is None:
            return effectiveness, None, None
        return effectiveness, _share(bad & called_ok, bad), _share(~bad & ~called_ok, ~bad)

    def _kappa_truth(self, judged: Ints, true: Ints) -> Interval | None:
        tables = np.zeros((len(items := np.unique(judged[:, 0])), self.classes, self.classes))
        np.add.at(tables, (np.searchsorted(items, judged[:, 0]), true, judged[:, 2]), 1)
        return self._bootstrap(lambda some: cohen_kappa(some.sum(axis=0)), tables)

    def _bootstrap(self, statistic: Callable[[Floats], float], items: Floats) -> Interval | None:
        """A statistic of items, with its 95 % interval over resamples of them; None where it is not defined."""
        if not len(items) or np.isnan(value := statistic(items)):
            return None
        rng = np.random.default_rng(self.seed)
        drawn = [statistic(items[rng.integers(0, len(items), len(items))]) for _ in range(self.draws)]
        low, high = np.nanquantile(drawn, [0.025, 0.975])
        return Interval(value, float(min(low, value)), float(max(high, value)))


def _share(some: ArrayLike, of: ArrayLike) -> Interval | None:
    """How many of how many, as counts or as masks; None of none."""
    n = int(np.sum(of))
    return wilson(int(np.sum(some)), n) if n else None


def _counts(rows: Ints, classes: int) -> Floats:
    """Answers by item and class, float64 (items, classes)."""
    counts = np.zeros((int(rows[:, 0].max()) + 1 if len(rows) else 0, classes))
    np.add.at(counts, (rows[:, 0], rows[:, 2]), 1)
    return counts


def _verdict(effectiveness: Interval | None, miss: Interval | None, false_alarm: Interval | None) -> str:
    """The worst of the three criteria."""
    if effectiveness is None or miss is None or false_alarm is None:
        return ""
    found = {"effectiveness": effectiveness.value, "miss": miss.value, "false_alarm": false_alarm.value}
    worst = 0
    for name, limits in ACCEPTABLE.items():
        failed = [found[name] < limit if name == "effectiveness" else found[name] > limit for limit in limits]
        worst = max(worst, sum(failed))
    return ("acceptable", "marginal", "unacceptable")[worst]
