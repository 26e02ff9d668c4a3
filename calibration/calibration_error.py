"""Estimates of calibration error beside `metrics.ece`: other bins, less bias, every class.

All take `probabilities` float (n, classes) with rows that sum to one and `labels` int (n,), and give a share in 0..1;
`interval` puts a bootstrap interval around any of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.metrics import ReliabilityBins, bootstrap, checked_probabilities, equal_width_bins
from calibration.values import Interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def equal_mass_ece(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """ECE of the top class over bins that hold equally many rows (adaptive binning, Nguyen & O'Connor 2015).

    Equal-width bins put most rows of a confident model into the last one and leave the rest to chance. Rows of equal
    confidence share a bin, so the order of rows does not matter, and there may be fewer bins than asked for.
    """
    return equal_mass_bins(*top_class(probabilities, labels), bins).ece


def debiased_ece(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Root mean square calibration error of the top class with its bias removed (Kumar et al. 2019, arXiv:1909.10155).

    Of every equal-mass bin's squared gap the variance a (1 - a) / (count - 1) of its accuracy a is taken off, which
    makes the square an unbiased estimate of the binned calibration error's; below zero it counts as zero. A bin of
    one row has no variance to take off. It is an L2 error and so as a rule larger than the (L1) ECE would be without
    bias: compare it with itself, before and after calibration.
    """
    return debiased(equal_mass_bins(*top_class(probabilities, labels), bins))


def debiased(bins: ReliabilityBins) -> float:
    """The figure of `debiased_ece` for any bins."""
    return math.sqrt(max(0.0, debiased_square(bins)))


def debiased_square(bins: ReliabilityBins) -> float:
    """The unbiased estimate behind `debiased_ece`; negative where the gaps are smaller than chance makes them."""
    used = bins.count > 0
    count, a, gap = bins.count[used], bins.accuracy[used], bins.confidence[used] - bins.accuracy[used]
    variance = a * (1 - a) / np.maximum(count - 1, 1)
    return float((count * (gap**2 - variance)).sum() / count.sum())


def classwise_ece(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Mean over classes of the ECE of that class's own probability (Kull et al. 2019, arXiv:1910.12656).

    Equal-width bins of the class's probability, against the share of rows that are of the class. It sees what the
    top class hides: a rare class that is always stated too low.
    """
    p, y = checked_probabilities(probabilities, labels)
    return float(np.mean([equal_width_bins(p[:, k], (y == k).astype(float), bins).ece for k in range(p.shape[1])]))


def interval(
    metric: Callable[[Floats, Ints], float],
    probabilities: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    draws: int = 500,
    seed: int = 0,
) -> Interval:
    """A metric of (probabilities, labels) with its 95 % percentile bootstrap interval, over groups where given.

    For the calibration errors, which are biased upwards in small samples and more so in resamples, the interval lies
    high; `ece_of_a_calibrated_model` tells how high an ECE means nothing.
    """
    p, y = checked_probabilities(probabilities, labels)
    return bootstrap(lambda rows: metric(p[rows], y[rows]), len(y), groups, draws, seed)


def top_class(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    """Largest probability of each row, and whether its class is the label (0.0 or 1.0): float64 (n,) each."""
    p, y = checked_probabilities(probabilities, labels)
    return p.max(axis=1), (p.argmax(axis=1) == y).astype(np.float64)


def equal_mass_bins(confidence: Floats, correct: Floats, bins: int) -> ReliabilityBins:
    """Bins of equal count; equal confidences lie in the same bin, the one of the lowest rank among them.

    Args:
        confidence: float (n,). correct: 0.0 or 1.0 (n,).

    Returns:
        Bins whose `edges` are the least confidence of each and the largest of the last (NaN for empty bins).

    Raises:
        ValueError: fewer than one bin.
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}; it must be at least 1")
    ordered = np.sort(confidence)
    rank = np.searchsorted(ordered, confidence, side="left")
    index = rank * bins // len(confidence)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(index, confidence, bins) / count
        mean_accuracy = np.bincount(index, correct, bins) / count
    edges = np.full(bins + 1, np.nan)
    edges[index] = np.inf
    np.minimum.at(edges, index, confidence)
    edges[-1] = ordered[-1]
    return ReliabilityBins(edges, count.astype(np.int64), mean_confidence, mean_accuracy)
