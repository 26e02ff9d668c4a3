"""Which frames an epoch learns from: as they come, or with rare classes drawn more often. Pure numpy.

Resampling is for training rows alone, after the split: a repeated image on both sides would be tested on itself.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Sampling = Literal["instance", "class-aware", "over", "under"]
SAMPLINGS: tuple[str, ...] = get_args(Sampling)


def sample_rows(labels: ArrayLike, sampling: Sampling, rng: np.random.Generator) -> Ints:
    """Rows of one epoch in random order, int64: the same for the same generator state.

    - "instance": every row once.
    - "over": every row once, and random repeats of the rarer classes up to the largest (random oversampling).
    - "under": as many random rows of each class as the smallest has, none twice (random undersampling).
    - "class-aware": as many draws as rows; each picks a class uniformly, then a row of it (Shen et al., "Relay
      Backpropagation", ECCV 2016; the class-balanced sampling of Kang et al., ICLR 2020).

    Classes are those that occur in ``labels``.

    Args:
        labels: int (n,), n >= 1, each >= 0.

    Raises:
        ValueError: labels are no such array, or there is no such sampling.
    """
    y = _labels(labels)
    if sampling == "instance":
        return rng.permutation(len(y))
    members = [np.flatnonzero(y == label) for label in np.unique(y)]
    sizes = [len(rows) for rows in members]
    if sampling == "over":
        extra = [rng.choice(rows, max(sizes) - len(rows)) for rows in members]
        return rng.permutation(np.concatenate([*members, *extra]))
    if sampling == "under":
        return rng.permutation(np.concatenate([rng.choice(rows, min(sizes), replace=False) for rows in members]))
    if sampling == "class-aware":
        ordered, starts = np.concatenate(members), np.cumsum([0, *sizes[:-1]])
        drawn = rng.integers(0, len(members), len(y))
        return np.asarray(ordered[starts[drawn] + rng.integers(0, np.asarray(sizes)[drawn])])
    raise ValueError(f"sampling is {sampling!r}; use {', '.join(SAMPLINGS)}")


def seen_counts(labels: ArrayLike, classes: int, sampling: Sampling) -> Ints:
    """How often an epoch of :func:`sample_rows` shows each class, int64 (classes,): in the mean for "class-aware"
    (rounded up), exactly otherwise; 0 for a class that does not occur.

    Raises:
        ValueError: as :func:`sample_rows`, or a label >= classes.
    """
    y = _labels(labels)
    if y.max() >= classes:
        raise ValueError(f"label {y.max()} does not fit {classes} classes")
    counts = np.bincount(y, minlength=classes)
    present = counts[counts > 0]
    each = {
        "over": int(present.max()),
        "under": int(present.min()),
        "class-aware": -(-len(y) // len(present)),
    }
    if sampling not in SAMPLINGS:
        raise ValueError(f"sampling is {sampling!r}; use {', '.join(SAMPLINGS)}")
    return counts if sampling == "instance" else np.where(counts > 0, each[sampling], 0)


def _labels(labels: ArrayLike) -> Ints:
    y = np.asarray(labels)
    if y.ndim != 1 or len(y) == 0 or not np.issubdtype(y.dtype, np.integer) or y.min() < 0:
        raise ValueError(f"labels must be a row of class indices >= 0, not {y.dtype} {y.shape}")
    return y.astype(np.int64)
