"""One label per item from several annotators who disagree.

`answers` everywhere: int (n, 3) rows of (item, annotator, label). An annotator may answer an item several times, or
not at all; every item from 0 to the largest needs at least one answer.

With equally good annotators who err evenly, the vote is nearly the best there is; Dawid-Skene wins where classes are
unequally frequent, where annotators differ, and where someone mixes two classes up. Its posterior weighs a class by its
share, so that its labels err least in all; where a rare class must not be lost, train on the posterior.
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

TYPICAL = 0.8
"""Share of right answers of the annotator whose imagined answers are the `smoothing`."""


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
        trace: float64 (steps,): the log-likelihood after each EM step of the start that won; it never falls, unless
            there is smoothing.
    """

    labels: Ints
    posterior: Floats
    ties: Bools
    prior: Floats
    confusion: Floats
    log_likelihood: float
    trace: Floats


def majority_vote(answers: ArrayLike, n_classes: int) -> Consensus:
    """The class with most votes, per item. Raises ValueError for malformed answers."""
    counts = vote_counts(checked_answers(answers, n_classes), n_classes).sum(axis=0)
    posterior = counts / counts.sum(axis=1, keepdims=True)
    return Consensus(posterior.argmax(axis=1), posterior, _ties(posterior))


def dawid_skene(
    answers: ArrayLike,
    n_classes: int,
    *,
    starts: int = 1,
    seed: int = 0,
    gold: Mapping[int, int] | None = None,
    smoothing: float = 0.0,
    tolerance: float = 1e-9,
    max_iterations: int = 2000,
) -> DawidSkene:
    """Maximum-likelihood EM of Dawid & Skene (1979): true classes and each annotator's confusion matrix at once.

    The likelihood has several maxima. The first start is the share of votes, as in the paper; further ones mix it with
    random posteriors, and the highest likelihood wins. That is not always the better consensus: on few or hard answers
    the likelihood is highest where annotators are believed to confuse classes, so one start is the default and
    smoothing the remedy.

    Args:
        answers: int (n, 3) of (item, annotator, label).
        n_classes: labels are 0..n_classes-1.
        starts: number of starts, >= 1.
        seed: of the random starts.
        gold: known true classes by item; they are held fixed.
        smoothing: imagined answers per annotator and true class, 80 % of them right and the rest spread evenly: a
            Dirichlet prior on the rows of the confusion matrices (the estimate is then the posterior mode). 0 is the
            paper; about 10 helps where an annotator met a class less often than that.
        tolerance: stop when the objective (log-likelihood, plus the log-prior with smoothing) rises by less per answer.
        max_iterations: of one start.

    Raises:
        ValueError: malformed answers or gold items, starts < 1, negative smoothing, all answers of one class, or no
            item answered by two annotators and no gold item: then nothing tells a mistake from a true class.
    """
    rows = checked_answers(answers, n_classes)
    if starts < 1 or smoothing < 0:
        raise ValueError(f"starts is {starts} and smoothing {smoothing}; expected at least 1 and at least 0")
    _check_estimable(rows, bool(gold))
    counts = vote_counts(rows, n_classes)
    votes = counts.sum(axis=0)
    votes = votes / votes.sum(axis=1, keepdims=True)
    fixed = gold_rows(gold or {}, len(votes), n_classes)
    imagined = smoothing * typical(n_classes)
    rng = np.random.default_rng(seed)
    best, highest = None, -np.inf
    for start in range(starts):
        posterior = votes if start == 0 else _disturbed(votes, rng)
        found, objective = _em(counts, posterior, fixed, imagined, tolerance * len(rows), max_iterations)
        # a random start that reaches the same maximum may have its classes swapped: the earlier one stays
        if best is None or objective > highest + 1e-6 * abs(highest):
            best, highest = found, objective
    assert best is not None  # noqa: S101  starts >= 1
    return best


def _check_estimable(rows: Ints, has_gold: bool) -> None:
    if (rows[:, 2] == rows[0, 2]).all():
        raise ValueError(f"every answer is class {rows[0, 2]}: nothing to estimate; add items of other classes")
    pairs = np.unique(rows[:, :2], axis=0)
    if not has_gold and len(pairs) == len(np.unique(pairs[:, 0])):
        raise ValueError(
            "no two annotators answered the same item: nothing tells a mistake from a true class; "
            "let at least two of them label the same items, or give gold items"
        )


