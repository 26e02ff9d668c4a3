"""Histograms of defect probability, and when two of them differ more than chance allows.

The folklore thresholds for PSI (0.1, 0.25) are wrong at every sample size: under no drift 2 n KL and
n m / (n + m) PSI follow a chi-square law with bins - 1 degrees of freedom (G-test; Yurdakul 2018), so the
alarm limit has to fall with the sample. `null_quantile` simulates the exact null for the sizes at hand.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.values import BINS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def bin_index(probability: ArrayLike, bins: int = BINS) -> Ints:
    """Bin of each probability: int64, 0..bins-1; 1.0 lies in the last. Outside 0..1, or NaN: ValueError."""
    p = np.asarray(probability, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("a probability is NaN or lies outside 0..1")
    return np.minimum((p * bins).astype(np.int64), bins - 1)


def bin_of(probability: float, bins: int = BINS) -> int:
    """The same of one probability, which must lie in 0..1."""
    return min(int(probability * bins), bins - 1)


def confidence_histogram(probability: ArrayLike, bins: int = BINS) -> Ints:
    """Counts per equal-width bin over [0, 1]: int64 (bins,)."""
    return np.bincount(bin_index(probability, bins).ravel(), minlength=bins).astype(np.int64)


def smoothed(counts: ArrayLike, pseudo: float = 0.5) -> Floats:
    """Shares that sum to one, no bin empty: counts plus `pseudo` (Jeffreys 1/2), normalised."""
    c = np.asarray(counts, dtype=np.float64)
    if c.ndim != 1 or len(c) == 0 or (c < 0).any() or not np.isfinite(c).all():
        raise ValueError("counts must be a non-empty row of finite numbers >= 0")
    c = c + pseudo
    return np.asarray(c / c.sum())


def kl(p: ArrayLike, q: ArrayLike) -> float:
    """Kullback-Leibler divergence KL(p || q) in nats of two histograms (counts or shares).

    Both are normalised to sum to one. Empty bins of p add nothing; a bin empty in q but not in p would be
    infinite, so q's empty bins are given a share of 1e-9 (and q is normalised again). Never negative.
    """
    a, b = _shares(p, q)
    if ((b == 0) & (a > 0)).any():
        b = np.maximum(b, 1e-9)
        b = b / b.sum()
    used = a > 0
    return max(0.0, float((a[used] * np.log(a[used] / b[used])).sum()))


def psi(p: ArrayLike, q: ArrayLike) -> float:
    """Population stability index in nats: KL(p||q) + KL(q||p), symmetric; empty bins count as 1e-9."""
    a, b = _shares(p, q)
    if ((a == 0) != (b == 0)).any():
        a, b = np.maximum(a, 1e-9), np.maximum(b, 1e-9)
        a, b = a / a.sum(), b / b.sum()
    used = (a > 0) & (b > 0)
    return max(0.0, float(((a[used] - b[used]) * np.log(a[used] / b[used])).sum()))


def _shares(p: ArrayLike, q: ArrayLike) -> tuple[Floats, Floats]:
    a, b = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"histograms have shapes {a.shape} and {b.shape}; expected two rows of equal length")
    for values in (a, b):
        if not np.isfinite(values).all() or (values < 0).any() or values.sum() <= 0:
            raise ValueError("a histogram needs finite values >= 0 with a positive sum")
    return a / a.sum(), b / b.sum()


def null_quantile(baseline: ArrayLike, n: int, level: float, draws: int = 2000, seed: int = 0) -> float:
    """The KL divergence that `n` parts drawn *without drift* exceed with probability 1 - level, in nats.

    Simulated as the alarm is computed, with smoothing, and with the baseline's own sampling error: each draw
    takes a true distribution from the baseline's Dirichlet posterior (Jeffreys prior), then n parts from it.
    Where many bins are all but empty the prior takes them for fuller than they are, and alarms come less often
    than 1 - level.

    Args:
        baseline: counts (bins,) of the calibration set.
        n: parts in the window, >= 1.
        level: in (0, 1), e.g. 0.999.
    """
    if n < 1 or not 0 < level < 1:
        raise ValueError(f"n is {n} and level {level}; they must be >= 1 and in (0, 1)")
    counts = np.asarray(baseline, dtype=np.float64)
    reference = smoothed(counts)
    rng = np.random.default_rng(seed)
    truths = rng.dirichlet(counts + 0.5, size=draws)
    samples = rng.multinomial(n, truths)
    shares = (samples + 0.5) / (n + 0.5 * len(counts))
    return float(np.quantile((shares * np.log(shares / reference)).sum(axis=1), level))
