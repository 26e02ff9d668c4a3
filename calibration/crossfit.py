"""Fitting a calibration on some groups and judging it on the others, so that no part is judged by what has seen it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from calibration.metrics import softmax
from calibration.scores import Scores
from calibration.temperature import fit_temperature
from calibration.vector_scaling import fit_vector_scaling

FOLDS = 5

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def group_index(scores: Scores) -> Ints:
    """Number of each row's group, int64 (n,), 0..groups-1. A row without a group is one of its own."""
    names = [group or f"\0row {i}" for i, group in enumerate(scores.groups)]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def grouped_folds(groups: Ints, labels: Ints, folds: int, seed: int) -> Ints:
    """Fold of each row, int64 (n,): whole groups, dealt so that each label (of a group's first row) is spread evenly.

    There are never more folds than groups.
    """
    first = np.unique(groups, return_index=True)[1]
    shuffled = np.random.default_rng(seed).permutation(len(first))
    dealt = shuffled[np.argsort(labels[first[shuffled]], kind="stable")]
    fold = np.empty(len(first), np.int64)
    fold[dealt] = np.arange(len(first)) % min(folds, len(first))
    return fold[groups]


def cross_fitted(scores: Scores, seed: int = 0) -> tuple[tuple[float, ...], Floats | None]:
    """Temperature fitted without each of the grouped folds, and the probabilities (n, classes) each fold gets by it.

    None instead of probabilities where all rows are of one group.
    """
    temperatures: list[float] = []

    def fit(logits: NDArray[np.float32], labels: Ints) -> Callable[[NDArray[np.float32]], Floats]:
        t = fit_temperature(logits, labels)
        temperatures.append(t)
        return lambda z: softmax(z / np.float64(t))

    p = _crossed(scores, seed, fit)
    return tuple(temperatures), p


def cross_fitted_vector(scores: Scores, seed: int = 0) -> Floats | None:
    """Probabilities by vector scaling fitted without each part's own fold; the folds are those of `cross_fitted`."""
    return _crossed(scores, seed, lambda logits, labels: fit_vector_scaling(logits, labels).probabilities)


def _crossed(
    scores: Scores,
    seed: int,
    fit: Callable[[NDArray[np.float32], Ints], Callable[[NDArray[np.float32]], Floats]],
) -> Floats | None:
    folds = grouped_folds(group_index(scores), scores.labels, FOLDS, seed)
    count = int(folds.max()) + 1
    if count < 2:
        return None
    p = np.empty(scores.logits.shape, np.float64)
    for fold in range(count):
        inside = folds == fold
        p[inside] = fit(scores.logits[~inside], scores.labels[~inside])(scores.logits[inside])
    return p
