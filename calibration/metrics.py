"""How good, and how honest, a classifier's probabilities are.

All functions take plain arrays: `probabilities` float (n, classes) with rows that sum to one, `labels` int (n,).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.temperature import checked
from calibration.values import Interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


SUM_TOLERANCE = 1e-3
"""How far the sum of a row of probabilities may lie from one: float16 and rounded text are let through."""


def softmax(logits: ArrayLike) -> Floats:
    """Softmax along the last axis in float64; finite for any finite logits."""
    z = np.asarray(logits, dtype=np.float64)
    e = z - np.maximum.reduce(z, axis=-1, keepdims=True)  # the ufuncs themselves: this runs for every batch of a line
    np.exp(e, out=e)
    e /= np.add.reduce(e, axis=-1, keepdims=True)
    return e


def checked_probabilities(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, Ints]:
    """Both arrays with their contract checked. Raises ValueError that names what is wrong."""
    p, y = checked(probabilities, labels)
    outside = (p < 0) | (p > 1 + 1e-6)
    if outside.any():
        row, column = (int(i) for i in np.argwhere(outside)[0])
        raise ValueError(f"probabilities lie outside 0..1 (first: row {row}, class {column}: {p[row, column]:.6g})")
    sums = p.sum(axis=1)
    off = np.abs(sums - 1) > SUM_TOLERANCE
    if off.any():
        row = int(off.argmax())
        first = f"first: row {row}, which sums to {sums[row]:.6g}"
        raise ValueError(f"{int(off.sum())} rows of probabilities do not sum to one ({first})")
    return p, y


def accuracy(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Share of rows whose largest probability is the label's, in 0..1. Ties go to the first class."""
    p, y = checked(probabilities, labels)
    return float((p.argmax(axis=1) == y).mean())


