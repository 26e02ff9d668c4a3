"""Bounds on the escape rate: the quantile by exact arithmetic, the promises by simulation, the refusals by number."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from calibration.conformal import (
    binomial_cdf,
    confident_escape_bound,
    defect_scores,
    defects_needed,
    defects_needed_confidently,
    escape_bound,
)
from calibration.risk import conformal_quantile


@given(n=st.integers(0, 400), thousandths=st.integers(1, 999))
def test_the_quantile_is_that_of_exact_arithmetic(n: int, thousandths: int) -> None:
    """Every alpha of three decimals, every n: no rounding of (n + 1)(1 - alpha) moves the order by one."""
    scores = np.random.default_rng(n).permutation(np.arange(1, n + 1))
    order = math.ceil((n + 1) * (1 - Fraction(thousandths, 1000)))
    expected = order if order <= n else math.inf
    assert conformal_quantile(scores, thousandths / 1000) == expected


@pytest.mark.parametrize(
    ("n", "alpha", "expected"),
    [(19, 0.05, 19), (18, 0.05, math.inf), (9, 0.1, 9), (8, 0.1, math.inf), (2, 1 / 3, 2), (0, 0.5, math.inf)],
)
def test_quantiles_at_the_edge_of_too_few(n: int, alpha: float, expected: float) -> None:
    """(19 + 1) x 0.95 is 19 on paper, whatever it is in floats."""
    assert conformal_quantile(np.arange(1, n + 1), alpha) == expected


def test_infinite_scores_are_ordered_like_any_other() -> None:
    """A score of inf says: never covered."""
    assert conformal_quantile([1.0, np.inf, -np.inf], 0.5) == 1.0
    assert conformal_quantile([1.0, np.inf, 2.0], 0.25) == np.inf


@pytest.mark.parametrize(
    ("scores", "alpha", "told"),
    [
        ([0.1, np.nan], 0.1, r"1 scores are NaN \(first: row 1\)"),
        ([[0.1]], 0.1, "expected one row"),
        ([0.1], 0.0, "alpha is 0"),
        ([0.1], 1.0, "alpha is 1"),
        ([0.1], np.nan, "alpha is nan"),
    ],
)
def test_what_has_no_quantile_is_refused(scores: object, alpha: float, told: str) -> None:
    """NaN, a matrix, an alpha that is no share."""
    with pytest.raises(ValueError, match=told):
        conformal_quantile(scores, alpha)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31), n=st.integers(5, 60), alpha=st.sampled_from([0.05, 0.1, 0.2, 0.5]), ties=st.booleans()
)
def test_a_new_score_is_covered_as_often_as_promised(seed: int, n: int, alpha: float, ties: bool) -> None:  # fmt: skip
    """At least 1 - alpha, ties or not; without ties at most 1 / (n + 1) more: exactly, over which of n + 1 is new."""
    rng = np.random.default_rng(seed)
    pool = rng.integers(0, 6, n + 1).astype(float) if ties else rng.normal(size=n + 1)
    covered = np.mean([pool[i] <= conformal_quantile(np.delete(pool, i), alpha) for i in range(n + 1)])
    assert covered >= 1 - alpha - 1e-9
    if not ties:
        assert covered <= 1 - alpha + 1 / (n + 1) + 1e-9


def allowed_by_definition(scores: np.ndarray, alpha: float, threshold: float) -> bool:
    """n / (n + 1) R + 1 / (n + 1) <= alpha, in the words of the paper."""
    n = len(scores)
    return n / (n + 1) * float((scores <= threshold).mean()) + 1 / (n + 1) <= alpha + 1e-12


@settings(max_examples=100, deadline=None)
@given(
    scores=st.lists(st.integers(1, 20), min_size=1, max_size=80).map(lambda v: np.array(v) / 20),
    alpha=st.sampled_from([0.02, 0.05, 0.1, 0.25, 0.5, 0.9]),
)
def test_the_threshold_is_the_largest_that_conformal_risk_control_allows(scores: np.ndarray, alpha: float) -> None:
    """Ties included: it is allowed, and the next larger float is not."""
    if len(scores) < defects_needed(alpha):
        with pytest.raises(ValueError, match=f"at least {defects_needed(alpha)} are needed"):
            escape_bound(scores, np.ones(len(scores), bool), alpha)
        return
    found = escape_bound(scores, np.ones(len(scores), bool), alpha)
    assert allowed_by_definition(scores, alpha, found.threshold)
    assert not allowed_by_definition(scores, alpha, float(np.nextafter(found.threshold, 2)))
    assert (scores <= found.threshold).sum() <= found.allowed
    assert found.defects == len(scores)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(9, 60), alpha=st.sampled_from([0.1, 0.2, 0.5]), ties=st.booleans())
def test_a_new_defect_escapes_no_more_often_than_alpha(seed: int, n: int, alpha: float, ties: bool) -> None:
    """Exactly, over which of n + 1 defects is the new one."""
    rng = np.random.default_rng(seed)
    pool = rng.integers(1, 6, n + 1) / 6 if ties else rng.random(n + 1)
    every = np.ones(n, bool)
    escaped = [pool[i] <= escape_bound(np.delete(pool, i), every, alpha).threshold for i in range(n + 1)]
    assert np.mean(escaped) <= alpha + 1e-9
    if not ties:
        assert np.mean(escaped) >= alpha - 1 / (n + 1) - 1e-9


@pytest.mark.parametrize(("alpha", "needed"), [(0.01, 99), (0.005, 199), (0.001, 999), (0.05, 19), (0.5, 1), (0.9, 1)])
def test_the_number_of_defects_needed_in_mean(alpha: float, needed: int) -> None:
    """One fewer is refused, with the number; as many are enough, and none of them may pass."""
    assert defects_needed(alpha) == needed
    scores = np.linspace(0.5, 1, needed)
    found = escape_bound(scores, scores > 0, alpha)
    assert (found.allowed, found.method) == (math.floor((needed + 1) * alpha + 1e-9) - 1, "conformal risk control")
    with pytest.raises(ValueError, match=f"{needed - 1} defects are too few .* at least {needed} are needed"):
        escape_bound(scores[1:], scores[1:] > 0, alpha)


@pytest.mark.parametrize(("alpha", "needed"), [(0.01, 299), (0.005, 598), (0.001, 2995), (0.05, 59), (0.1, 29)])
def test_the_number_of_defects_needed_with_confidence(alpha: float, needed: int) -> None:
    """The known zero-escape sample sizes; no good part helps."""
    assert defects_needed_confidently(alpha) == needed
    scores = np.linspace(0.5, 1, needed)
    found = confident_escape_bound(scores, scores > 0, alpha)
    assert (found.allowed, found.method, found.confidence) == (0, "Clopper-Pearson", 0.95)
    with pytest.raises(ValueError, match=f"with 95% confidence: at least {needed} are needed"):
        confident_escape_bound(scores, np.arange(needed) > 0, alpha)


def test_too_few_defects_are_told_what_they_can_bound() -> None:
    """Thirty of them: 1 in 31 in mean, and what 0 of 30 excludes with confidence."""
    scores = np.linspace(0.1, 1, 30)
    with pytest.raises(ValueError, match=r"30 defects are too few .* at least 199 are needed; .* bound is 0\.0323"):
        escape_bound(scores, scores > 0, 0.005)
    limit = stats.binomtest(0, 30).proportion_ci(0.9, method="exact").high
    with pytest.raises(ValueError, match=f"bound is {limit:.3g}"):
        confident_escape_bound(scores, scores > 0, 0.005)


@given(n=st.integers(60, 800), alpha=st.sampled_from([0.05, 0.1, 0.3]), confidence=st.sampled_from([0.9, 0.95]))
@settings(max_examples=40, deadline=None)
def test_as_many_may_pass_as_the_clopper_pearson_limit_allows(n: int, alpha: float, confidence: float) -> None:
    """Against SciPy's exact interval: the upper limit is within alpha, and with one more escape it is not."""
    scores = np.linspace(0.01, 1, n)
    found = confident_escape_bound(scores, scores > 0, alpha, confidence=confidence)

    def upper(k: int) -> float:
        two_sided = 2 * confidence - 1
        return float(stats.binomtest(k, n).proportion_ci(two_sided, method="exact").high)

    assert upper(found.allowed) <= alpha + 1e-9 < upper(found.allowed + 1)
    assert (scores <= found.threshold).sum() == found.allowed


