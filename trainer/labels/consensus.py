"""One label per item from several annotators who disagree.

`answers` everywhere: int (n, 3) rows of (item, annotator, label). An annotator may answer an item several times, or
not at all; every item from 0 to the largest needs at least one answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

TIE = 1e-9
"""Posterior probabilities closer than this are a tie."""


@dataclass(frozen=True)
class Consensus:
    """Majority vote.

    Attributes:
        labels: int64 (items,); the lowest class number wins a tie, and the tie is reported.
        posterior: float64 (items, classes): share of the votes.
        ties: bool (items,): the first place is shared.
    """

    labels: Ints
    posterior: Floats
    ties: Bools


@dataclass(frozen=True)
class DawidSkene:
    """Result of Dawid-Skene.

    Attributes:
        labels, posterior, ties: as in Consensus, with the posterior probability of the true class.
        prior: float64 (classes,): estimated share of each true class.
        confusion: float64 (annotators, true, observed): how each annotator labels each true class; rows sum to one.
        log_likelihood: of the answers, in nats (without the constant of the vote counts).
        iterations: EM steps of the start that won.
    """

    labels: Ints
    posterior: Floats
    ties: Bools
    prior: Floats
    confusion: Floats
    log_likelihood: float
    iterations: int


def majority_vote(answers: ArrayLike, n_classes: int) -> Consensus:
    """The class with most votes, per item. Raises ValueError for malformed answers."""
    counts = _counts(_checked(answers, n_classes), n_classes).sum(axis=0)
    posterior = counts / counts.sum(axis=1, keepdims=True)
    return Consensus(posterior.argmax(axis=1), posterior, _ties(posterior))


def dawid_skene(
    answers: ArrayLike,
    n_classes: int,
    *,
    starts: int = 10,
    seed: int = 0,
    gold: Mapping[int, int] | None = None,
    smoothing: float = 0.0,
    tolerance: float = 1e-9,
    max_iterations: int = 2000,
) -> DawidSkene:
    """Maximum-likelihood EM of Dawid & Skene (1979): true classes and each annotator's confusion matrix at once.

    The likelihood has several maxima. The first start is the share of votes; the others mix it with random
    posteriors, and the highest likelihood wins (the vote start on equal terms, since a random start may reach the
    same maximum with its classes swapped).

    Args:
        answers: int (n, 3) of (item, annotator, label).
        n_classes: labels are 0..n_classes-1.
        starts: number of starts, >= 1.
        seed: of the random starts.
        gold: known true classes by item; they are held fixed.
        smoothing: pseudo-count added to every cell of the confusion matrices.
        tolerance: stop when the log-likelihood per answer rises by less.
        max_iterations: of one start.

    Raises:
        ValueError: malformed answers or gold items, or starts < 1.
    """
    rows = _checked(answers, n_classes)
    if starts < 1:
        raise ValueError(f"starts is {starts}; it must be at least 1")
    counts = _counts(rows, n_classes)
    votes = counts.sum(axis=0)
    votes = votes / votes.sum(axis=1, keepdims=True)
    fixed = _gold(gold or {}, len(votes), n_classes)
    rng = np.random.default_rng(seed)
    best: DawidSkene | None = None
    for start in range(starts):
        posterior = votes if start == 0 else _disturbed(votes, rng)
        found = _em(counts, posterior, fixed, smoothing, tolerance * len(rows), max_iterations)
        if best is None or found.log_likelihood > best.log_likelihood + 1e-6 * abs(best.log_likelihood):
            best = found
    assert best is not None  # noqa: S101  starts >= 1
    return best


def _disturbed(votes: Floats, rng: np.random.Generator) -> Floats:
    """Votes mixed half and half with random posteriors: near enough to keep the classes' names."""
    return (votes + rng.dirichlet(np.ones(votes.shape[1]), size=len(votes))) / 2


