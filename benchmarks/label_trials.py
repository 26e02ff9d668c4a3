"""Trials behind `benchmarks.labels`: simulated annotators, flipped labels and queries, with the truth known."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.labels import dawid_skene, find_label_issues, majority_vote, rank_queries

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Scene:
    """Simulated annotators.

    Attributes:
        name: for the table. shares: of the true classes. confusions: (true, observed) of each annotator.
        watched: the class whose own error is told.
    """

    name: str
    shares: Sequence[float]
    confusions: Sequence[Floats]
    watched: int


def even(classes: int, error: float) -> Floats:
    """Errors spread evenly over the other classes."""
    return np.full((classes, classes), error / (classes - 1)) + np.eye(classes) * (1 - error - error / (classes - 1))


def habitual(classes: int, error: float, step: int) -> Floats:
    """Four fifths of the errors call class k class k + step; the rest is spread evenly."""
    return (
        even(classes, error / 5) - np.eye(classes) * 0.8 * error + np.roll(np.eye(classes), step, axis=1) * 0.8 * error
    )


def swapping(confusion: Floats, first: int, second: int) -> Floats:
    """The annotator takes two classes for each other."""
    order = np.arange(len(confusion))
    order[[first, second]] = second, first
    return confusion[order]


def answers(scene: Scene, items: int, seed: int) -> tuple[Ints, Ints]:
    """True classes (items,), and the answers of everybody to every item, (n, 3)."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(len(scene.shares), items, p=scene.shares)
    rows = []
    for annotator, confusion in enumerate(scene.confusions):
        given = (rng.random(items)[:, None] > np.cumsum(confusion[truth], axis=1)).sum(axis=1)
        rows.append(np.stack([np.arange(items), np.full(items, annotator), given], axis=1))
    return truth, np.concatenate(rows)


def best_possible(scene: Scene, rows: Ints, items: int) -> Ints:
    """Labels by Bayes' rule, knowing the shares and every confusion matrix: nobody errs less in the mean."""
    log_joint = np.tile(np.log(scene.shares), (items, 1))
    for item, annotator, label in rows.tolist():
        log_joint[item] += np.log(scene.confusions[annotator][:, label])
    return log_joint.argmax(axis=1).astype(np.int64)


def consensus_errors(scene: Scene, items: int, seed: int) -> Floats:
    """Shares of wrong labels, (2, 3): (all items, the watched class) by (vote, Dawid-Skene, best possible)."""
    truth, rows = answers(scene, items, seed)
    classes = len(scene.shares)
    found = (majority_vote(rows, classes).labels, dawid_skene(rows, classes).labels, best_possible(scene, rows, items))
    rare = truth == scene.watched
    return np.array(
        [[(labels != truth).mean() for labels in found], [(labels != truth)[rare].mean() for labels in found]]
    )


@dataclass(frozen=True)
class Digits:
    """scikit-learn's 1,797 handwritten digits: pixels in 0..1, float64 (n, 64), and classes int64 (n,)."""

    x: Floats
    y: Ints

    @classmethod
    def load(cls) -> Digits:
        """From the installed package; no download."""
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        return cls(x / 16.0, y.astype(np.int64))


def fitted(x: Floats, y: Ints) -> object:
    """Logistic regression, as the trainer's head is."""
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a hundred steps are enough here
        return LogisticRegression(C=1.0, max_iter=100).fit(x, y)


def probabilities(model: object, x: Floats, classes: int) -> Floats:
    """float64 (n, classes); classes the model has not met have probability 0."""
    found = np.zeros((len(x), classes))
    found[:, model.classes_] = model.predict_proba(x)  # type: ignore[attr-defined]
    return found


@dataclass(frozen=True)
class ErrorTrial:
    """Confident learning on labels of which 8 % were flipped; shares in 0..1.

    `noisy`, `cleaned`, `clean`: test accuracy after training on the labels as given, without the flagged ones, and on
    the true ones.
    """

    precision: float
    recall: float
    average_precision: float
    noisy: float
    cleaned: float
    clean: float


def label_errors(digits: Digits, seed: int, flips: float = 0.08, folds: int = 5, rule: str = "both") -> ErrorTrial:
    """Flip labels, find them again by out-of-fold probabilities, and train without them; a quarter is for testing."""
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(seed)
    order = rng.permutation(len(digits.y))
    test, learn = order[: len(order) // 4], order[len(order) // 4 :]
    x, truth = digits.x[learn], digits.y[learn]
    wrong = rng.random(len(learn)) < flips
    y = np.where(wrong, (truth + rng.integers(1, 10, len(learn))) % 10, truth)
    fold = rng.permutation(len(learn)) % folds
    p = np.empty((len(learn), 10))
    for held_out in range(folds):
        p[fold == held_out] = probabilities(fitted(x[fold != held_out], y[fold != held_out]), x[fold == held_out], 10)
    flagged = find_label_issues(y, p, rule)

    def accuracy(labels: Ints, keep: NDArray[np.bool_]) -> float:
        model = fitted(x[keep], labels[keep])
        return float((probabilities(model, digits.x[test], 10).argmax(axis=1) == digits.y[test]).mean())

    everything = np.ones(len(learn), dtype=bool)
    return ErrorTrial(
        precision=float(wrong[flagged].mean()),
        recall=float(flagged[wrong].mean()),
        average_precision=float(average_precision_score(wrong, -p[np.arange(len(y)), y])),
        noisy=accuracy(y, everything),
        cleaned=accuracy(y, ~flagged),
        clean=accuracy(truth, everything),
    )


def labels_needed(
    digits: Digits, strategy: str | None, seed: int, goal: float = 0.93, start: int = 20, step: int = 10
) -> int:
    """Labels until the accuracy on a held-out half reaches the goal; None labels at random.

    Both begin with the same random labels, and the first `step` labels that reach the goal count.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(digits.y))
    test, pool = order[: len(order) // 2], order[len(order) // 2 :]
    labelled = pool[:start]
    rest = pool[start:]
    while True:
        model = fitted(digits.x[labelled], digits.y[labelled])
        right = probabilities(model, digits.x[test], 10).argmax(axis=1) == digits.y[test]
        if right.mean() >= goal or not len(rest):
            return len(labelled)
        if strategy is not None:
            rest = rest[rank_queries(probabilities(model, digits.x[rest], 10), strategy)]
        labelled, rest = np.concatenate([labelled, rest[:step]]), rest[step:]
