"""Consensus of annotators, against the paper's data, closed forms and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.label_trials import Scene, answers, best_possible, consensus_errors, even, swapping
from trainer.labels import dawid_skene, majority_vote, reliability

# Dawid & Skene (1979), table 1: 45 patients, classes 1 to 4; three answers of observer 1, then one of each of 2 to 5.
PATIENTS = """
1111111 3334334 1122122 2223121 2223222 2223322 1222111 3333433 2222223 2322223 4444444 2223343 1111111 2223212 1211111
1112111 1111111 1111111 2222221 2221322 2222222 2222221 2223222 2212222 1111111 1111111 2322222 1111111 1111111 1121121
1111111 3333233 1111111 2222222 2223232 4334343 2212232 2323233 3333432 1111111 1111111 1212111 2322222 1211111 2222222
"""
OBSERVERS = (0, 0, 0, 1, 2, 3, 4)


@pytest.fixture(scope="module")
def anaesthetists() -> NDArray[np.int64]:
    """(patient, observer, class), counted from 0."""
    return np.array(
        [
            (i, observer, int(digit) - 1)
            for i, row in enumerate(PATIENTS.split())
            for observer, digit in zip(OBSERVERS, row, strict=True)
        ]
    )


def test_the_data_of_1979_give_the_figures_of_1979(anaesthetists: NDArray[np.int64]) -> None:
    """Log-likelihood, shares and the first observer's confusion matrix, by default, to four decimals."""
    result = dawid_skene(anaesthetists, 4)
    assert result.log_likelihood == pytest.approx(-192.8909, abs=5e-5)
    assert result.trace[:3] == pytest.approx([-205.0911, -194.5510, -193.1594], abs=5e-5)
    assert result.prior == pytest.approx([0.3996, 0.4220, 0.1118, 0.0667], abs=5e-5)
    first = [[0.8895, 0.1105, 0, 0], [0.0706, 0.8764, 0.0530, 0], [0, 0.3388, 0.6612, 0], [0, 0, 0.5556, 0.4444]]
    assert np.abs(result.confusion[0] - first).max() < 5e-5


def test_the_data_of_1979_differ_from_plurality_in_three_patients(anaesthetists: NDArray[np.int64]) -> None:
    """Patients 2, 12 and 36."""
    vote, result = majority_vote(anaesthetists, 4), dawid_skene(anaesthetists, 4)
    changed = np.flatnonzero(vote.labels != result.labels)
    assert [(i + 1, vote.labels[i] + 1, result.labels[i] + 1) for i in changed] == [(2, 3, 4), (12, 2, 3), (36, 3, 4)]


def test_the_vote_is_not_the_best_start(anaesthetists: NDArray[np.int64]) -> None:
    """Random starts find a likelier estimate on the very data of the paper; more starts never a less likely one."""
    found = [dawid_skene(anaesthetists, 4, starts=n).log_likelihood for n in (1, 5, 20)]
    assert found == sorted(found)
    assert found[-1] > found[0] + 1


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6), error=st.floats(0.05, 0.5), classes=st.integers(2, 4), smoothing=st.sampled_from([0, 5])
)
def test_posteriors_are_probabilities_and_likelihood_never_falls(
    seed: int, error: float, classes: int, smoothing: float
) -> None:
    """Whatever the answers, also with a third of them missing."""
    scene = Scene("", [1 / classes] * classes, [even(classes, error)] * 3, 0)
    _, rows = answers(scene, 30, seed)
    keep = np.random.default_rng(seed).random(len(rows)) < 2 / 3
    keep[rows[:, 1] == 0] = True  # every item keeps an answer
    if len(np.unique(rows[keep, 2])) < 2:
        return
    result = dawid_skene(rows[keep], classes, smoothing=smoothing)
    assert np.allclose(result.posterior.sum(axis=1), 1)
    assert np.allclose(result.confusion.sum(axis=2), 1)
    assert np.isfinite(result.log_likelihood)
    if not smoothing:
        assert (np.diff(result.trace) >= -1e-9 * abs(result.log_likelihood)).all()


