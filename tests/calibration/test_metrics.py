"""Figures of merit against scikit-learn and torchmetrics, and their intervals against simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as reference
from torchmetrics.classification import MulticlassCalibrationError

from calibration.calibration_error import classwise_ece, debiased_ece, equal_mass_ece
from calibration.metrics import (
    accuracy,
    auroc,
    balanced_accuracy,
    bootstrap,
    brier,
    confusion,
    ece,
    ece_interval,
    ece_of_a_calibrated_model,
    macro_f1,
    nll,
    reliability_bins,
    softmax,
)
from calibration.values import Interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def case(seed: int, n: int = 300, classes: int = 4, sharpness: float = 2.0) -> tuple[Floats, Ints]:
    """Probabilities and labels; the labels follow flatter probabilities than stated."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1, (n, classes))
    labels = np.array([rng.choice(classes, p=p) for p in softmax(z)])
    return softmax(z * sharpness), labels


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), classes=st.integers(2, 6), bins=st.sampled_from([1, 5, 10, 15, 20]))
def test_ece_is_that_of_torchmetrics(seed: int, classes: int, bins: int) -> None:
    """L1, any number of classes and bins."""
    p, y = case(seed, 200, classes)
    other = MulticlassCalibrationError(num_classes=classes, n_bins=bins, norm="l1")
    expected = float(other(torch.from_numpy(p), torch.from_numpy(y)))
    assert ece(p, y, bins) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), classes=st.integers(2, 6))
def test_figures_are_those_of_scikit_learn(seed: int, classes: int) -> None:
    """NLL, Brier score, accuracy, balanced accuracy, macro F1, confusion matrix."""
    p, y = case(seed, 120, classes)
    predicted, names = p.argmax(axis=1), list(range(classes))
    assert nll(p, y) == pytest.approx(reference.log_loss(y, p, labels=names), rel=1e-9)
    one_hot = np.eye(classes)[y]
    assert brier(p, y) == pytest.approx(classes * reference.mean_squared_error(one_hot, p), rel=1e-9)
    assert accuracy(p, y) == pytest.approx(reference.accuracy_score(y, predicted))
    assert balanced_accuracy(predicted, y, classes) == pytest.approx(reference.balanced_accuracy_score(y, predicted))
    assert macro_f1(predicted, y, classes) == pytest.approx(reference.f1_score(y, predicted, average="macro"))
    assert np.array_equal(confusion(predicted, y, classes), reference.confusion_matrix(y, predicted, labels=names))


def test_brier_of_two_classes_is_twice_the_binary_one() -> None:
    """scikit-learn's binary score counts one class; ours sums over both."""
    p, y = case(0, classes=2)
    assert brier(p, y) == pytest.approx(2 * reference.mean_squared_error(y, p[:, 1]), rel=1e-9)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_classes_that_do_not_occur_do_not_count() -> None:
    """A class predicted but never true counts in F1, not in balanced accuracy; one that is neither, nowhere."""
    predicted, y = np.array([0, 0, 1, 2]), np.array([0, 0, 1, 1])
    assert macro_f1(predicted, y, 5) == pytest.approx(reference.f1_score(y, predicted, average="macro"))
    assert balanced_accuracy(predicted, y, 5) == pytest.approx(0.75)


@settings(max_examples=50, deadline=None)
@given(data=st.data(), n=st.integers(2, 60))
def test_auroc_is_that_of_scikit_learn_ties_included(data: st.DataObject, n: int) -> None:
    """Scores from a few values only, so that ties are common."""
    scores = np.array(data.draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))) / 6
    truth = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    if truth.all() or not truth.any():
        assert np.isnan(auroc(scores, truth))
    else:
        assert auroc(scores, truth) == pytest.approx(reference.roc_auc_score(truth, scores))


@pytest.mark.parametrize("scores", [[0.1, np.nan], [0.1], [[0.1], [0.2]]])
def test_auroc_refuses_what_it_cannot_rank(scores: object) -> None:
    """NaN sorts last and would look like the surest defect."""
    with pytest.raises(ValueError, match="without NaN"):
        auroc(scores, [False, True])  # type: ignore[arg-type]


def test_softmax_is_finite_and_sums_to_one() -> None:
    """Also for logits that overflow exp."""
    p = softmax([[1e4, -1e4, 0], [1e300, 1e300, -1e300], [0, 0, 0]])
    assert np.isfinite(p).all()
    assert p.sum(axis=1) == pytest.approx(1)
    assert p[1].tolist() == pytest.approx([0.5, 0.5, 0])


def test_reliability_bins_by_hand() -> None:
    """Six rows in five bins: edges belong to the bin below, 1.0 to the last."""
    top = np.array([0.6, 0.6, 0.61, 0.8, 1.0, 0.9])
    p = np.stack([top, 1 - top], axis=1)
    bins = reliability_bins(p, [0, 1, 0, 0, 0, 1], 5)
    assert bins.edges == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert bins.count.tolist() == [0, 0, 2, 2, 2]
    assert np.isnan(bins.confidence[:2]).all()
    assert bins.confidence[2:] == pytest.approx([0.6, 0.705, 0.95])
    assert bins.accuracy[2:] == pytest.approx([0.5, 1.0, 0.5])
    assert bins.ece == pytest.approx((2 * 0.1 + 2 * 0.295 + 2 * 0.45) / 6)