def nll(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean negative log-likelihood in nats; probabilities below 1e-12 count as 1e-12."""
    return float(row_nll(probabilities, labels).mean())


def row_nll(probabilities: ArrayLike, labels: ArrayLike) -> Floats:
    """Each row's part of `nll`: float64 (n,)."""
    p, y = checked_probabilities(probabilities, labels)
    return np.asarray(-np.log(np.maximum(p[np.arange(len(y)), y], 1e-12)))


def brier(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Brier score (Brier 1950), summed over classes, mean over rows: 0 (perfect) to 2."""
    return float(row_brier(probabilities, labels).mean())


def row_brier(probabilities: ArrayLike, labels: ArrayLike) -> Floats:
    """Each row's part of `brier`: float64 (n,)."""
    p, y = checked_probabilities(probabilities, labels)
    return np.asarray(((p - np.eye(p.shape[1])[y]) ** 2).sum(axis=1))


@dataclass(frozen=True)
class ReliabilityBins:
    """A reliability diagram: per bin of top-class confidence its edges, count, mean confidence and accuracy.

    `confidence` and `accuracy` are NaN where `count` is 0. All arrays have length `bins`, `edges` one more.
    """

    edges: Floats
    count: Ints
    confidence: Floats
    accuracy: Floats

    @property
    def ece(self) -> float:
        """Expected calibration error of these bins."""
        used = self.count > 0
        gaps = np.abs(self.confidence[used] - self.accuracy[used])
        return float((self.count[used] * gaps).sum() / self.count.sum())


def reliability_bins(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> ReliabilityBins:
    """Equal-width bins (low, high] of the top-class confidence; a confidence of exactly 0 lies in the first."""
    p, y = checked_probabilities(probabilities, labels)
    return equal_width_bins(p.max(axis=1), (p.argmax(axis=1) == y).astype(np.float64), bins)


def equal_width_bins(confidence: Floats, correct: Floats, bins: int) -> ReliabilityBins:
    """Bins (low, high] over [0, 1] of any stated probability (n,) against its outcome, 0.0 or 1.0 (n,).

    Raises:
        ValueError: fewer than one bin.
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}; it must be at least 1")
    edges = np.linspace(0.0, 1.0, bins + 1)
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(index, confidence, bins) / count
        mean_accuracy = np.bincount(index, correct, bins) / count
    return ReliabilityBins(edges, count.astype(np.int64), mean_confidence, mean_accuracy)


def ece(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error of the top class, equal-width bins (Naeini 2015; Guo 2017), in 0..1.

    Biased upwards at small n: compare it with `ece_of_a_calibrated_model` before reading anything into it.
    """
    return reliability_bins(probabilities, labels, bins).ece


def ece_of_a_calibrated_model(probabilities: ArrayLike, bins: int = 15, draws: int = 200, seed: int = 0) -> Interval:
    """The ECE that a perfectly calibrated model with these confidences would show at this sample size.

    Simulated: outcomes drawn with the stated confidences. `value` is the mean over draws, the limits their
    2.5 % and 97.5 % quantiles.
    """
    top = np.asarray(probabilities, dtype=np.float64).max(axis=1)
    rng = np.random.default_rng(seed)
    outcomes = ((rng.random(len(top)) < top).astype(np.float64) for _ in range(draws))
    values = np.array([equal_width_bins(top, outcome, bins).ece for outcome in outcomes])
    return _quantiles(float(values.mean()), values)


def ece_interval(
    probabilities: ArrayLike, labels: ArrayLike, bins: int = 15, draws: int = 500, seed: int = 0
) -> Interval:
    """ECE with its percentile bootstrap interval over rows."""
    p, y = checked_probabilities(probabilities, labels)
    top, correct = p.max(axis=1), (p.argmax(axis=1) == y).astype(np.float64)
    return bootstrap(lambda rows: equal_width_bins(top[rows], correct[rows], bins).ece, len(y), draws=draws, seed=seed)


def bootstrap(
    statistic: Callable[[Ints], float],
    n: int,
    groups: ArrayLike | None = None,
    draws: int = 500,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval (Efron 1979) of `statistic`, a function of row indices.

    With `groups` (n,) whole groups are drawn, see `resamples`. Draws on which the statistic is NaN (a resample without
    a defect, say) are left out.
    """
    values = np.array([statistic(rows) for rows in resamples(n, groups, draws, seed)])
    return _quantiles(statistic(np.arange(n)), values[~np.isnan(values)], level)


def resamples(n: int, groups: ArrayLike | None = None, draws: int = 500, seed: int = 0) -> Iterator[Ints]:
    """`draws` samples with replacement from n rows, as indices int64: n of them each, or the rows of as many groups as
    there are, since rows of one part are not independent.

    Args:
        groups: (n,), any values that can be sorted.
    """
    rng = np.random.default_rng(seed)
    if groups is None:
        for _ in range(draws):
            yield rng.integers(0, n, n)
        return
    _, index, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    rows = np.argsort(index, kind="stable")  # those of the first group, then those of the second, ...
    starts = np.cumsum(sizes) - sizes
    for _ in range(draws):
        drawn = rng.integers(0, len(sizes), len(sizes))
        lengths = sizes[drawn]
        ends = np.cumsum(lengths)
        yield rows[np.arange(ends[-1]) + np.repeat(starts[drawn] - (ends - lengths), lengths)]


def _quantiles(value: float, values: Floats, level: float = 0.95) -> Interval:
    if len(values) == 0:
        return Interval(value, float("nan"), float("nan"), level)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high), level)


def auroc(scores: ArrayLike, positive: ArrayLike) -> float:
    """Area under the ROC curve by ranks, ties counted half (Mann-Whitney U); NaN where one class is missing.

    Raises:
        ValueError: the two are not rows of equal length, or a score is NaN.
    """
    s = np.asarray(scores, dtype=np.float64)
    is_positive = np.asarray(positive, dtype=bool)
    if s.ndim != 1 or s.shape != is_positive.shape or np.isnan(s).any():
        raise ValueError(f"scores {s.shape} and truth {is_positive.shape} are not two rows of equal length without NaN")
    n_pos, n_neg = int(is_positive.sum()), int((~is_positive).sum())
    if n_pos == 0 or n_neg == 0:
        return float("nan")
    _, inverse, counts = np.unique(s, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    u = mean_rank[inverse][is_positive].sum() - n_pos * (n_pos + 1) / 2
    return float(u / (n_pos * n_neg))


def confusion(predicted: ArrayLike, labels: ArrayLike, classes: int) -> Ints:
    """Confusion matrix, int64 (true, predicted)."""
    index = np.asarray(labels) * classes + np.asarray(predicted)
    return np.bincount(index, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def macro_f1(predicted: ArrayLike, labels: ArrayLike, classes: int) -> float:
    """F1 averaged over the classes that occur in labels or predictions."""
    matrix = confusion(predicted, labels, classes)
    both = matrix.sum(axis=0) + matrix.sum(axis=1)
    present = both > 0
    return float((2 * np.diag(matrix)[present] / both[present]).mean())


def balanced_accuracy(predicted: ArrayLike, labels: ArrayLike, classes: int) -> float:
    """Mean recall over the classes that occur in `labels`."""
    matrix = confusion(predicted, labels, classes)
    total = matrix.sum(axis=1)
    return float((np.diag(matrix)[total > 0] / total[total > 0]).mean())
