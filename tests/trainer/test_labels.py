"""Label quality: consensus, confident learning and queries, against closed forms, simulation and cleanlab."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.metrics import softmax
from trainer.labels import confident_joint, dawid_skene, find_label_issues, majority_vote, rank_queries


def simulated(
    seed: int, n: int, classes: int, confusions: list[NDArray[np.float64]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """True classes (uniform) and the answers of annotators with the given confusion matrices."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, n)
    answers = [
        (item, annotator, rng.choice(classes, p=confusion[label]))
        for annotator, confusion in enumerate(confusions)
        for item, label in enumerate(truth)
    ]
    return truth, np.array(answers)


def noisy(classes: int, error: float) -> NDArray[np.float64]:
    """Confusion matrix with errors spread evenly."""
    return np.full((classes, classes), error / (classes - 1)) + np.eye(classes) * (1 - error - error / (classes - 1))


def test_majority_vote_counts_votes_and_reports_ties() -> None:
    """The most frequent label wins; a tie goes to the lowest class and is flagged."""
    result = majority_vote([(0, 0, 1), (0, 1, 1), (0, 2, 0), (1, 0, 2), (1, 1, 0)], 3)
    assert result.labels.tolist() == [1, 0]
    assert result.ties.tolist() == [False, True]
    assert result.posterior[0].tolist() == pytest.approx([1 / 3, 2 / 3, 0])


def test_dawid_skene_recovers_an_annotator_who_swaps_two_classes() -> None:
    """One of three annotators swaps classes 1 and 2: he is found out, and his answers are used the right way round."""
    swapped = noisy(3, 0.1)[[0, 2, 1]]
    truth, answers = simulated(0, 1500, 3, [noisy(3, 0.1), noisy(3, 0.1), swapped])
    result = dawid_skene(answers, 3)
    vote = majority_vote(answers, 3)
    assert (result.labels != truth).mean() < (vote.labels != truth).mean() / 2
    assert np.abs(result.confusion[2] - swapped).max() < 0.06
    assert np.allclose(result.confusion.sum(axis=2), 1)
    assert np.allclose(result.posterior.sum(axis=1), 1)


def test_more_starts_never_lower_the_likelihood() -> None:
    """The best of several starts is at least as likely as the vote start alone."""
    _, answers = simulated(3, 60, 3, [noisy(3, 0.45)] * 4)
    assert dawid_skene(answers, 3, starts=8).log_likelihood >= dawid_skene(answers, 3, starts=1).log_likelihood


def test_gold_items_keep_their_known_class() -> None:
    """A gold item outvotes everybody."""
    truth, answers = simulated(1, 100, 2, [noisy(2, 0.2)] * 3)
    result = dawid_skene(answers, 2, gold={0: int(1 - truth[0])})
    assert result.labels[0] == 1 - truth[0]


def test_unanimous_answers_give_certainty_without_warnings() -> None:
    """Zero cells in confusion matrices and priors are no NaN."""
    result = dawid_skene([(i, a, i % 2) for i in range(10) for a in range(3)], 3)
    assert result.labels.tolist() == [i % 2 for i in range(10)]
    assert np.isfinite(result.log_likelihood)


@pytest.mark.parametrize(
    ("answers", "word"),
    [([(0, 0, 3)], "outside"), ([(1, 0, 0)], "item 0"), ([(0, 0, -1)], "negative"), ([(0.5, 0, 0)], "integers")],
)
def test_malformed_answers_are_named(answers: list[tuple[float, ...]], word: str) -> None:
    """Labels out of range, items without an answer and fractions are errors that say so."""
    with pytest.raises(ValueError, match=word):
        dawid_skene(answers, 3)


def flipped(seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """True labels, labels with a tenth redrawn, and good out-of-fold probabilities."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, 800)
    given_labels = np.where(rng.random(800) < 0.1, rng.integers(0, 4, 800), truth)
    return truth, given_labels, softmax(rng.normal(size=(800, 4)) + 3 * np.eye(4)[truth])


@pytest.mark.parametrize("rule", ["prune_by_class", "prune_by_noise_rate", "both", "confident_learning"])
def test_flagged_labels_are_mostly_wrong_ones(rule: str) -> None:
    """On labels with known flips, each pruning rule is precise."""
    truth, labels, probabilities = flipped(0)
    issues = find_label_issues(labels, probabilities, rule)
    assert issues.sum() > 30
    assert (labels != truth)[issues].mean() > 0.8


@pytest.mark.parametrize("seed", range(4))
def test_confident_learning_equals_cleanlab(seed: int) -> None:
    """The joint before scaling, and the flagged sets, are cleanlab's (but for its unstable order of exact ties)."""
    cleanlab = pytest.importorskip("cleanlab")
    _, labels, p = flipped(seed)
    count, found = sys.modules["cleanlab.count"], cleanlab.filter.find_label_issues
    assert (
        count.compute_confident_joint(labels, p, calibrate=False) == confident_joint(labels, p, calibrate=False)
    ).all()
    assert np.abs(count.compute_confident_joint(labels, p) - confident_joint(labels, p)).max() <= 1
    for rule in ("prune_by_class", "prune_by_noise_rate", "both", "confident_learning", "predicted_neq_given"):
        theirs = found(labels, p, filter_by=rule, n_jobs=1)
        assert (theirs != find_label_issues(labels, p, rule)).sum() <= 2


def test_clean_labels_with_ideal_probabilities_have_no_issues() -> None:
    """One-hot probabilities that agree with every label: nothing to prune (theorem 1 of the paper)."""
    labels = np.arange(60) % 3
    assert not find_label_issues(labels, np.eye(3)[labels]).any()


def test_queries_are_ranked_with_ties_by_index() -> None:
    """Least certain first; equal rows keep their order; the three strategies differ where they should."""
    p = np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.4, 0.3, 0.3], [0.5, 0.5, 0.0]])
    assert rank_queries(p, "margin").tolist() == [1, 3, 2, 0]
    assert rank_queries(p, "least_confident").tolist() == [2, 1, 3, 0]
    assert rank_queries(p, "entropy").tolist() == [2, 1, 3, 0]


@given(st.lists(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), min_size=1, max_size=20))
def test_every_strategy_returns_a_permutation(rows: list[list[float]]) -> None:
    """All rows are ranked, each once."""
    p = np.array(rows) / np.sum(rows, axis=1, keepdims=True)
    for strategy in ("margin", "least_confident", "entropy"):
        assert sorted(rank_queries(p, strategy).tolist()) == list(range(len(p)))


def test_probabilities_that_do_not_sum_to_one_are_refused() -> None:
    """The row is named."""
    with pytest.raises(ValueError, match="row 1"):
        rank_queries([[0.5, 0.5], [0.5, 0.6]], "margin")