@given(n=st.integers(1, 3000), data=st.data(), share=st.floats(0.001, 0.999))
def test_the_binomial_law_is_that_of_scipy(n: int, data: st.DataObject, share: float) -> None:
    """Where 0.99 to the n underflows too."""
    k = data.draw(st.integers(0, n))
    assert binomial_cdf(k, n, share) == pytest.approx(stats.binom.cdf(k, n, share), abs=1e-9)


def test_with_confidence_the_bound_fails_in_few_calibration_sets() -> None:
    """Scores uniform, so that the threshold is the escape rate: 4000 calibration sets, at most 5 % fail, and not
    much fewer, or the bound would cost overkill for nothing."""
    rng = np.random.default_rng(0)
    every = np.ones(400, bool)
    thresholds = [confident_escape_bound(rng.random(400), every, 0.05).threshold for _ in range(4000)]
    exact = stats.binom.cdf(confident_escape_bound(rng.random(400), every, 0.05).allowed, 400, 0.05)
    assert exact <= 0.05
    assert np.mean(np.array(thresholds) > 0.05) == pytest.approx(exact, abs=4 * math.sqrt(exact / 4000))


def test_images_of_one_part_count_as_one_defect() -> None:
    """The one most likely to pass speaks for the part; images of good parts do not, in whatever group."""
    p = [0.9, 0.2, 0.7, 0.8, 0.1, 0.6]
    defect = [True, True, True, True, False, True]
    groups = ["a", "a", "b", "c", "c", "b"]
    assert defect_scores(p, defect, groups).tolist() == [0.2, 0.6, 0.8]
    assert escape_bound(p, defect, 0.25, groups).defects == 3
    with pytest.raises(ValueError, match=r"3 defects are too few .* at least 4 are needed"):
        escape_bound(p, defect, 0.2, groups)


