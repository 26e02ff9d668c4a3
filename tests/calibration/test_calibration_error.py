"""Calibration errors against scikit-learn and torchmetrics, and their bias against simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve
from torchmetrics.classification import BinaryCalibrationError
from torchmetrics.functional.classification.calibration_error import _ce_compute

from calibration.calibration_error import (
    classwise_ece,
    debiased,
    debiased_ece,
    debiased_square,
    equal_mass_bins,
    equal_mass_ece,
    interval,
    top_class,
)
from calibration.metrics import brier, ece, equal_width_bins, nll, softmax

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
METRICS = [equal_mass_ece, debiased_ece, classwise_ece]


def case(seed: int, n: int = 300, classes: int = 4, sharpness: float = 2.0) -> tuple[Floats, Ints]:
    """Probabilities and labels; the labels follow flatter probabilities than stated."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1, (n, classes))
    labels = np.array([rng.choice(classes, p=p) for p in softmax(z)])
    return softmax(z * sharpness), labels


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), bins=st.sampled_from([1, 5, 10, 15]))
def test_equal_mass_bins_are_the_quantile_bins_of_scikit_learn(seed: int, bins: int) -> None:
    """300 rows without ties: each bin holds as many, and their gaps weigh the same."""
    p, y = case(seed)
    top, correct = top_class(p, y)
    said, was = calibration_curve(correct, top, n_bins=bins, strategy="quantile")[::-1]
    assert equal_mass_ece(p, y, bins) == pytest.approx(np.abs(said - was).mean(), abs=1e-12)
    assert set(equal_mass_bins(top, correct, bins).count.tolist()) == {300 // bins}


@settings(max_examples=40, deadline=None)
@given(data=st.data(), n=st.integers(1, 60), bins=st.integers(1, 20))
def test_equal_confidences_share_a_bin_in_whatever_order(data: st.DataObject, n: int, bins: int) -> None:
    """Few distinct values: the error does not depend on the order of rows, no row is lost, edges ascend."""
    top = np.array(data.draw(st.lists(st.integers(5, 10), min_size=n, max_size=n))) / 10
    correct = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n))).astype(float)
    found = equal_mass_bins(top, correct, bins)
    order = np.random.default_rng(n).permutation(n)
    assert found.ece == pytest.approx(equal_mass_bins(top[order], correct[order], bins).ece)
    assert found.count.sum() == n
    assert (found.count > 0).sum() <= len(set(top.tolist()))
    edges = found.edges[~np.isnan(found.edges)]
    assert (np.diff(edges) >= 0).all()
    assert (edges[0], edges[-1]) == (top.min(), top.max())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), bins=st.sampled_from([1, 5, 10, 15]))
def test_the_debiased_error_is_that_of_torchmetrics(seed: int, bins: int) -> None:
    """Its formula on its own equal-width bins, which are ours too."""
    top, correct = top_class(*case(seed, 200))
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    theirs = _ce_compute(torch.from_numpy(top), torch.from_numpy(correct), edges, norm="l2", debias=True)
    assert debiased(equal_width_bins(top, correct, bins)) == pytest.approx(float(theirs), abs=1e-6)


def test_the_debiased_square_has_no_bias_where_the_plain_one_has() -> None:
    """Confidences that are 0.1 too high in every bin: its mean over samples of 150 is 0.01, the plain one's is not."""
    rng = np.random.default_rng(0)
    squares, plain = [], []
    for _ in range(3000):
        confidence = np.tile([0.6, 0.75, 0.9], 50)
        correct = (rng.random(150) < confidence - 0.1).astype(float)
        bins = equal_width_bins(confidence, correct, 15)
        squares.append(debiased_square(bins))
        plain.append(float((bins.count * (bins.confidence - bins.accuracy) ** 2)[bins.count > 0].sum() / 150))
    error = np.std(squares) / np.sqrt(3000)
    assert np.mean(squares) == pytest.approx(0.01, abs=4 * error)
    assert np.mean(plain) > 0.01 + 20 * error


def test_a_calibrated_model_has_a_debiased_error_of_about_zero() -> None:
    """Where the equal-width ECE tells 4 % or more on as few rows."""
    rng = np.random.default_rng(3)
    squares, plain = [], []
    for _ in range(300):
        p = softmax(rng.normal(0, 1.5, (150, 2)))
        y = (rng.random(150) < p[:, 1]).astype(int)
        squares.append(debiased_square(equal_mass_bins(*top_class(p, y), 15)))
        plain.append(ece(p, y))
    assert abs(np.mean(squares)) < 0.001
    assert np.mean(plain) > 0.04


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), classes=st.integers(2, 6), bins=st.sampled_from([1, 5, 15]))
def test_the_class_wise_error_is_the_mean_of_binary_ones(seed: int, classes: int, bins: int) -> None:
    """torchmetrics' binary error of each class's probability against being of that class."""
    p, y = case(seed, 200, classes)
    one = [BinaryCalibrationError(n_bins=bins, norm="l1") for _ in range(classes)]
    expected = [float(m(torch.from_numpy(p[:, k]), torch.from_numpy((y == k).astype(int)))) for k, m in enumerate(one)]
    assert classwise_ece(p, y, bins) == pytest.approx(np.mean(expected), abs=1e-6)


def test_the_class_wise_error_sees_a_rare_class_the_top_class_hides() -> None:
    """It is never the largest, and always stated at a third of what it is."""
    rng = np.random.default_rng(0)
    p = np.tile([0.90, 0.05, 0.05], (20_000, 1))
    y = rng.choice(3, 20_000, p=[0.90, 0.0, 0.10])
    assert ece(p, y) < 0.01
    assert classwise_ece(p, y) == pytest.approx(0.1 / 3, abs=0.005)


@pytest.mark.parametrize("metric", METRICS)
def test_the_ends_of_the_scale(metric: object) -> None:
    """Sure and right is 0, sure and wrong is 1, in any number of bins, for one row too."""
    p = np.eye(2)
    for bins in (2, 15):
        assert metric(p, [0, 1], bins) == 0  # type: ignore[operator]
        assert metric(p, [1, 0], bins) == 1  # type: ignore[operator]
        assert metric(p[:1], [1], bins) == 1  # type: ignore[operator]
    with pytest.raises(ValueError, match="bins is 0"):
        metric(p, [0, 1], 0)  # type: ignore[operator]


@pytest.mark.parametrize("metric", [*METRICS, ece, nll, brier])
def test_intervals_hold_a_figure_of_a_large_sample_and_know_copies(metric: object) -> None:
    """4000 rows; nine copies of each row make the interval of groups as wide as without, of rows far narrower."""
    p, y = case(0, 4000, 3)
    found = interval(metric, p, y, draws=60)  # type: ignore[arg-type]
    assert found.low <= found.value <= found.high
    assert found.value == metric(p, y)  # type: ignore[operator]
    p, y, groups = np.repeat(p[:150], 9, axis=0), np.repeat(y[:150], 9), np.repeat(np.arange(150), 9)
    by_rows, by_groups = (interval(metric, p, y, g, draws=120) for g in (None, groups))  # type: ignore[arg-type]
    assert by_groups.high - by_groups.low > 1.7 * (by_rows.high - by_rows.low)