def test_names_of_annotators_and_classes_do_not_matter() -> None:
    """Numbered otherwise, the same labels, confusion matrices and likelihood come out, permuted."""
    _, rows = answers(Scene("", [0.5, 0.3, 0.2], [even(3, 0.1), even(3, 0.2), even(3, 0.3)], 0), 200, 4)
    who, what = np.array([2, 0, 1]), np.array([1, 2, 0])
    renamed = np.stack([rows[:, 0], who[rows[:, 1]], what[rows[:, 2]]], axis=1)
    one, other = dawid_skene(rows, 3), dawid_skene(renamed, 3)
    assert other.log_likelihood == pytest.approx(one.log_likelihood)
    assert (other.labels == what[one.labels]).all()
    assert np.allclose(other.confusion[who][:, what][:, :, what], one.confusion, atol=1e-6)


def test_three_good_annotators_of_a_long_tail_leave_little_noise() -> None:
    """Three at 10 % error over six classes of unequal size: at most 1.5 % wrong labels, near the best possible."""
    shares = np.array([952, 115, 103, 85, 57, 32]) / 1344
    scene = Scene("", shares, [even(6, 0.1)] * 3, 5)
    vote, found, best = np.mean([consensus_errors(scene, 2688, seed)[0] for seed in range(12)], axis=0)
    assert found <= 0.015
    assert found <= best + 0.0025
    assert vote < 0.03


def test_an_annotator_who_swaps_two_classes_is_found_out() -> None:
    """The vote loses a tenth of the rare class by him; Dawid-Skene reads his answers the right way round."""
    shares = np.array([952, 115, 103, 85, 57, 32]) / 1344
    scene = Scene("", shares, [even(6, 0.05), even(6, 0.05), swapping(even(6, 0.05), 4, 5)], 5)
    vote, found, best = np.mean([consensus_errors(scene, 2688, seed)[1] for seed in range(4)], axis=0)
    assert vote > 0.07
    assert found <= max(0.01, best + 0.005)
    _, rows = answers(scene, 2688, 0)
    assert np.abs(dawid_skene(rows, 6).confusion[2][4:, 4:] - scene.confusions[2][4:, 4:]).max() < 0.15


def test_nobody_labels_better_than_who_knows_the_confusion_matrices() -> None:
    """The bound that the benchmark reports is one: in the mean, Bayes' rule errs least of the three."""
    scene = Scene("", [0.7, 0.2, 0.1], [even(3, 0.1), even(3, 0.2), even(3, 0.3)], 2)
    errors = np.mean([consensus_errors(scene, 500, seed)[0] for seed in range(5)], axis=0)
    assert errors[2] <= errors.min() + 0.002
    truth, rows = answers(scene, 500, 0)
    assert (best_possible(scene, rows, 500) == truth).mean() > 0.9


def test_smoothing_saves_a_few_hard_answers() -> None:
    """Sixty items and poor annotators: what EM believes without a prior is worse than counting heads."""
    scene = Scene("", [0.8, 0.1, 0.1], [even(3, 0.3)] * 3, 2)
    plain, smooth = [], []
    for seed in range(6):
        truth, rows = answers(scene, 60, seed)
        plain.append((dawid_skene(rows, 3).labels != truth).mean())
        smooth.append((dawid_skene(rows, 3, smoothing=10).labels != truth).mean())
    assert np.mean(smooth) < np.mean(plain) - 0.1


