"""Temperature scaling (Guo et al. 2017, arXiv:1706.04599): one number that makes confidences honest.

Dividing logits by T > 0 keeps every ranking and every argmax, so accuracy cannot change.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST, MOST = 0.01, 100.0
"""Bounds of a fitted temperature, both relative to logits of unit scale as networks give them."""

OUTLIER_DEVIATIONS = 20.0
"""Rows whose logit range lies this many robust deviations above the median take no part in the fit."""


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Temperature that minimises the negative log-likelihood of `labels`.

    Rows with a physically implausible range of logits (a broken sample: one wrong logit of 1e4 would otherwise
    decide the whole fit) are left out: the likelihood has unbounded influence, so robustness has to come from
    the choice of rows. When every remaining row is classified correctly the likelihood has no minimum (T -> 0);
    then Platt's smoothed targets (n + 1) / (n + 2) stand in for the labels, and T is at most 1: a handful of parts
    without a mistake is no evidence of too much confidence.

    Args:
        logits: float (n, classes), n >= 1, finite.
        labels: int (n,), 0 <= label < classes.

    Returns:
        T in [0.01, 100]; multiplying all logits by k multiplies it by k, but for the bounds.

    Raises:
        ValueError: shapes do not agree, nothing to fit on, values not finite, or labels out of range.
    """
    z, y = checked(logits, labels)
    z, y = plausible(z, y)
    rows = np.arange(len(y))
    z = z - z.max(axis=1, keepdims=True)
    target = np.zeros_like(z)
    target[rows, y] = 1.0
    most = MOST
    if (z[rows, y] == 0).all():
        smoothing = 1.0 / (len(y) + 2)
        target = target * (1 - smoothing) + (1 - target) * smoothing / (z.shape[1] - 1)
        most = 1.0
    return float(np.clip(np.exp(_root_of_slope(z, target)), LEAST, most))


def checked(logits: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The two arrays with their contract checked: float64 (n, classes) finite, int64 (n,) in range."""
    z = np.asarray(logits, dtype=np.float64)
    y = np.asarray(labels)
    if z.ndim != 2 or z.shape[1] < 2 or y.shape != z.shape[:1]:
        raise ValueError(f"logits {z.shape} and labels {y.shape} are not (n, classes >= 2) and (n,)")
    if len(y) == 0:
        raise ValueError("no samples")
    bad = ~np.isfinite(z)
    if bad.any():
        rows = bad.any(axis=1)
        raise ValueError(
            f"{int(rows.sum())} rows hold values that are not finite (first: row {int(rows.argmax())}, "
            f"class {int(bad[rows.argmax()].argmax())})"
        )
    if not np.issubdtype(y.dtype, np.integer) and not np.equal(np.mod(y, 1), 0).all():
        raise ValueError("labels are not whole numbers")
    y = y.astype(np.int64)
    outside = (y < 0) | (y >= z.shape[1])
    if outside.any():
        span = f"labels {int(y.min())}..{int(y.max())} are outside 0..{z.shape[1] - 1}"
        raise ValueError(f"{span} (first: row {int(outside.argmax())})")
    return z, y


def plausible(z: NDArray[np.float64], y: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The rows whose range of logits is believable, see OUTLIER_DEVIATIONS: at least half of them."""
    spread = z.max(axis=1) - z.min(axis=1)
    centre = np.median(spread)
    if centre == 0.0:  # most rows say nothing: no scale to call any other implausible
        return z, y
    deviation = 1.4826 * np.median(np.abs(spread - centre))
    # the floor keeps rows of nearly constant range from calling small differences implausible
    keep = spread <= centre + OUTLIER_DEVIATIONS * max(deviation, 0.1 * centre)
    return z[keep], y[keep]


def _root_of_slope(z: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """log T at which the NLL is least: bisection on its slope, since the NLL is convex in 1/T."""

    def slope(log_t: float) -> float:
        scaled = z * np.exp(-log_t)
        p = np.exp(scaled)
        p /= p.sum(axis=1, keepdims=True)
        # d NLL / d(1/T) = sum z (p - target): negative while more confidence still helps
        return float(((p - target) * z).sum())

    if not z.any():  # no row says anything: every temperature is as good
        return 0.0
    low, high = np.log(LEAST), np.log(MOST)
    if slope(low) <= 0.0:
        return float(low)
    if slope(high) >= 0.0:
        return float(high)
    for _ in range(60):
        middle = (low + high) / 2
        if slope(middle) > 0.0:
            low = middle
        else:
            high = middle
    return float((low + high) / 2)
