"""Confident learning: which labels are probably wrong (Northcutt, Jiang & Chuang 2021, arXiv:1911.00068).

`probabilities` must be out-of-fold: a model that has seen a label will agree with it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.metrics import checked_probabilities

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

RULES = ("prune_by_class", "prune_by_noise_rate", "both", "confident_learning", "predicted_neq_given")


def confident_joint(labels: ArrayLike, probabilities: ArrayLike, *, calibrate: bool = True) -> Ints:
    """Counts of (given label, probable true label): int64 (classes, classes).

    A row counts for the most probable of the classes whose probability reaches that class's threshold, the mean
    self-confidence of the rows labelled with it; rows that reach none count nowhere. With `calibrate`, each row of
    the matrix is scaled to the number of labels given and the whole to n, rounded so that its sum is kept.

    Args:
        labels: int (n,), the given labels. probabilities: float (n, classes), out-of-fold.
    """
    p, y = checked_probabilities(probabilities, labels)
    classes = p.shape[1]
    confident, guess = _confident(p, y)
    joint = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(joint, (y[confident], guess[confident]), 1)
    np.fill_diagonal(joint, np.maximum(joint.diagonal(), 1))
    return _calibrated(joint, y) if calibrate else joint


def _confident(p: Floats, y: Ints) -> tuple[Bools, Ints]:
    """Which rows reach a class's threshold, and the most probable such class of each row."""
    classes = p.shape[1]
    # a class without labels has no threshold that anything could reach
    thresholds = np.array([p[y == k, k].mean() if (y == k).any() else np.inf for k in range(classes)])
    reached = p >= thresholds - 1e-6
    guess = np.where(reached, p, -1.0).argmax(axis=1)
    return np.asarray(reached.any(axis=1)), guess


def _calibrated(joint: Ints, y: Ints) -> Ints:
    given = np.bincount(y, minlength=len(joint)).astype(np.float64)
    # summed column by column, as cleanlab does: the last bit decides ties when rounding
    scaled = np.asfortranarray(joint / np.maximum(joint.sum(axis=1, keepdims=True), 1) * given[:, None])
    scaled = scaled / max(scaled.sum(), 1e-12) * len(y)
    return np.array([_rounded(row) for row in scaled], dtype=np.int64)


def _rounded(row: Floats) -> Ints:
    """Round a row to integers that keep its (rounded) sum: to the nearest, then where rounding was worst."""
    whole = np.round(row)
    missing = round(float(row.sum())) - int(whole.sum())
    if missing:
        step = 1 if missing > 0 else -1
        # not stable on purpose: equal remainders go the way they go in cleanlab, on any one machine
        worst = np.argsort(row - whole)[::-step][: abs(missing)]
        whole[worst] += step
    return whole.astype(np.int64)


def find_label_issues(labels: ArrayLike, probabilities: ArrayLike, rule: str = "prune_by_noise_rate") -> Bools:
    """Which labels are probably wrong: bool (n,).

    Rules of the paper (section 3.2): "confident_learning" (off the diagonal of the confident joint),
    "predicted_neq_given" (argmax differs), "prune_by_class" (per given class, as many of least self-confidence as the
    joint says are wrong), "prune_by_noise_rate" (per cell off the diagonal, as many of largest margin as the cell
    says) and "both" (the intersection of the last two). None takes a label whose probability is the largest or within
    1e-6 of it; the last three leave at least one label of a class.

    Raises:
        ValueError: an unknown rule, or arrays that do not fit.
    """
    p, y = checked_probabilities(probabilities, labels)
    if rule not in RULES:
        raise ValueError(f"rule {rule!r} is unknown; use one of {', '.join(RULES)}")
    disagrees = p[np.arange(len(y)), y] < p.max(axis=1) - 1e-6
    if rule == "predicted_neq_given":
        return np.asarray(disagrees)
    if rule == "confident_learning":
        confident, guess = _confident(p, y)
        return np.asarray(confident & (guess != y) & disagrees)
    joint = _bounded(confident_joint(y, p))
    issues = disagrees
    if rule != "prune_by_noise_rate":
        issues = issues & _by_class(p, y, joint)
    if rule != "prune_by_class":
        issues = issues & _by_noise_rate(p, y, joint)
    return np.asarray(issues)


def rank_issues(labels: ArrayLike, probabilities: ArrayLike, rule: str = "prune_by_noise_rate") -> Ints:
    """The rows that `find_label_issues` flags, worst first: int64 (issues,).

    The worst is the one whose label has the least probability (self-confidence); ties in order of index.
    """
    p, y = checked_probabilities(probabilities, labels)
    flagged = np.flatnonzero(find_label_issues(y, p, rule))
    return np.asarray(flagged[np.argsort(p[flagged, y[flagged]], kind="stable")], dtype=np.int64)


def _bounded(joint: Ints) -> Ints:
    """The joint with at least one right label in each row, taken evenly from the row's errors."""
    right = np.maximum(joint.diagonal(), 1)
    errors = np.maximum(np.count_nonzero(joint, axis=1) - 1, 1)
    bounded = np.maximum(joint - ((right - joint.diagonal()) / errors)[:, None], 0.0)
    np.fill_diagonal(bounded, right)
    return np.asarray(bounded, dtype=np.int64)


def _by_class(p: Floats, y: Ints, joint: Ints) -> Bools:
    issues = np.zeros(len(y), dtype=bool)
    for k in range(len(joint)):
        members = np.flatnonzero(y == k)
        wrong = len(members) - int(joint[k, k])
        if wrong > 0:
            issues[members[np.argsort(p[members, k], kind="stable")[:wrong]]] = True
    return issues


def _by_noise_rate(p: Floats, y: Ints, joint: Ints) -> Bools:
    issues = np.zeros(len(y), dtype=bool)
    for given in range(len(joint)):
        members = np.flatnonzero(y == given)
        for true in range(len(joint)):
            if true != given and joint[given, true] > 0:
                margin = p[members, true] - p[members, given]
                issues[members[np.argsort(-margin, kind="stable")[: joint[given, true]]]] = True
    return issues