def test_gold_items_keep_their_known_class_and_make_up_for_missing_overlap() -> None:
    """A gold item outvotes everybody; with gold, annotators who share no item can be judged."""
    rows = [(i, i % 2, (i // 2) % 2) for i in range(40)]
    result = dawid_skene(rows, 2, gold={i: 1 - (i // 2) % 2 for i in range(20)})
    assert result.labels[:20].tolist() == [1 - (i // 2) % 2 for i in range(20)]
    assert result.labels[20:].tolist() == [1 - (i // 2) % 2 for i in range(20, 40)]  # both are always wrong


def test_majority_vote_counts_votes_and_reports_ties() -> None:
    """The most frequent label wins; a tie goes to the lowest class and is flagged."""
    result = majority_vote([(0, 0, 1), (0, 1, 1), (0, 2, 0), (1, 0, 2), (1, 1, 0)], 3)
    assert result.labels.tolist() == [1, 0]
    assert result.ties.tolist() == [False, True]
    assert result.posterior[0].tolist() == pytest.approx([1 / 3, 2 / 3, 0])


def test_unanimous_answers_give_certainty_without_warnings() -> None:
    """Zero cells in confusion matrices and priors are no NaN."""
    result = dawid_skene([(i, a, i % 2) for i in range(10) for a in range(3)], 3)
    assert result.labels.tolist() == [i % 2 for i in range(10)]
    assert np.isfinite(result.log_likelihood)


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ([(0, 0, 3)], "outside"),
        ([(1, 0, 0)], "item 0"),
        ([(0, 0, -1)], "negative"),
        ([(0.5, 0, 0)], "integers"),
        ([(0, 0, 1), (0, 1, 1), (1, 0, 1)], "every answer is class 1"),
        ([(0, 0, 1), (1, 1, 0), (2, 0, 1)], "no two annotators"),
    ],
)
def test_answers_that_cannot_be_used_are_named(rows: list[tuple[float, ...]], word: str) -> None:
    """Labels out of range, gaps, fractions, one class only, and annotators who share no item."""
    with pytest.raises(ValueError, match=word):
        dawid_skene(rows, 3)


def test_bad_settings_are_refused() -> None:
    """No start, negative smoothing, gold that does not exist."""
    rows = [(0, 0, 0), (0, 1, 1)]
    for options in ({"starts": 0}, {"smoothing": -1.0}, {"gold": {5: 0}}):
        with pytest.raises(ValueError):
            dawid_skene(rows, 2, **options)


def test_intervals_cover_the_true_confusion_matrices() -> None:
    """Poor annotators, where counts alone would be far too sure: nine cells of ten inside, at least."""
    scene = Scene("", [0.5, 0.5], [even(2, 0.25)] * 3, 1)
    hits, naive = [], []
    for seed in range(4):
        _, rows = answers(scene, 300, seed)
        result = dawid_skene(rows, 2, tolerance=1e-6)
        limits = reliability(rows, result, draws=20)
        hits.append(((limits.low <= scene.confusions[0]) & (scene.confusions[0] <= limits.high)).mean())
        width = 1.96 * np.sqrt(result.confusion * (1 - result.confusion) / limits.answers[:, :, None])
        naive.append((np.abs(result.confusion - scene.confusions[0]) <= width).mean())
        assert (np.diff(limits.accuracy[:, [1, 0, 2]]) >= 0).all()
        assert limits.escape is None
    assert np.mean(hits) > 0.85
    assert np.mean(hits) > np.mean(naive)


def test_intervals_are_wide_where_there_is_little_to_go_by() -> None:
    """A class that was met five times: never [1, 1]."""
    rows = [(i, a, int(i < 5)) for i in range(50) for a in range(3)]
    limits = reliability(rows, dawid_skene(rows, 2), draws=10)
    assert limits.answers[0].tolist() == pytest.approx([45, 5])
    assert limits.low[0, 1, 1] == pytest.approx(0.5655, abs=1e-3)  # Wilson, 5 of 5
    assert limits.high[0, 1, 1] == 1.0


def test_escape_and_overkill_of_annotators_are_told_with_their_intervals() -> None:
    """One who passes a quarter of the defects, one who rejects a fifth of the good parts, one who is good."""
    passes = np.array([[0.98, 0.02], [0.25, 0.75]])
    rejects = np.array([[0.8, 0.2], [0.02, 0.98]])
    scene = Scene("", [0.7, 0.3], [passes, rejects, even(2, 0.03)], 1)
    hits = []
    for seed in range(4):
        _, rows = answers(scene, 800, seed)
        limits = reliability(rows, dawid_skene(rows, 2), ok=0, draws=20)
        assert limits.escape is not None
        assert limits.overkill is not None
        for found, truth in ((limits.escape, (0.25, 0.02, 0.03)), (limits.overkill, (0.02, 0.2, 0.03))):
            hits.append(((found[:, 1] <= truth) & (truth <= found[:, 2])).mean())
            assert np.abs(found[:, 0] - truth).max() < 0.08
    assert np.mean(hits) >= 0.85


def test_an_annotator_who_met_no_defect_has_no_escape_rate() -> None:
    """Not zero: nothing is known."""
    rows = [(i, a, int(i < 5)) for i in range(50) for a in range(2)] + [(i, 2, 0) for i in range(5, 50)]
    limits = reliability(rows, dawid_skene(rows, 2), ok=0, draws=10)
    assert limits.escape is not None
    assert np.isnan(limits.escape[2]).all()
    assert limits.escape[0, 0] == 0
    assert limits.escape[0, 2] > 0.3
