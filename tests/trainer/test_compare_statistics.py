"""Levels and paired differences of a comparison, held against closed forms and scipy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score, roc_auc_score

from calibration.metrics import auroc, ece, nll, softmax
from calibration.risk import escape_at_overkill
from calibration.temperature import fit_temperature
from trainer.compare.calls import called, ok_offset
from trainer.compare.statistics import (
    Outcome,
    Pooled,
    Truth,
    aligned,
    difference,
    differences,
    levels,
    pool,
    recalls,
    t_quantile,
)

N, CLASSES, FOLDS = 300, 3, 5
LABELS = np.arange(N) % 10 % CLASSES
TRUTH = Truth(LABELS, tuple(f"g{i // 3}" for i in range(N)), ("good", "pit", "crack"), 0)


def outcomes(skill: float, sharpness: float = 1.0, seeds: int = 2, noise: int = 0) -> list[Outcome]:
    """A recipe whose logits favour the label by ``skill`` deviations of their noise."""
    made = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, noise])
        logits = sharpness * (skill * np.eye(CLASSES)[LABELS] + rng.normal(size=(N, CLASSES)))
        fold_of = np.arange(N) // 3 % FOLDS
        for fold in range(FOLDS):
            test, val = np.flatnonzero(fold_of == fold), np.flatnonzero(fold_of == (fold + 1) % FOLDS)
            made.append(Outcome(seed, fold, val, test, logits[val], logits[test]))
    return made


@given(st.integers(1, 200), st.floats(0.5, 0.9999))
def test_the_quantile_of_students_t_is_scipys(freedom: int, p: float) -> None:
    """To nine digits, from one degree of freedom to many."""
    assert t_quantile(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-9, abs=1e-9)


def test_the_interval_of_a_difference_is_nadeau_and_bengios() -> None:
    """By hand: mean -+ t s sqrt(1 / J + test / train)."""
    values = np.array([0.02, 0.05, 0.01, 0.04, 0.03, 0.06, 0.02, 0.05, 0.04, 0.03])
    found = difference(values, 1 / 4, higher_is_better=True)
    half = stats.t.ppf(0.975, 9) * values.std(ddof=1) * np.sqrt(1 / 10 + 1 / 4)
    assert (found.value, found.low, found.high) == pytest.approx((0.035, 0.035 - half, 0.035 + half))
    assert found.better is True
    assert difference(values, 1 / 4, higher_is_better=False).better is False


def test_the_corrected_test_errs_as_often_as_it_says_where_plain_t_does_not() -> None:
    """Cells that share a common error (their training images): 95 % intervals miss zero at most 6 times in 100."""
    rng = np.random.default_rng(0)
    folds, cells, trials = 5, 10, 4000
    shared = np.sqrt(1 / (folds - 1) / (1 + 1 / (folds - 1)))  # the correlation that the correction assumes, 1/5
    values = shared * rng.normal(size=(trials, 1)) + np.sqrt(1 - shared**2) * rng.normal(size=(trials, cells))
    corrected = np.mean([difference(row, 1 / (folds - 1), True).better is not None for row in values])
    plain = np.mean([difference(row, 0.0, True).better is not None for row in values])
    assert corrected <= 0.06
    assert plain > 0.2


def test_two_equal_recipes_cannot_be_told_apart_and_a_better_one_can() -> None:
    """The same skill with other noise, and twice the skill; for escapes less is better."""
    base = outcomes(1.0)
    equal = differences(outcomes(1.0, noise=1), base, TRUTH, 0.1)
    better = differences(outcomes(2.5, noise=2), base, TRUTH, 0.1)
    assert equal["balanced_accuracy"].better is None
    assert (better["balanced_accuracy"].better, better["escape"].better) == (True, True)
    assert better["escape"].value < 0 < better["balanced_accuracy"].value
    assert differences(base, outcomes(2.5, noise=2), TRUTH, 0.1)["escape"].better is False


def test_a_recipe_less_itself_is_nothing() -> None:
    """Pairing removes what the cells have in common: zero, with no width."""
    found = differences(outcomes(1.0), outcomes(1.0), TRUTH, 0.1)["macro_f1"]
    assert (found.value, found.low, found.high, found.better) == (0, 0, 0, None)


def test_cells_without_a_figure_are_left_out_and_one_cell_says_nothing() -> None:
    """NaN is a fold without defects; from one value no spread can be known."""
    assert difference(np.array([0.1, np.nan, 0.3]), 0.5, True).value == pytest.approx(0.2)
    alone = difference(np.array([0.1]), 0.5, True)
    assert np.isnan(alone.low)
    assert alone.better is None


def test_levels_are_those_of_the_out_of_fold_predictions() -> None:
    """Against scikit-learn, mean over the seeds; the interval holds the value."""
    pooled = pool(outcomes(1.5), TRUTH)
    found, by_class = levels(pooled, TRUTH, 0.1, draws=50), recalls(pooled, TRUTH, draws=50)
    said = [each.called for each in pooled.seeds]
    assert found["balanced_accuracy"].value == pytest.approx(
        np.mean([balanced_accuracy_score(LABELS, y) for y in said])
    )
    likeliest = [each.after.argmax(1) for each in pooled.seeds]
    assert found["balanced_likeliest"].value == pytest.approx(
        np.mean([balanced_accuracy_score(LABELS, y) for y in likeliest])
    )
    assert found["macro_f1"].value == pytest.approx(np.mean([f1_score(LABELS, y, average="macro") for y in said]))
    scores = [aligned(1 - each.after[:, 0], LABELS != 0, each.cells) for each in pooled.seeds]
    assert found["escape"].value == pytest.approx(
        np.mean([escape_at_overkill(one, LABELS != 0, 0.1) for one in scores])
    )
    assert found["auroc"].value == pytest.approx(np.mean([roc_auc_score(LABELS != 0, one) for one in scores]))
    recall = np.mean([recall_score(LABELS, y, average=None) for y in said], axis=0)
    assert [by_class[name].value for name in TRUTH.classes] == pytest.approx(recall.tolist())
    assert all(value.low <= value.value <= value.high for value in by_class.values())


def test_scores_of_models_that_differ_in_level_are_ranked_by_what_each_rejects() -> None:
    """One model says 0.6 to 0.9 where the other says 0.1 to 0.4: by one raw threshold half of the defects escape."""
    raw = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])
    bad = np.array([False, False, False, True] * 2)
    scores = aligned(raw, bad, np.repeat([0, 1], 4))
    assert scores.tolist() == pytest.approx([1 / 6, 1 / 2, 5 / 6, 1] * 2)
    assert (escape_at_overkill(raw, bad, 0.1), escape_at_overkill(scores, bad, 0.1)) == (0.5, 0)
    assert aligned(raw, np.ones(8, np.bool_), np.zeros(8, np.int64)).tolist() == [0.5] * 8


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40), st.data())
def test_within_one_model_aligning_changes_no_point_of_the_curve(values: list[float], data: st.DataObject) -> None:
    bad = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    raw = np.array(values)
    scores = aligned(raw, bad, np.zeros(len(raw), np.int64))
    if bad.any() and not bad.all():
        assert auroc(scores, bad) == pytest.approx(auroc(raw, bad))
        assert escape_at_overkill(scores, bad, 0.1) == pytest.approx(escape_at_overkill(raw, bad, 0.1))


def test_the_temperature_is_the_validation_folds_and_changes_no_verdict() -> None:
    """Logits four times too sharp: ECE and NLL fall, every argmax stays."""
    sharp = outcomes(1.5, sharpness=4.0)
    assert sharp[0].temperature(TRUTH) == fit_temperature(sharp[0].val_logits, LABELS[sharp[0].val])
    pooled = pool(sharp, TRUTH)
    for said in pooled.seeds:
        assert np.array_equal(said.before.argmax(1), said.after.argmax(1))
        assert ece(said.after, LABELS) < ece(said.before, LABELS)
        assert nll(said.after, LABELS) < nll(said.before, LABELS)
    assert np.allclose(pooled.seeds[0].before[sharp[0].test], softmax(sharp[0].test_logits))
    assert pooled.changed == 0


def test_verdicts_that_a_calibration_changes_are_counted() -> None:
    """Two of the images of the second seed say another class afterwards."""
    pooled = pool(outcomes(1.5), TRUTH)
    altered = pooled.seeds[1].after.copy()
    altered[[3, 7]] = np.roll(altered[[3, 7]], 1, axis=1)
    assert Pooled((pooled.seeds[0], replace(pooled.seeds[1], after=altered))).changed == 2


def test_what_is_called_is_each_models_with_its_own_validation_fold() -> None:
    """The offset of one fold does not reach the parts of another."""
    made = outcomes(1.5)
    shifted = [replace(o, val_logits=o.val_logits + 2 * o.fold * np.eye(CLASSES)[0]) for o in made]
    pooled = pool(shifted, TRUTH)
    for outcome in shifted:
        p = softmax(outcome.val_logits / outcome.temperature(TRUTH))
        offset = ok_offset(p, LABELS[outcome.val], 0)
        said = pooled.seeds[outcome.seed]
        assert np.array_equal(said.called[outcome.test], called(said.after[outcome.test], offset, 0))
        assert set(said.cells[outcome.test]) == {outcome.fold}


def test_an_image_that_no_fold_judged_is_an_error() -> None:
    """A pooled figure is of all images or of none."""
    with pytest.raises(ValueError, match="judged by no fold"):
        pool(outcomes(1.0)[1:], TRUTH)