def _em(
    counts: Floats, posterior: Floats, fixed: Floats | None, smoothing: float, tolerance: float, most: int
) -> DawidSkene:
    """EM from one start, until the likelihood stands still. counts: float (annotators, items, classes)."""
    previous = -np.inf
    for iteration in range(1, most + 1):  # noqa: B007  read after the loop
        if fixed is not None:
            known = ~np.isnan(fixed[:, 0])
            posterior = np.where(known[:, None], fixed, posterior)
        prior = posterior.mean(axis=0)
        confusion = np.einsum("ij,aik->ajk", posterior, counts) + smoothing
        total = confusion.sum(axis=2, keepdims=True)
        # a class that an annotator never met tells nothing of him: a flat row
        confusion = np.where(total > 0, confusion / np.where(total > 0, total, 1), 1 / confusion.shape[2])
        with np.errstate(divide="ignore"):
            log_joint = np.log(prior) + _log_products(counts, np.log(confusion))
        likelihood, posterior = _normalised(log_joint, fixed)
        if likelihood - previous <= tolerance:
            break
        previous = likelihood
    return DawidSkene(
        posterior.argmax(axis=1), posterior, _ties(posterior), prior, confusion, float(likelihood), iteration
    )


def _log_products(counts: Floats, log_confusion: Floats) -> Floats:
    """sum over annotators and observed labels of count * log confusion, with 0 * -inf = 0: (items, true)."""
    out = np.zeros((counts.shape[1], log_confusion.shape[1]))
    for observed in range(counts.shape[2]):
        for votes, logs in zip(counts[:, :, observed], log_confusion[:, :, observed], strict=True):
            given = votes > 0
            out[given] += votes[given, None] * logs[None, :]
    return out


def _normalised(log_joint: Floats, fixed: Floats | None) -> tuple[float, Floats]:
    """Log-likelihood and posterior by log-sum-exp; gold items count with their known class."""
    top = log_joint.max(axis=1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    joint = np.exp(log_joint - top)
    total = joint.sum(axis=1, keepdims=True)
    evidence = np.log(total[:, 0]) + top[:, 0]
    posterior = joint / total
    if fixed is not None:
        known = ~np.isnan(fixed[:, 0])
        evidence[known] = log_joint[known, fixed[known].argmax(axis=1)]
        posterior[known] = fixed[known]
    return float(evidence.sum()), posterior


def _checked(answers: ArrayLike, n_classes: int) -> Ints:
    rows = np.asarray(answers)
    if rows.ndim != 2 or rows.shape[1] != 3 or len(rows) == 0 or not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(f"answers are {rows.dtype} {rows.shape}; expected integers (n, 3): item, annotator, label")
    rows = rows.astype(np.int64)
    if n_classes < 2:
        raise ValueError(f"n_classes is {n_classes}; at least two classes are needed")
    if rows.min() < 0 or rows[:, 2].max() >= n_classes:
        raise ValueError(f"answers hold a negative number or a label outside 0..{n_classes - 1}")
    present = np.bincount(rows[:, 0])
    if (present == 0).any():
        raise ValueError(f"item {int((present == 0).argmax())} has no answer; number the items without gaps")
    return rows


def _counts(rows: Ints, n_classes: int) -> Floats:
    """How often each annotator gave each item each label: float64 (annotators, items, classes)."""
    counts = np.zeros((int(rows[:, 1].max()) + 1, int(rows[:, 0].max()) + 1, n_classes))
    np.add.at(counts, (rows[:, 1], rows[:, 0], rows[:, 2]), 1.0)
    return counts


def _gold(gold: Mapping[int, int], items: int, n_classes: int) -> Floats | None:
    """One-hot rows of the gold items, NaN rows elsewhere; None without gold."""
    if not gold:
        return None
    fixed = np.full((items, n_classes), np.nan)
    for item, label in gold.items():
        if not (0 <= item < items and 0 <= label < n_classes):
            raise ValueError(f"gold item {item} with class {label}: no such item or class")
        fixed[item] = np.eye(n_classes)[label]
    return fixed


def _ties(posterior: Floats) -> Bools:
    ranked = np.sort(posterior, axis=1)
    return np.asarray(ranked[:, -1] - ranked[:, -2] < TIE)
