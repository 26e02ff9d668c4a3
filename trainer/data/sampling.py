"""Which samples an epoch learns from: as they come, rare classes drawn more often, or filled up by SMOTE. Pure numpy.

For training rows alone, after the split: a repeated or blended image on both sides would be tested on itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]
CHUNK = 512
"""Rows whose distances to their whole class are held at once."""

Sampling = Literal["instance", "class-aware", "over", "under", "square-root"]
SAMPLINGS: tuple[str, ...] = get_args(Sampling)


def sample_rows(labels: ArrayLike, sampling: Sampling, rng: np.random.Generator) -> Ints:
    """Rows of one epoch in random order, int64: the same for the same generator state.

    - "instance": every row once.
    - "over": every row once, and random repeats of the rarer classes up to the largest (random oversampling).
    - "under": as many random rows of each class as the smallest has, none twice (random undersampling).
    - "class-aware": as many draws as rows; each picks a class uniformly, then a row of it (Shen et al., "Relay
      Backpropagation", ECCV 2016; the class-balanced sampling of Kang et al., ICLR 2020).
    - "square-root": about as many rows as there are, shared among the classes by the square roots of their sizes (the
      square-root sampling of Kang et al.); none of a class comes again before all of it came.

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
    if sampling == "square-root":
        quotas = _square_root_quotas(np.array(sizes))
        return rng.permutation(np.concatenate([_cycled(rows, n, rng) for rows, n in zip(members, quotas, strict=True)]))
    raise ValueError(f"sampling is {sampling!r}; use {', '.join(SAMPLINGS)}")


def _square_root_quotas(sizes: Ints) -> Ints:
    """Rows of each class in an epoch, int64 (classes,), for class sizes >= 0: 0 for 0, at least 1 for the others."""
    shares = np.sqrt(sizes) / np.sqrt(sizes).sum()
    return np.asarray(np.ceil(np.round(shares * sizes.sum(), 6)), dtype=np.int64)


def _cycled(rows: Ints, count: int, rng: np.random.Generator) -> Ints:
    """``count`` of ``rows`` in random order, each as often as any other, or once more."""
    return np.concatenate([rng.permutation(rows) for _ in range(-(-count // len(rows)))])[:count]


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
    if sampling == "square-root":
        return _square_root_quotas(counts)
    return counts if sampling == "instance" else np.where(counts > 0, each[sampling], 0)


def smote(features: ArrayLike, labels: ArrayLike, k: int, rng: np.random.Generator) -> tuple[Floats, Ints]:
    """Every class brought up to the size of the largest by synthetic samples (Chawla et al., "SMOTE", JAIR 2002).

    A synthetic sample lies on the line between a random sample of the class and a random one of its nearest
    neighbours (Euclidean) in the class, at a uniform place. A class of fewer than k + 1 samples uses all its others
    as neighbours; a class of one sample is repeated, since there is no line.

    Args:
        features: float (n, d), finite; best of one unit, since distances decide.
        labels: int (n,), >= 0.
        k: neighbours to choose among, >= 1.

    Returns:
        features (m, d) in the dtype given and labels int64 (m,): the originals first, unchanged, in their order, then
        the synthetic ones by class. The same for the same generator state.

    Raises:
        ValueError: an argument is not as above.
    """
    x, y = np.asarray(features), _labels(labels)
    if x.ndim != 2 or len(x) != len(y) or not np.issubdtype(x.dtype, np.floating) or not np.isfinite(x).all():
        raise ValueError(
            f"features must be finite floats, one row for each of {len(y)} labels, not {x.dtype} {x.shape}"
        )
    if k < 1:
        raise ValueError(f"k is {k}; SMOTE needs at least one neighbour")
    largest = np.bincount(y).max()
    made, of = [x], [y]
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        missing = int(largest) - len(members)
        if missing == 0:
            continue
        first = rng.integers(0, len(members), missing)
        if len(members) == 1:
            second = first
        else:
            near = nearest(x[members], min(k, len(members) - 1))
            second = near[first, rng.integers(0, near.shape[1], missing)]
        share = rng.random((missing, 1)).astype(x.dtype)
        a, b = x[members[first]], x[members[second]]
        made.append(a + share * (b - a))
        of.append(np.full(missing, label))
    return np.concatenate(made), np.concatenate(of)


def nearest(x: Floats, k: int) -> Ints:
    """The k nearest other rows of each row of x float (n, d), nearest first: int64 (n, k), 1 <= k < n.

    Ties go to the earlier row; a row equal to another is a neighbour like any.
    """
    centred = np.asarray(x, np.float64) - x.mean(0, dtype=np.float64)  # keeps the digits of small distances
    square = (centred**2).sum(1)
    found = np.empty((len(x), k), np.int64)
    for start in range(0, len(x), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(x)))
        distance = square[None] - 2 * centred[rows] @ centred.T  # less the row's own square, which orders nothing
        distance[np.arange(len(rows)), rows] = np.inf
        found[rows] = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return found


def _labels(labels: ArrayLike) -> Ints:
    y = np.asarray(labels)
    if y.ndim != 1 or len(y) == 0 or not np.issubdtype(y.dtype, np.integer) or y.min() < 0:
        raise ValueError(f"labels must be a row of class indices >= 0, not {y.dtype} {y.shape}")
    return y.astype(np.int64)


def draw_batches(
    frames: int,
    copies: int,
    steps: int,
    batch: int,
    key: tuple[int, int],
    rows_of_a_round: Callable[[np.random.Generator], Ints] | None = None,
) -> Iterator[tuple[Ints, Ints]]:
    """``steps`` batches of (frame, copy) indices, int64 (batch,) each: every frame once before any comes
    again, or round after round of what ``rows_of_a_round`` draws.
    """
    rng = np.random.default_rng([2, *key])
    rounds: list[Ints] = []
    while sum(map(len, rounds)) < steps * batch:
        rounds.append(rng.permutation(frames) if rows_of_a_round is None else rows_of_a_round(rng))
    rows = np.concatenate(rounds)
    for start_row in range(0, steps * batch, batch):
        yield rows[start_row : start_row + batch], rng.integers(0, copies, batch)