def test_copies_of_a_part_are_no_evidence() -> None:
    """Nine images of each of twelve parts: taken for 108 defects they would promise 1 % and let 1 part in 13 escape."""
    rng = np.random.default_rng(1)
    every, groups = np.ones(108, bool), np.repeat(np.arange(12), 9)
    escaped = []
    for _ in range(2000):
        parts = rng.random(13)
        escaped.append(parts[12] <= escape_bound(np.repeat(parts[:12], 9), every, 0.01).threshold)
    assert np.mean(escaped) == pytest.approx(1 / 13, abs=0.025)
    with pytest.raises(ValueError, match=r"12 defects are too few .* at least 99 are needed"):
        escape_bound(rng.random(108), every, 0.01, groups)


def test_ties_at_the_limit_are_rejected() -> None:
    """Ten defects of the same probability: none of them may pass, though one would be allowed."""
    found = escape_bound(np.full(19, 0.5), np.ones(19, bool), 0.1)
    assert found.allowed == 1
    assert found.threshold == np.nextafter(0.5, 0)


@pytest.mark.parametrize(
    ("p", "defect", "alpha", "groups", "told"),
    [
        ([0.0] * 5, [True] * 5, 0.5, None, "probability of exactly 0"),
        ([0.5, np.nan], [True, True], 0.5, None, "row 1: the defect probability is nan"),
        ([0.5, 1.5], [True, True], 0.5, None, r"row 1: the defect probability is 1\.5"),
        ([0.5], [True, False], 0.5, None, "equal length"),
        ([0.5, 0.6], [True, True], 0.5, ["a"], "groups"),
        ([0.5], [True], 0.0, None, "alpha is 0"),
        ([], [], 0.5, None, "0 defects are too few"),
        ([0.5], [False], 0.5, ["a"], "0 defects are too few"),
    ],
)
def test_what_cannot_be_bounded_is_refused(
    p: list[float], defect: list[bool], alpha: float, groups: list[str] | None, told: str
) -> None:
    """By both methods."""
    for bound in (escape_bound, confident_escape_bound):
        with pytest.raises(ValueError, match=told):
            bound(p, defect, alpha, groups)


@pytest.mark.parametrize("confidence", [0.0, 1.0, float("nan")])
def test_a_confidence_is_a_share(confidence: float) -> None:
    """Neither none nor full."""
    with pytest.raises(ValueError, match="confidence is"):
        defects_needed_confidently(0.01, confidence)
