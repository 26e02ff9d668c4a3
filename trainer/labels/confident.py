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
    scaled = joint / np.maximum(joint.sum(axis=1, keepdims=True), 1) * given[:, None]
    scaled = scaled / max(scaled.sum(), 1e-12) * len(y)
    return np.array([_rounded(row) for row in scaled], dtype=np.int64)


def _rounded(row: Floats) -> Ints:
    """Round a row to integers that keep its (rounded) sum: to the nearest, then where rounding was worst."""
    whole = np.round(row)
    missing = round(float(row.sum())) - int(whole.sum())
    if missing:
        step = 1 if missing > 0 else -1
        # equal remainders: the last class gains, the first one loses (as cleanlab orders them)
        worst = np.argsort(row - whole, kind="stable")[::-step][: abs(missing)]
        whole[worst] += step
    return whole.astype(np.int64)


def find_label_issues(labels: ArrayLike, probabilities: ArrayLike, rule: str = "prune_by_noise_rate") -> Bools:
    """Which labels are probably wrong: bool (n,).

    Rules of the paper (section 3.2): "confident_learning" (off the diagonal of the confident joint),
    "predicted_neq_given" (argmax differs), "prune_by_class" (per given class, as many of least self-confidence as the
    joint says are wrong), "prune_by_noise_rate" (per cell off the diagonal, as many of largest margin as the cell
    says) and "both" (the intersection of the last two). The last three never take a label that the model's argmax
    agrees with, nor the last label of a class.

    Raises:
        ValueError: an unknown rule, or arrays that do not fit.
    """
    p, y = checked_probabilities(probabilities, labels)
    if rule == "predicted_neq_given":
        return np.asarray(p.argmax(axis=1) != y)
    if rule == "confident_learning":
        confident, guess = _confident(p, y)
        return np.asarray(confident & (guess != y))
    if rule not in RULES:
        raise ValueError(f"rule {rule!r} is unknown; use one of {', '.join(RULES)}")
    joint = _bounded(confident_joint(y, p), y)
    issues = p.argmax(axis=1) != y
    if rule != "prune_by_noise_rate":
        issues &= _by_class(p, y, joint)
    if rule != "prune_by_class":
        issues &= _by_noise_rate(p, y, joint)
    return np.asarray(issues)


def _bounded(joint: Ints, y: Ints) -> Ints:
    """The joint with each row's errors cut down so that at least one label stays."""
    bounded = joint.copy()
    for k, row in enumerate(joint):
        keep = min(int((y == k).sum()), max(int(row[k]), 1))
        wrong = np.delete(row, k).astype(np.float64)
        allowed = int((y == k).sum()) - keep
        if wrong.sum() > allowed:
            wrong = _rounded(wrong / max(wrong.sum(), 1) * allowed).astype(np.float64)
        bounded[k] = np.insert(wrong.astype(np.int64), k, keep)
    return bounded


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
