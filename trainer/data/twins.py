"""Near-twins: images that show the same part, found by their pixels, so that no split lies about the model.

Good parts of one product all look alike, so plain correlation calls them all twins. What they have in common is taken
away first: thumbnails are whitened by the covariance of the whole dataset, which leaves what is individual. Two images
are twins when they then agree far better than either does with its sixteenth nearest image, or all but fully.

Chosen on 1,344 photographs of 171 magnetic tiles whose groups are known, where nearly every image that has a group mate
is paired and none with an image of another tile; a test holds it to that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.preprocess import Frame

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

SIDE = 16
"""Thumbnails are SIDE x SIDE: coarse enough to forgive a shift of a few per cent of the picture."""

CLIP = 2.0
"""Deviations at which a thumbnail is cut: one bold mark in the same place does not make two parts the same."""

RIDGE = 0.2
"""Added to the covariance's eigenvalues, in units of their mean: pixel noise must not be blown up to structure."""

LEAST, CERTAIN = 0.5, 0.95
"""Whitened correlation below which images are never twins, and from which they always are."""

RANK, RATIO = 16, 0.4
"""A twin's squared distance is below RATIO times that of the RANK-th nearest image. So groups of more than RANK images
that differ much among themselves go unseen: that takes a groups.csv."""

PARTNERS = 64
"""Pairs kept per image (with images after it): bounds the answer where thousands are all alike."""

BLOCK = 512


@dataclass(frozen=True)
class Twins:
    """Pairs of images.

    Attributes:
        pairs: int64 (m, 2), positions i < j, in order.
        similarity: float32 (m,), whitened correlation in 0.5..1.
    """

    pairs: Ints
    similarity: Floats


def thumbnail(frame: Frame) -> Floats:
    """Coarse grey picture of a frame, float32 (SIDE * SIDE,), mean 0 and deviation 1; zeros for a blank frame.

    Mean and deviation go because the same part is often shot at several exposures.
    """
    grey = frame if frame.ndim == 2 else cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel()
    if float(small.std()) < 1e-3:
        return np.zeros_like(small)
    small = np.clip((small - small.mean()) / small.std(), -CLIP, CLIP)
    return np.asarray((small - small.mean()) / small.std(), dtype=np.float32)


def find_twins(thumbnails: Floats, parts: Sequence[int] | Ints | None = None) -> Twins:
    """Near-twins among images, by blocked matrix products: O(n^2), some twenty seconds for 20,000 images.

    Args:
        thumbnails: float32 (n, SIDE * SIDE) from `thumbnail`.
        parts: int (n,): report only pairs from different parts, e.g. splits; None for all pairs.
    """
    x = _whitened(thumbnails)
    n = len(x)
    code = None if parts is None else np.asarray(parts, dtype=np.int64)
    far = _background(x)
    found: list[Ints] = []
    strength: list[Floats] = []
    for rows, similar in _products(x):
        limit = np.maximum(LEAST, 1 - RATIO * (1 - np.maximum(far[rows, None], far[None, :])))
        twin = similar > np.minimum(limit, CERTAIN)
        twin &= np.arange(n)[None, :] > rows[:, None]
        if code is not None:
            twin &= code[rows, None] != code[None, :]
        crowded = np.flatnonzero(twin.sum(axis=1) > PARTNERS)
        twin[crowded] &= np.cumsum(twin[crowded], axis=1) <= PARTNERS
        i, j = np.nonzero(twin)
        found.append(np.stack([rows[i], j], axis=1))
        strength.append(similar[i, j])
    if not found:
        return Twins(np.empty((0, 2), np.int64), np.empty(0, np.float32))
    return Twins(np.concatenate(found), np.minimum(np.concatenate(strength), 1.0).astype(np.float32))


def united(groups: Sequence[str], pairs: Ints) -> tuple[str, ...]:
    """Groups with twins put together: of groups joined by a chain of pairs, each image gets the first's name."""
    root = {group: group for group in groups}

    def find(group: str) -> str:
        while root[group] != group:
            root[group] = root[root[group]]
            group = root[group]
        return group

    for i, j in pairs.tolist():
        first, second = find(groups[i]), find(groups[j])
        root[second] = first
    return tuple(find(group) for group in groups)


def _whitened(thumbnails: Floats) -> Floats:
    """Rows of unit length (or zero) from which the variation common to the dataset is removed."""
    x = np.asarray(thumbnails, dtype=np.float64)
    blank = ~x.any(axis=1)
    if len(x) == 0 or blank.all():
        return np.zeros(x.shape, np.float32)
    x = x - x[~blank].mean(axis=0)
    x[blank] = 0.0
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    values = np.maximum(values, 0.0)
    # few images span few directions, and in those every one looks alone: the ridge grows as they get fewer
    ridge = RIDGE * (1 + x.shape[1] / len(x)) * values.mean()
    x = x @ (vectors / np.sqrt(values + ridge + 1e-12))
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(np.divide(x, length, out=np.zeros_like(x), where=length > 1e-9), dtype=np.float32)


def _products(x: Floats) -> Iterator[tuple[Ints, Floats]]:
    for start in range(0, len(x), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(x)))
        yield rows, x[rows] @ x.T


def _background(x: Floats) -> Floats:
    """Correlation of each image with its RANK-th nearest (in small sets: with the median one), float32 (n,)."""
    n = len(x)
    rank = min(RANK, max(1, n // 2))  # the image itself is the nearest, rank 0
    if n <= 2:
        return np.zeros(n, np.float32)
    column = n - 1 - rank
    # copied: a view would keep its whole block in memory
    return np.concatenate([np.partition(similar, column, axis=1)[:, column].copy() for _, similar in _products(x)])