def test_confidence_zero_lies_in_the_first_bin() -> None:
    """It can only be so for a row of zeros within the tolerance of the sum; the edge is closed all the same."""
    assert reliability_bins([[1.0, 0.0]], [0], 1).count.tolist() == [1]


def test_perfect_and_perfectly_wrong() -> None:
    """The ends of the scales."""
    p = np.eye(3)
    assert (ece(p, [0, 1, 2]), nll(p, [0, 1, 2]), brier(p, [0, 1, 2]), accuracy(p, [0, 1, 2])) == (0, 0, 0, 1)
    wrong = (ece(p, [1, 2, 0]), brier(p, [1, 2, 0]), accuracy(p, [1, 2, 0]))
    assert wrong == (1, 2, 0)
    assert nll(p, [1, 2, 0]) == pytest.approx(-np.log(1e-12))


@pytest.mark.parametrize(
    ("probabilities", "told"),
    [
        ([[0.5, 0.6]], r"1 rows of probabilities do not sum to one \(first: row 0, which sums to 1\.1\)"),
        ([[1.5, -0.5]], r"outside 0\.\.1 \(first: row 0, class 0: 1\.5\)"),
        ([[np.nan, 0.5]], r"not finite \(first: row 0, class 0\)"),
        ([[2.0, -1.0]], "outside"),
    ],
)
def test_what_is_no_probability_is_refused(probabilities: list[list[float]], told: str) -> None:
    """Logits passed by mistake, for one."""
    for figure in (nll, brier, ece, equal_mass_ece, debiased_ece, classwise_ece):
        with pytest.raises(ValueError, match=told):
            figure(probabilities, [0])


def test_no_bins_are_refused() -> None:
    """At least one."""
    with pytest.raises(ValueError, match="bins is 0"):
        ece([[0.5, 0.5]], [0], 0)


def test_the_ece_of_a_calibrated_model_is_what_calibrated_models_show() -> None:
    """Labels drawn from the stated probabilities many times: the mean and the spread of their ECE."""
    rng = np.random.default_rng(0)
    p = softmax(rng.normal(0, 2, (150, 2)))
    predicted = ece_of_a_calibrated_model(p, draws=400)
    seen = [ece(p, (rng.random(150) < p[:, 1]).astype(int)) for _ in range(400)]
    assert predicted.value == pytest.approx(np.mean(seen), rel=0.1)
    assert predicted.low == pytest.approx(np.quantile(seen, 0.025), rel=0.25)
    assert predicted.high == pytest.approx(np.quantile(seen, 0.975), rel=0.15)


def test_the_ece_interval_holds_the_estimate_and_narrows_with_n() -> None:
    """As the root of n."""
    narrow, wide = ece_interval(*case(0, 4000)), ece_interval(*case(0, 250))
    assert narrow.low <= narrow.value <= narrow.high
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(4, rel=0.5)


def test_the_bootstrap_interval_covers_the_truth() -> None:
    """A mean of 80: the 90 % interval holds it in about 90 % of 200 experiments."""
    rng = np.random.default_rng(1)
    hits = 0
    for i in range(200):
        x = rng.normal(3, 1, 80)
        interval = bootstrap(lambda rows, x=x: float(x[rows].mean()), 80, draws=200, seed=i, level=0.9)
        hits += interval.low <= 3 <= interval.high
    assert 0.82 <= hits / 200 <= 0.96


def test_the_grouped_bootstrap_knows_that_copies_are_no_evidence() -> None:
    """Each part photographed nine times: by rows the interval is three times too narrow, by groups it is not."""
    rng = np.random.default_rng(2)
    parts = rng.normal(0, 1, 100)
    x, groups = np.repeat(parts, 9), np.repeat([f"part-{i}" for i in range(100)], 9)

    def mean(rows: Ints) -> float:
        return float(x[rows].mean())

    by_rows, by_groups = bootstrap(mean, 900), bootstrap(mean, 900, groups)
    assert (by_groups.high - by_groups.low) / (by_rows.high - by_rows.low) == pytest.approx(3, rel=0.2)
    assert by_groups.high - by_groups.low == pytest.approx(2 * 1.96 * parts.std() / 10, rel=0.2)


def test_draws_without_a_value_are_left_out() -> None:
    """A resample without any defect has no escape rate; none at all has no interval."""
    x = np.array([np.nan, 1.0, 2.0])
    partly = bootstrap(lambda rows: float(x[rows].mean()), 3, draws=300)
    assert np.isnan(partly.value)
    assert 1 <= partly.low <= partly.high <= 2
    never = bootstrap(lambda rows: float("nan"), 3, draws=10)
    assert np.isnan(never.low)
    assert np.isnan(never.high)


def test_the_bootstrap_is_the_same_for_a_seed() -> None:
    """And another for another."""
    x = np.arange(30.0)

    def mean(rows: Ints) -> float:
        return float(x[rows].mean())

    assert bootstrap(mean, 30, seed=1) == bootstrap(mean, 30, seed=1) != bootstrap(mean, 30, seed=2)


def test_an_interval_prints_value_and_limits() -> None:
    """With the format of its numbers."""
    assert f"{Interval(0.5, 0.25, 0.75):.2f}" == "0.50 [0.25, 0.75]"
    assert f"{Interval(0.5, 0.25, 0.75)}" == "0.5 [0.25, 0.75]"