def typical(classes: int) -> Floats:
    """Confusion matrix of an annotator who is right in TYPICAL of the cases: (true, observed)."""
    matrix = np.full((classes, classes), (1 - TYPICAL) / (classes - 1))
    np.fill_diagonal(matrix, TYPICAL)
    return matrix


def _disturbed(votes: Floats, rng: np.random.Generator) -> Floats:
    """Votes mixed half and half with random posteriors: near enough to keep the classes' names."""
    return (votes + rng.dirichlet(np.ones(votes.shape[1]), size=len(votes))) / 2


def _em(
    counts: Floats, posterior: Floats, fixed: Floats | None, imagined: Floats, tolerance: float, most: int
) -> tuple[DawidSkene, float]:
    """EM from one start until its objective stands still, and that objective.

    Args:
        counts: float (annotators, items, classes). posterior: (items, classes). fixed: as `gold_rows` gives it.
        imagined: (true, observed) answers added to every annotator's.
    """
    previous, trace = -np.inf, []
    for _ in range(most):
        if fixed is not None:
            posterior = np.where(np.isnan(fixed), posterior, fixed)
        prior, confusion = m_step(counts, posterior, imagined)
        likelihood, posterior = e_step(counts, prior, confusion, fixed)
        trace.append(likelihood)
        objective = likelihood + float((imagined * _logs(confusion)).sum())
        if objective - previous <= tolerance:
            break
        previous = objective
    labels, ties = posterior.argmax(axis=1), _ties(posterior)
    return DawidSkene(labels, posterior, ties, prior, confusion, likelihood, np.array(trace)), objective


def m_step(counts: Floats, posterior: Floats, imagined: Floats) -> tuple[Floats, Floats]:
    """The M step: share of each class, and each annotator's confusion matrix (annotators, true, observed)."""
    # (true, annotators, observed)
    seen = np.tensordot(posterior, counts, axes=(0, 1))
    confusion = seen.transpose(1, 0, 2) + imagined
    total = confusion.sum(axis=2, keepdims=True)
    # a class that an annotator never met tells nothing of him: a flat row
    confusion = np.where(total > 0, confusion / np.where(total > 0, total, 1), 1 / confusion.shape[2])
    return posterior.mean(axis=0), confusion


def e_step(counts: Floats, prior: Floats, confusion: Floats, fixed: Floats | None) -> tuple[float, Floats]:
    """Log-likelihood and posterior (items, classes) by log-sum-exp; gold items count with their known class."""
    # over annotators and the labels they gave: (items, true)
    products = np.tensordot(counts, _logs(confusion), axes=((0, 2), (0, 2)))
    with np.errstate(divide="ignore"):
        log_joint = np.log(prior) + products
    top = log_joint.max(axis=1, keepdims=True)
    joint = np.exp(log_joint - top)
    total = joint.sum(axis=1, keepdims=True)
    evidence = np.log(total[:, 0]) + top[:, 0]
    posterior = joint / total
    if fixed is not None:
        known = ~np.isnan(fixed[:, 0])
        evidence[known] = log_joint[known, fixed[known].argmax(axis=1)]
        posterior[known] = fixed[known]
    return float(evidence.sum()), posterior


def _logs(confusion: Floats) -> Floats:
    """Logarithms, with a huge negative number for 0, so that no vote times it is 0 and not NaN."""
    return np.where(confusion > 0, np.log(np.where(confusion > 0, confusion, 1.0)), -1e30)


def checked_answers(answers: ArrayLike, n_classes: int) -> Ints:
    """int64 (n, 3). Raises ValueError for anything else than the answers this module describes."""
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


def vote_counts(rows: Ints, n_classes: int) -> Floats:
    """How often each annotator gave each item each label: float64 (annotators, items, classes)."""
    counts = np.zeros((int(rows[:, 1].max()) + 1, int(rows[:, 0].max()) + 1, n_classes))
    np.add.at(counts, (rows[:, 1], rows[:, 0], rows[:, 2]), 1.0)
    return counts


def gold_rows(gold: Mapping[int, int], items: int, n_classes: int) -> Floats | None:
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
