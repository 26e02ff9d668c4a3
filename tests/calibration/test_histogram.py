"""Histograms of defect probability, their divergences, and the null law that the drift alarm is set by."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from calibration.histogram import bin_index, confidence_histogram, kl, null_quantile, psi, smoothed
from calibration.values import BINS

counts = st.lists(st.integers(0, 1000), min_size=4, max_size=4).filter(lambda c: sum(c) > 0)


@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=50), bins=st.integers(1, 40))
def test_every_probability_is_counted_once_in_its_bin(p: list[float], bins: int) -> None:
    """Equal width, 1.0 in the last."""
    index = bin_index(p, bins)
    assert ((index >= 0) & (index < bins)).all()
    assert np.allclose(np.clip(p, index / bins, (index + 1) / bins), p, atol=1e-12)
    histogram = confidence_histogram(p, bins)
    assert histogram.shape == (bins,)
    assert histogram.sum() == len(p)


def test_bins_by_hand() -> None:
    """Edges belong to the bin above."""
    assert bin_index([0, 0.05, 0.999, 1.0]).tolist() == [0, 1, 19, 19]
    assert BINS == 20


@pytest.mark.parametrize("p", [float("nan"), -0.01, 1.01, float("inf")])
def test_what_is_no_probability_is_refused(p: float) -> None:
    """Not counted into some bin at the end."""
    with pytest.raises(ValueError, match="outside"):
        confidence_histogram([0.5, p])


@given(p=counts, q=counts)
def test_divergences_are_never_negative_and_psi_is_symmetric(p: list[int], q: list[int]) -> None:
    """Empty bins on either side included."""
    assert kl(p, q) >= 0
    assert np.isfinite(kl(p, q))
    assert psi(p, q) == pytest.approx(psi(q, p))
    assert np.isfinite(psi(p, q))
    assert kl(p, p) == psi(p, p) == 0


@given(p=counts, q=counts, scale=st.integers(1, 50))
def test_divergences_see_shares_and_not_counts(p: list[int], q: list[int], scale: int) -> None:
    """A longer window of the same parts is no other distribution."""
    assert kl(np.array(p) * scale, q) == pytest.approx(kl(p, q), abs=1e-12)
    assert psi(np.array(p) * scale, q) == pytest.approx(psi(p, q), abs=1e-12)


@given(p=counts.filter(lambda c: min(c) > 0), q=counts.filter(lambda c: min(c) > 0))
def test_without_empty_bins_they_are_the_textbook_sums(p: list[int], q: list[int]) -> None:
    """KL against scipy; PSI as the sum of both directions."""
    assert kl(p, q) == pytest.approx(stats.entropy(p, q), abs=1e-12)
    assert psi(p, q) == pytest.approx(stats.entropy(p, q) + stats.entropy(q, p), abs=1e-12)


def test_empty_bins() -> None:
    """Empty in p adds nothing; empty in q but not in p is large and finite; empty in both is no bin at all."""
    assert kl([1, 0], [1, 1]) == pytest.approx(np.log(2))
    assert kl([1, 1], [1, 0]) == pytest.approx(0.5 * np.log(0.5) + 0.5 * np.log(0.5 / 1e-9), rel=1e-6)
    assert kl([1, 2, 0], [2, 1, 0]) == pytest.approx(kl([1, 2], [2, 1]))
    assert psi([1, 2, 0], [2, 1, 0]) == pytest.approx(psi([1, 2], [2, 1]))
    assert 10 < psi([1, 1], [1, 0]) < 30


@pytest.mark.parametrize(
    ("p", "q"), [([1, 2], [1]), ([[1]], [[1]]), ([0, 0], [1, 1]), ([1, -1], [1, 1]), ([np.nan, 1], [1, 1])]
)
def test_what_is_no_histogram_is_refused(p: list[float], q: list[float]) -> None:
    """Unequal lengths, nothing in it, negative, NaN."""
    for divergence in (kl, psi):
        with pytest.raises(ValueError, match="histogram"):
            divergence(p, q)


def test_smoothing_leaves_no_bin_empty() -> None:
    """Jeffreys' half a count each."""
    assert smoothed([0, 3]).tolist() == pytest.approx([0.125, 0.875])
    for bad in ([], [[1]], [-1, 2], [np.inf, 1]):
        with pytest.raises(ValueError, match="counts"):
            smoothed(bad)


@pytest.mark.parametrize("n", [500, 5000])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_the_null_quantile_follows_the_chi_square_law(n: int, level: float) -> None:
    """2 n KL ~ chi-square with bins - 1 degrees of freedom when the baseline is known exactly (large) and full."""
    baseline = np.full(10, 10_000_000)
    expected = stats.chi2.ppf(level, 9) / (2 * n)
    assert null_quantile(baseline, n, level, draws=4000) == pytest.approx(expected, rel=0.1)


def test_a_small_baseline_widens_the_limit() -> None:
    """Its own sampling error counts: for equal sizes the divergence doubles."""
    known = null_quantile(np.full(10, 10_000_000), 1000, 0.95)
    estimated = null_quantile(np.full(10, 100), 1000, 0.95)
    assert estimated / known == pytest.approx(2, rel=0.2)


@pytest.mark.parametrize(("skew", "least", "most"), [(1.0, 0.03, 0.09), (400.0, 0.005, 0.06)], ids=["full", "sparse"])
def test_without_drift_the_alarm_is_as_rare_as_promised(skew: float, least: float, most: float) -> None:
    """Windows from the baseline's own truth: about 5 % exceed the 95 % limit, fewer where most bins are empty."""
    rng = np.random.default_rng(0)
    alarms = 0
    for i in range(60):
        truth = rng.dirichlet(np.geomspace(20, 20 / skew, BINS))
        baseline = rng.multinomial(1500, truth)
        limit = null_quantile(baseline, 300, 0.95, draws=300, seed=i)
        windows = rng.multinomial(300, truth, 20)
        alarms += sum(kl(smoothed(window), smoothed(baseline)) > limit for window in windows)
    assert least <= alarms / 1200 <= most


def test_a_drift_is_over_the_limit() -> None:
    """The line's defect probabilities move half a bin's share upwards."""
    baseline = np.array([800, 100, 50, 50])
    assert kl(smoothed([300, 50, 80, 70]), smoothed(baseline)) > null_quantile(baseline, 500, 0.999)


def test_the_null_quantile_is_reproducible_and_rises_with_the_level() -> None:
    """Same seed, same limit."""
    baseline = [90, 5, 5]
    limits = [null_quantile(baseline, 100, level) for level in (0.5, 0.9, 0.99, 0.999)]
    assert limits == sorted(limits)
    assert null_quantile(baseline, 100, 0.9) == limits[1]


@pytest.mark.parametrize(("n", "level"), [(0, 0.9), (10, 0.0), (10, 1.0), (10, float("nan"))])
def test_an_unusable_level_or_size_is_refused(n: int, level: float) -> None:
    """Level strictly between 0 and 1, at least one part."""
    with pytest.raises(ValueError, match="they must be"):
        null_quantile([1, 2], n, level)
