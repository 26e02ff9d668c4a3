"""What the cells of a comparison add up to: levels with intervals over groups, paired differences to the baseline."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.metrics import auroc, balanced_accuracy, bootstrap, confusion, ece, macro_f1, nll, softmax
from calibration.risk import escape_at_overkill
from calibration.temperature import fit_temperature
from calibration.values import Interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LOWER_IS_BETTER = ("escape", "ece_before", "ece", "nll_before", "nll")


@dataclass(frozen=True)
class Truth:
    """What is known of every image: labels int64 (n,), groups (n,), the class names and which of them is good."""

    labels: Ints
    groups: tuple[str, ...]
    classes: tuple[str, ...]
    ok_index: int


@dataclass(frozen=True)
class Outcome:
    """What one recipe said in one cell.

    Attributes:
        seed, fold: of the cell. val, test: rows of the images, int64.
        val_logits, test_logits: float64 (rows, classes).
    """

    seed: int
    fold: int
    val: Ints
    test: Ints
    val_logits: Floats
    test_logits: Floats

    def temperature(self, truth: Truth) -> float:
        """Fitted on the validation fold inside the training part."""
        return fit_temperature(self.val_logits, truth.labels[self.val])


Statistic = Callable[[Floats, Floats, Ints, Ints], float]
"""Of probabilities before and after temperature, float64 (n, classes) each, labels and cells, int64 (n,) each."""


def statistics(truth: Truth, overkill: float) -> dict[str, Statistic]:
    """The figures of a table, by name; shares in 0..1, NLL in nats, NaN where a kind of part is missing.

    Escape and AUROC are of `aligned` scores: each cell has a threshold of its own, as a model in use has.
    """
    ok, n = truth.ok_index, len(truth.classes)

    def escape(_: Floats, p: Floats, y: Ints, cells: Ints) -> float:
        return escape_at_overkill(aligned(1 - p[:, ok], y != ok, cells), y != ok, overkill)

    return {
        "macro_f1": lambda _, p, y, __: macro_f1(p.argmax(1), y, n),
        "balanced_accuracy": lambda _, p, y, __: balanced_accuracy(p.argmax(1), y, n),
        "escape": escape,
        "auroc": lambda _, p, y, cells: auroc(aligned(1 - p[:, ok], y != ok, cells), y != ok),
        "ece_before": lambda raw, _, y, __: ece(raw, y),
        "ece": lambda _, p, y, __: ece(p, y),
        "nll_before": lambda raw, _, y, __: nll(raw, y),
        "nll": lambda _, p, y, __: nll(p, y),
    }


def aligned(defect_probability: Floats, is_defect: NDArray[np.bool_], cells: Ints) -> Floats:
    """Each part's score as the share (0..1) of the good parts judged by the same model that score less, ties half.

    So the scores of several models can be ranked together: their ROC curve is the covariate-adjusted one (Janes &
    Pepe, Biometrika 96, 2009), the covariate being the cell, and each cell rejects as large a share of its good parts.
    One threshold for raw scores of several models is a point that none of them works at.

    Args:
        defect_probability: float64 (n,). is_defect: bool (n,). cells: int64 (n,), which model judged the part.

    Returns:
        float64 (n,); 0.5 throughout a cell without good parts.
    """
    shares = np.full(len(cells), 0.5)
    for cell in np.unique(cells):
        rows = cells == cell
        good = np.sort(defect_probability[rows & ~is_defect])
        if len(good):
            below, upto = (np.searchsorted(good, defect_probability[rows], side) for side in ("left", "right"))
            shares[rows] = (below + upto) / (2 * len(good))
    return shares


@dataclass(frozen=True)
class Pooled:
    """Out-of-fold probabilities of every image, one (n, classes) array a seed, before and after temperature.

    ``cells``: which cell of the seed has judged it, int64 (n,) each.
    """

    before: tuple[Floats, ...]
    after: tuple[Floats, ...]
    cells: tuple[Ints, ...]

    @property
    def changed(self) -> int:
        """Images whose likeliest class temperature has changed, all seeds together."""
        pairs = zip(self.before, self.after, strict=True)
        return sum(int((raw.argmax(1) != scaled.argmax(1)).sum()) for raw, scaled in pairs)


def pool(outcomes: Sequence[Outcome], truth: Truth) -> Pooled:
    """Put the folds of each seed together: every image is judged once, by a model that has not seen its part.

    Raises ValueError where a seed's folds do not hold every image once.
    """
    before, after, cells = [], [], []
    for seed in sorted({outcome.seed for outcome in outcomes}):
        raw, scaled = (np.full((len(truth.labels), len(truth.classes)), np.nan) for _ in range(2))
        fold = np.zeros(len(truth.labels), np.int64)
        for outcome in (o for o in outcomes if o.seed == seed):
            raw[outcome.test] = softmax(outcome.test_logits)
            scaled[outcome.test] = softmax(outcome.test_logits / outcome.temperature(truth))
            fold[outcome.test] = outcome.fold
        if np.isnan(raw).any():
            raise ValueError(f"seed {seed}: {int(np.isnan(raw).any(axis=1).sum())} images were judged by no fold")
        before.append(raw)
        after.append(scaled)
        cells.append(fold)
    return Pooled(tuple(before), tuple(after), tuple(cells))


def levels(pooled: Pooled, truth: Truth, overkill: float, draws: int) -> dict[str, Interval]:
    """Each figure on the pooled out-of-fold predictions, mean over seeds, with its 95 % bootstrap over groups."""
    return {name: _level(figure, pooled, truth, draws) for name, figure in statistics(truth, overkill).items()}


def recalls(pooled: Pooled, truth: Truth, draws: int) -> dict[str, Interval]:
    """Recall of each class, likewise."""

    def recall(label: int) -> Statistic:
        def share(_: Floats, p: Floats, y: Ints, __: Ints) -> float:
            row = confusion(p.argmax(1), y, len(truth.classes))[label]
            return float(row[label] / row.sum()) if row.sum() else math.nan

        return share

    return {name: _level(recall(label), pooled, truth, draws) for label, name in enumerate(truth.classes)}


def _level(figure: Statistic, pooled: Pooled, truth: Truth, draws: int) -> Interval:
    def mean(rows: Ints) -> float:
        y = truth.labels[rows]
        seeds = zip(pooled.before, pooled.after, pooled.cells, strict=True)
        return float(np.mean([figure(raw[rows], p[rows], y, cells[rows]) for raw, p, cells in seeds]))

    return bootstrap(mean, len(truth.labels), truth.groups, draws)


@dataclass(frozen=True)
class Difference:
    """A recipe less the baseline on the same cells: mean over cells, 95 % limits.

    ``better``: True or False where zero lies outside the limits, None where the two cannot be told apart.
    """

    value: float
    low: float
    high: float
    better: bool | None


def differences(
    outcomes: Sequence[Outcome], baseline: Sequence[Outcome], truth: Truth, overkill: float
) -> dict[str, Difference]:
    """Every figure's paired difference, cell by cell, in the order of `statistics`.

    Args:
        outcomes, baseline: the same (seed, fold) in the same order.
    """
    ours, theirs = (_by_cell(cells, truth, overkill) for cells in (outcomes, baseline))
    folds = len({outcome.fold for outcome in outcomes})
    return {name: difference(ours[name] - theirs[name], 1 / (folds - 1), name not in LOWER_IS_BETTER) for name in ours}


def _by_cell(outcomes: Sequence[Outcome], truth: Truth, overkill: float) -> dict[str, Floats]:
    """Each figure in each cell, float64 (cells,)."""
    figures = statistics(truth, overkill)
    found: dict[str, list[float]] = {name: [] for name in figures}
    for outcome in outcomes:
        raw, y = softmax(outcome.test_logits), truth.labels[outcome.test]
        scaled = softmax(outcome.test_logits / outcome.temperature(truth))
        for name, figure in figures.items():
            found[name].append(figure(raw, scaled, y, np.zeros_like(y)))
    return {name: np.array(values) for name, values in found.items()}


def difference(values: Floats, test_to_train: float, higher_is_better: bool) -> Difference:
    """Mean of paired differences with the interval of the corrected resampled t-test (Nadeau & Bengio, Machine
    Learning 52, 2003, eq. 9; for repeated folds see Bouckaert & Frank, PAKDD 2004).

    The cells share most of their training images, so their differences are not independent and s^2 / cells is too
    small a variance of the mean; the correction takes s^2 (1 / cells + test_to_train) instead.

    Args:
        values: float64 (cells,); NaN (a cell without a defect) is left out.
        test_to_train: images judged over images learned from, in a cell: 1 / (folds - 1).
        higher_is_better: of the figure.
    """
    known = values[~np.isnan(values)]
    if len(known) < 2:
        return Difference(float(known.mean()) if len(known) else math.nan, math.nan, math.nan, None)
    mean = float(known.mean())
    error = math.sqrt(float(known.var(ddof=1)) * (1 / len(known) + test_to_train))
    half = t_quantile(0.975, len(known) - 1) * error
    low, high = mean - half, mean + half
    better = None if low <= 0 <= high else (mean > 0) == higher_is_better
    return Difference(mean, low, high, better)


def t_quantile(p: float, freedom: int) -> float:
    """Quantile of Student's t with ``freedom`` >= 1 degrees, 0.5 <= p < 1, to 1e-9; by bisection on its closed form."""
    low, high = 0.0, 1.0
    while _t_cdf(high, freedom) < p:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        if _t_cdf(middle, freedom) < p:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _t_cdf(t: float, freedom: int) -> float:
    """P(T <= t) for t >= 0 (Abramowitz & Stegun 26.7.3 and 26.7.4, finite sums for whole degrees of freedom)."""
    angle = math.atan2(t, math.sqrt(freedom))
    cosine = math.cos(angle)
    first = 1.0 if freedom % 2 == 0 else cosine
    terms, term = 0.0, first
    for i in range(2 + freedom % 2, freedom + 1, 2):
        terms += term
        term *= cosine * cosine * (i - 1) / i
    if freedom % 2 == 0:
        return 0.5 + math.sin(angle) * terms / 2
    return 0.5 + (angle + math.sin(angle) * terms) / math.pi
