"""What a recipe calls a part: good, or one of the defects; where good ends, the validation fold says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WIDEST = 30.0
"""Nats; odds of 10^13 are as good as certainty."""


def ok_offset(p: Floats, labels: Ints, ok_index: int) -> float:
    """What the log probability of the good class has to gain so that, with every class counted alike, good is said as
    often as it is so: the class means of its probability then have the mean 1 / classes.

    There the negative log-likelihood with every class counted alike is least, and there alone, since it is convex: one
    bias of a bias-corrected calibration (Alexandari et al., ICML 2020). In a bundle the thresholds do the same for
    stated costs. A network that has learned its training parts by heart calls new defects good, more than its
    prior says; a validation fold knows by how much, while it has too few of each defect to say more.

    Args:
        p: probabilities, float64 (n, classes). labels: int64 (n,).

    Returns:
        Nats, from -WIDEST to WIDEST; 0 where there are no good parts, or nothing but good ones.
    """
    classes = np.unique(labels)
    if ok_index not in classes or len(classes) < 2:
        return 0.0
    tiny = np.finfo(np.float64).tiny
    good = p[:, ok_index]
    odds = np.log(np.maximum(good, tiny)) - np.log(np.maximum(1 - good, tiny))
    weights = np.zeros(len(labels))
    for label in classes:
        rows = labels == label
        weights[rows] = 1 / (rows.sum() * len(classes))
    low, high = -WIDEST, WIDEST
    for _ in range(60):
        middle = (low + high) / 2
        said = float((weights / (1 + np.exp(-np.clip(odds + middle, -700, 700)))).sum())
        low, high = (middle, high) if said < 1 / len(classes) else (low, middle)
    return (low + high) / 2


def called(p: Floats, offset: float, ok_index: int) -> Ints:
    """Classes, int64 (n,): the likeliest, the good one having gained ``offset`` nats."""
    weighed = p.copy()
    weighed[:, ok_index] *= np.exp(offset)
    classes: Ints = weighed.argmax(1)
    return classes
