"""Confident learning, against cleanlab and the paper's theorem."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.label_trials import Digits, label_errors
from calibration.metrics import softmax
from trainer.labels import confident_joint, find_label_issues, rank_issues
from trainer.labels.confident import RULES


def flipped(
    seed: int, classes: int = 4, n: int = 800
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """True labels, labels with a tenth redrawn, and good out-of-fold probabilities."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, n)
    given = np.where(rng.random(n) < 0.1, rng.integers(0, classes, n), truth)
    return truth, given, softmax(rng.normal(size=(n, classes)) + 3 * np.eye(classes)[truth])


@pytest.mark.parametrize("rule", ["prune_by_class", "prune_by_noise_rate", "both", "confident_learning"])
def test_flagged_labels_are_mostly_wrong_ones(rule: str) -> None:
    """On labels with known flips, each pruning rule is precise."""
    truth, labels, p = flipped(0)
    issues = find_label_issues(labels, p, rule)
    assert issues.sum() > 30
    assert (labels != truth)[issues].mean() > 0.8


@pytest.mark.parametrize(("seed", "classes", "n"), [(0, 4, 800), (1, 2, 100), (2, 3, 300), (3, 6, 1000), (4, 10, 300)])
def test_confident_learning_equals_cleanlab(seed: int, classes: int, n: int) -> None:
    """The joint, scaled and not, and the flagged set of every rule."""
    cleanlab = pytest.importorskip("cleanlab")
    _, labels, p = flipped(seed, classes, n)
    theirs = sys.modules["cleanlab.count"].compute_confident_joint
    for calibrate in (False, True):
        ours = confident_joint(labels, p, calibrate=calibrate)
        assert (ours == theirs(labels, p, calibrate=calibrate)).all()
    for rule in RULES:
        found = cleanlab.filter.find_label_issues(labels, p, filter_by=rule, n_jobs=1)
        assert (found == find_label_issues(labels, p, rule)).all(), rule


def test_clean_labels_with_ideal_probabilities_have_no_issues() -> None:
    """One-hot probabilities that agree with every label: nothing to prune (theorem 1 of the paper)."""
    labels = np.arange(60) % 3
    for rule in RULES:
        assert not find_label_issues(labels, np.eye(3)[labels], rule).any()


def test_noise_is_recovered_exactly_from_ideal_probabilities() -> None:
    """Where the probabilities are those of the true class, the joint counts the flips, cell by cell."""
    truth = np.repeat([0, 1, 2], 40)
    labels = truth.copy()
    labels[[0, 1, 45, 90, 91, 92]] = [1, 2, 0, 1, 1, 0]
    joint = confident_joint(labels, np.eye(3)[truth], calibrate=False)
    expected = np.zeros((3, 3), dtype=int)
    np.add.at(expected, (labels, truth), 1)
    assert (joint == expected).all()
    assert (find_label_issues(labels, np.eye(3)[truth]) == (labels != truth)).all()


def test_issues_are_ranked_by_how_little_the_label_is_believed() -> None:
    """The flagged rows, and only they; the least self-confidence first."""
    _, labels, p = flipped(1)
    ranked = rank_issues(labels, p, "both")
    assert sorted(ranked.tolist()) == np.flatnonzero(find_label_issues(labels, p, "both")).tolist()
    assert (np.diff(p[ranked, labels[ranked]]) >= 0).all()


def test_a_class_keeps_at_least_one_label() -> None:
    """The only image of a class is not pruned by rate or by class, however doubtful."""
    labels = np.array([0] * 20 + [1] * 20 + [2])
    p = softmax(4 * np.eye(3)[labels] + np.random.default_rng(0).normal(size=(41, 3)) * 0.1)
    p[40] = [0.8, 0.1, 0.1]
    for rule in ("prune_by_class", "prune_by_noise_rate", "both"):
        assert not find_label_issues(labels, p, rule)[40]


def test_unknown_rules_and_rows_that_do_not_sum_to_one_are_refused() -> None:
    """The error names the rules, or the row."""
    with pytest.raises(ValueError, match="use one of prune_by_class"):
        find_label_issues([0, 1], [[0.6, 0.4], [0.4, 0.6]], "guess")
    with pytest.raises(ValueError, match="row 1"):
        find_label_issues([0, 1], [[0.6, 0.4], [0.4, 0.5]])


def test_flips_among_digits_are_found_and_training_without_them_is_better() -> None:
    """8 % flips, out-of-fold logistic regression: precision, recall, average precision; clean data gain."""
    pytest.importorskip("sklearn")
    digits = Digits.load()
    trials = [label_errors(digits, seed) for seed in range(2)]
    assert np.mean([t.precision for t in trials]) >= 0.86
    assert np.mean([t.recall for t in trials]) >= 0.79
    assert np.mean([t.average_precision for t in trials]) >= 0.95
    assert np.mean([t.cleaned - t.noisy for t in trials]) > 0
