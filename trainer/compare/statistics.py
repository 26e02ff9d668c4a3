"""What the cells of a comparison add up to: levels with intervals over groups, paired differences to one recipe."""

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
from trainer.compare.calls import called, ok_offset

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

    def said(self, truth: Truth) -> Said:
        """Of the test rows, with what the validation fold says of temperature and offset."""
        temperature = self.temperature(truth)
        raw, scaled = softmax(self.test_logits), softmax(self.test_logits / temperature)
        offset = ok_offset(softmax(self.val_logits / temperature), truth.labels[self.val], truth.ok_index)
        return Said(raw, scaled, called(scaled, offset, truth.ok_index), np.full(len(self.test), self.fold))


@dataclass(frozen=True)
class Said:
    """What models said of images.

    Attributes:
        before, after: probabilities without and with temperature, float64 (n, classes).
        called: classes, int64 (n,), see trainer.compare.calls.
        cells: which model said it, int64 (n,).
    """

    before: Floats
    after: Floats
    called: Ints
    cells: Ints

    def at(self, rows: Ints) -> Said:
        """Of some of the images."""
        return Said(self.before[rows], self.after[rows], self.called[rows], self.cells[rows])


Statistic = Callable[[Said, Ints], float]
"""Of what was said and of the labels, int64 (n,)."""


def statistics(truth: Truth, overkill: float) -> dict[str, Statistic]:
    """The figures of a table, by name; shares in 0..1, NLL in nats, NaN where a kind of part is missing.

    Macro-F1 and balanced accuracy are of the classes called, see trainer.compare.calls, the others of probabilities.
    Escape and AUROC are of `aligned` scores: each cell has a threshold of its own, as a model in use has.
    """
    ok, n = truth.ok_index, len(truth.classes)

    def scores(said: Said, y: Ints) -> Floats:
        return aligned(1 - said.after[:, ok], y != ok, said.cells)

    return {
        "macro_f1": lambda said, y: macro_f1(said.called, y, n),
        "balanced_accuracy": lambda said, y: balanced_accuracy(said.called, y, n),
        "balanced_likeliest": lambda said, y: balanced_accuracy(said.after.argmax(1), y, n),
        "escape": lambda said, y: escape_at_overkill(scores(said, y), y != ok, overkill),
        "auroc": lambda said, y: auroc(scores(said, y), y != ok),
        "ece_before": lambda said, y: ece(said.before, y),
        "ece": lambda said, y: ece(said.after, y),
        "nll_before": lambda said, y: nll(said.before, y),
        "nll": lambda said, y: nll(said.after, y),
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
    """What was said of every image by a model that had not seen its part, for each seed."""

    seeds: tuple[Said, ...]

    @property
    def changed(self) -> int:
        """Images whose likeliest class temperature has changed, all seeds together."""
        return sum(int((said.before.argmax(1) != said.after.argmax(1)).sum()) for said in self.seeds)


def pool(outcomes: Sequence[Outcome], truth: Truth) -> Pooled:
    """Put the folds of each seed together: every image is judged once, by a model that has not seen its part.

    Raises ValueError where a seed's folds do not hold every image once.
    """
    seeds, images = [], len(truth.labels)
    for seed in sorted({outcome.seed for outcome in outcomes}):
        own = [outcome for outcome in outcomes if outcome.seed == seed]
        order = np.concatenate([outcome.test for outcome in own])
        if missing := len(np.setdiff1d(np.arange(images), order)):
            raise ValueError(f"seed {seed}: {missing} images were judged by no fold")
        each = [outcome.said(truth) for outcome in own]
        columns = (np.concatenate([getattr(said, name) for said in each]) for name in Said.__dataclass_fields__)
        seeds.append(Said(*columns).at(np.argsort(order)))
    return Pooled(tuple(seeds))


def levels(pooled: Pooled, truth: Truth, overkill: float, draws: int) -> dict[str, Interval]:
    """Each figure on the pooled out-of-fold predictions, mean over seeds, with its 95 % bootstrap over groups."""
    return {name: _level(figure, pooled, truth, draws) for name, figure in statistics(truth, overkill).items()}


def recalls(pooled: Pooled, truth: Truth, draws: int) -> dict[str, Interval]:
    """Recall of each class, likewise."""

    def recall(label: int) -> Statistic:
        def share(said: Said, y: Ints) -> float:
            row = confusion(said.called, y, len(truth.classes))[label]
            return float(row[label] / row.sum()) if row.sum() else math.nan

        return share

    return {name: _level(recall(label), pooled, truth, draws) for label, name in enumerate(truth.classes)}


def _level(figure: Statistic, pooled: Pooled, truth: Truth, draws: int) -> Interval:
    def mean(rows: Ints) -> float:
        y = truth.labels[rows]
        return float(np.mean([figure(said.at(rows), y) for said in pooled.seeds]))

    return bootstrap(mean, len(truth.labels), truth.groups, draws)


@dataclass(frozen=True)
class Difference:
    """A recipe less another on the same cells: mean over cells, 95 % limits.

    ``better``: True or False where zero lies outside the limits, None where the two cannot be told apart.
    """

    value: float
    low: float
    high: float
    better: bool | None


def differences(
    outcomes: Sequence[Outcome], against: Sequence[Outcome], truth: Truth, overkill: float
) -> dict[str, Difference]:
    """Every figure's paired difference, cell by cell, in the order of `statistics`.

    Args:
        outcomes, against: the same (seed, fold) in the same order.
    """
    ours, theirs = (_by_cell(cells, truth, overkill) for cells in (outcomes, against))
    folds = len({outcome.fold for outcome in outcomes})
    return {name: difference(ours[name] - theirs[name], 1 / (folds - 1), name not in LOWER_IS_BETTER) for name in ours}


def _by_cell(outcomes: Sequence[Outcome], truth: Truth, overkill: float) -> dict[str, Floats]:
    """Each figure in each cell, float64 (cells,)."""
    figures = statistics(truth, overkill)
    found: dict[str, list[float]] = {name: [] for name in figures}
    for outcome in outcomes:
        said, y = outcome.said(truth), truth.labels[outcome.test]
        for name, figure in figures.items():
            found[name].append(figure(said, y))
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
