"""Escapes against overkill: intervals, curves and thresholds, each against brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from calibration.conformal import escape_bound
from calibration.decision import Decision, DecisionRule
from calibration.risk import (
    Costs,
    choose_thresholds,
    cost_curve,
    cost_per_part,
    escape_at_overkill,
    escape_overkill_curve,
    mean_escape,
    wilson,
)

parts = st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=14)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (1, 10, 0.0179, 0.4042),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilson_against_published_values(successes: int, trials: int, low: float, high: float) -> None:
    """The last is Newcombe 1998, table I."""
    interval = wilson(successes, trials)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


@given(trials=st.integers(1, 3000), data=st.data(), level=st.sampled_from([0.8, 0.9, 0.95, 0.999]))
def test_wilson_is_that_of_scipy(trials: int, data: st.DataObject, level: float) -> None:
    """And holds its estimate."""
    successes = data.draw(st.integers(0, trials))
    ours = wilson(successes, trials, level)
    theirs = stats.binomtest(successes, trials).proportion_ci(level, method="wilson")
    assert ours.low == pytest.approx(theirs.low, abs=1e-9)
    assert ours.high == pytest.approx(theirs.high, abs=1e-9)
    assert 0 <= ours.low <= ours.value <= ours.high <= 1


def test_no_trials_say_nothing() -> None:
    """Anything from 0 to 1."""
    interval = wilson(0, 0)
    assert math.isnan(interval.value)
    assert (interval.low, interval.high) == (0, 1)


@pytest.mark.parametrize(("successes", "trials"), [(3, 2), (-1, 2)])
def test_impossible_counts_are_refused(successes: int, trials: int) -> None:
    """More successes than trials."""
    with pytest.raises(ValueError, match="successes in"):
        wilson(successes, trials)


@given(parts=parts)
def test_the_curve_is_what_counting_gives(parts: list[tuple[int, bool]]) -> None:
    """At every threshold, ties and missing kinds included."""
    p, d = np.array([v / 8 for v, _ in parts]), np.array([x for _, x in parts])
    curve = escape_overkill_curve(p, d)
    assert curve.threshold.tolist() == [-np.inf, *sorted(set(p.tolist()))]
    for t, escape, overkill in zip(curve.threshold, curve.escape, curve.overkill, strict=True):
        passed = p <= t
        assert np.isnan(escape) if not d.any() else escape == pytest.approx(passed[d].mean())
        assert np.isnan(overkill) if d.all() else overkill == pytest.approx((~passed[~d]).mean())


@given(parts=parts, limit=st.sampled_from([0.0, 0.1, 0.2, 1 / 3, 0.5, 1.0]))
def test_escape_at_overkill_is_the_least_escape_within_the_limit(parts: list[tuple[int, bool]], limit: float) -> None:
    """Tried with every threshold; NaN where one kind is missing."""
    p, d = np.array([v / 8 for v, _ in parts]), np.array([x for _, x in parts])
    found = escape_at_overkill(p, d, limit)
    if d.all() or not d.any():
        assert math.isnan(found)
        return
    tried = [(p[d] <= t).mean() for t in (-1, *p) if (p[~d] > t).mean() <= limit + 1e-12]
    assert found == pytest.approx(min(tried))


def test_a_perfect_and_a_useless_ranking() -> None:
    """No escapes; as many escapes as the line passes good parts."""
    d = np.repeat([False, True], 50)
    assert escape_at_overkill(np.linspace(0, 1, 100), d) == 0
    assert escape_at_overkill(np.tile(np.linspace(0, 1, 50), 2), d, 0.1) == pytest.approx(0.9)


@given(parts=parts, limit=st.sampled_from([0.05, 0.2, 0.5, 0.99]))
def test_the_mean_escape_is_one_less_the_partial_auc(parts: list[tuple[int, bool]], limit: float) -> None:
    """scikit-learn gives McClish's standardised area; ties and a limit between two steps of the curve included."""
    p, d = np.array([v / 8 for v, _ in parts]), np.array([x for _, x in parts])
    assume(d.any() and not d.all())
    least = limit**2 / 2
    area = least + (2 * roc_auc_score(d, p, max_fpr=limit) - 1) * (limit - least)
    assert mean_escape(p, d, limit) == pytest.approx(1 - area / limit, abs=1e-9)


def test_the_mean_escape_needs_both_kinds_of_parts() -> None:
    """Without defects nothing escapes, without good parts nothing is scrapped: neither has a curve."""
    for label in (True, False):
        assert math.isnan(mean_escape([0.2, 0.8], [label, label], 0.2))


@pytest.mark.parametrize(("p", "d"), [([0.1, float("nan")], [True, False]), ([0.1], [True, False]), ([], [])])
def test_scores_that_cannot_be_cut_are_refused(p: list[float], d: list[bool]) -> None:
    """NaN, unequal lengths, none."""
    with pytest.raises(ValueError, match=r"scores"):
        escape_overkill_curve(p, d)


def cost_of(p: np.ndarray, d: np.ndarray, low: float, high: float, costs: Costs, prevalence: float | None) -> float:
    """Mean cost per part of two thresholds, by asking the decision rule about every part."""
    rule = DecisionRule(("ok", "bad"), "ok", 1.0, low, high, "", "")
    share = d.mean() if prevalence is None else prevalence
    total = 0.0
    for value, defect in zip(p.tolist(), d.tolist(), strict=True):
        decision = rule.decide_probability(value)
        weight = share / d.sum() if defect else (1 - share) / (~d).sum()
        if decision is Decision.UNSURE:
            total += weight * costs.review
        elif decision is Decision.OK and defect:
            total += weight * costs.escape
        elif decision is Decision.DEFECT and not defect:
            total += weight * costs.overkill
    return total


def all_thresholds(p: np.ndarray) -> list[tuple[float, float]]:
    """Every pair that treats the parts differently."""
    cuts = sorted({0.0, 1.0, *p.tolist()})
    cuts += [float(np.nextafter(c, 2.0)) for c in cuts if c < 1] + [(a + b) / 2 for a, b in itertools.pairwise(cuts)]
    return [(low, high) for low in cuts for high in cuts if low < high]


price = st.sampled_from([0.1, 0.4, 0.5, 0.9, 1.0, 2.0, 5.0, 20.0])


@settings(max_examples=150, deadline=None)
@given(parts=parts, escape=price, overkill=price, review=price, prevalence=st.sampled_from([None, 0.01, 0.3]))
def test_no_pair_of_thresholds_is_cheaper(
    parts: list[tuple[int, bool]], escape: float, overkill: float, review: float, prevalence: float | None
) -> None:
    """Any costs, reviews dearer than scrap included; scores of exactly 0 and 1 included. The cost told is the cost."""
    p, d = np.array([v / 8 for v, _ in parts]), np.array([x for _, x in parts])
    assume(d.any() and not d.all())
    costs = Costs(escape, overkill, review)
    found = choose_thresholds(p, d, costs, prevalence)
    assert 0 <= found.ok_below < found.defect_above <= 1
    ours = cost_of(p, d, found.ok_below, found.defect_above, costs, prevalence)
    assert found.cost_per_part == pytest.approx(ours, abs=1e-9)
    best = min(cost_of(p, d, low, high, costs, prevalence) for low, high in all_thresholds(p))
    assert ours == pytest.approx(best, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(
    p=st.lists(st.floats(0, 1), min_size=2, max_size=12),
    data=st.data(),
    neighbours=st.booleans(),
)
def test_the_cost_told_is_the_cost_for_any_scores(p: list[float], data: st.DataObject, neighbours: bool) -> None:
    """Neighbouring floats, denormals and values next to 0 and 1 are cut where the search cut them."""
    if neighbours:
        p = [*p, *(float(np.nextafter(v, 2.0)) for v in p if v < 1)]
    d = np.array(data.draw(st.lists(st.booleans(), min_size=len(p), max_size=len(p))))
    assume(d.any() and not d.all())
    scores = np.array(p)
    found = choose_thresholds(scores, d, Costs())
    told = cost_of(scores, d, found.ok_below, found.defect_above, Costs(), None)
    assert found.cost_per_part == pytest.approx(told, abs=1e-9)
    again = cost_per_part(scores, d, Costs(), found.ok_below, found.defect_above)
    assert again == pytest.approx(told, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(
    parts=parts,
    escape=price,
    overkill=price,
    review=price,
    limit=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.99, 1.0]),
)
def test_a_limit_of_ok_below_is_kept_at_the_least_cost(
    parts: list[tuple[int, bool]], escape: float, overkill: float, review: float, limit: float
) -> None:
    """Against every pair of thresholds whose lower one keeps it."""
    p, d = np.array([v / 8 for v, _ in parts]), np.array([x for _, x in parts])
    assume(d.any() and not d.all())
    costs = Costs(escape, overkill, review)
    found = choose_thresholds(p, d, costs, ok_at_most=limit)
    assert 0 <= found.ok_below <= limit
    assert found.ok_below < found.defect_above <= 1
    ours = cost_of(p, d, found.ok_below, found.defect_above, costs, None)
    assert found.cost_per_part == pytest.approx(ours, abs=1e-9)
    best = min(cost_of(p, d, low, high, costs, None) for low, high in all_thresholds(p) if low <= limit)
    assert ours == pytest.approx(best, abs=1e-9)


def test_an_escape_bound_is_kept_by_the_thresholds_it_limits() -> None:
    """Cheap escapes alone would pass far more; the bound's share of defects passes, and no more."""
    rng = np.random.default_rng(4)
    d = rng.random(3000) < 0.1
    p = 1 / (1 + np.exp(-(rng.normal(0, 1.5, 3000) + np.where(d, 1.5, -1.5))))
    cheap = Costs(escape=1, overkill=1, review=0.5)
    bound = escape_bound(p, d, 0.02)
    bounded, free = choose_thresholds(p, d, cheap, ok_at_most=bound.threshold), choose_thresholds(p, d, cheap)
    assert (p[d] <= free.ok_below).mean() > 0.1
    assert bounded.ok_below <= bound.threshold
    assert (p[d] <= bounded.ok_below).mean() <= bound.allowed / bound.defects
    assert bounded.cost_per_part > free.cost_per_part


@given(parts=parts, prevalence=st.sampled_from([None, 0.01, 0.3]))
def test_the_cost_curve_is_the_cost_of_each_threshold(parts: list[tuple[int, bool]], prevalence: float | None) -> None:
    """Each threshold tried as a rule without a band of doubt; the cheapest is the least, and passes least of equals."""
    p, d = np.array([v / 8 for v, _ in parts]), np.array([x for _, x in parts])
    assume(d.any() and not d.all())
    costs = Costs(escape=3, overkill=2)
    curve = cost_curve(p, d, costs, prevalence)
    share = d.mean() if prevalence is None else prevalence
    for t, cost in zip(curve.threshold, curve.cost, strict=True):
        passed = p <= t
        assert cost == pytest.approx(share * 3 * passed[d].mean() + (1 - share) * 2 * (~passed[~d]).mean())
    assert curve.cost[0] == pytest.approx((1 - share) * 2)
    assert curve.cheapest == list(curve.cost).index(min(curve.cost))


def test_dearer_escapes_pass_fewer_parts() -> None:
    """And cheaper reviews widen the band of doubt."""
    rng = np.random.default_rng(0)
    d = rng.random(2000) < 0.2
    p = 1 / (1 + np.exp(-(rng.normal(0, 1.5, 2000) + np.where(d, 1.5, -1.5))))
    limits = [choose_thresholds(p, d, Costs(escape, 1, 0.5)).ok_below for escape in (2, 20, 200)]
    assert limits == sorted(limits, reverse=True)
    cheap, dear = choose_thresholds(p, d, Costs(20, 1, 0.05)), choose_thresholds(p, d, Costs(20, 1, 0.9))
    assert cheap.defect_above - cheap.ok_below > dear.defect_above - dear.ok_below


def test_on_calibrated_scores_the_thresholds_are_those_of_decision_theory() -> None:
    """Pass while escape x p < review, scrap from where overkill x (1 - p) < review."""
    rng = np.random.default_rng(1)
    p = rng.random(60_000)
    found = choose_thresholds(p, rng.random(60_000) < p, Costs(escape=5, overkill=2, review=0.5))
    assert found.ok_below == pytest.approx(0.5 / 5, abs=0.03)
    assert found.defect_above == pytest.approx(1 - 0.5 / 2, abs=0.03)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["escape", "overkill", "review"])
def test_a_cost_that_is_no_price_is_refused(name: str, value: float) -> None:
    """It names which."""
    with pytest.raises(ValueError, match=f"cost of {name}"):
        Costs(**{name: value})


@pytest.mark.parametrize(
    ("p", "d", "prevalence", "told"),
    [
        ([0.1, 0.2], [False, False], None, "there are 0 and 2"),
        ([0.1, 0.2], [True, True], None, "there are 2 and 0"),
        ([0.1, 0.2], [False, True], 0.0, "prevalence is 0"),
        ([0.1, 0.2], [False, True], 1.0, "prevalence is 1"),
        ([0.1, 0.2], [False, True], float("nan"), "prevalence is nan"),
        ([0.1, 1.2], [False, True], None, "not in 0..1"),
        ([-0.1, 0.2], [False, True], None, "not in 0..1"),
        ([0.1, float("nan")], [False, True], None, "not finite"),
    ],
)
def test_thresholds_need_both_kinds_and_probabilities(
    p: list[float], d: list[bool], prevalence: float | None, told: str
) -> None:
    """Each refusal says what is wrong."""
    with pytest.raises(ValueError, match=told):
        choose_thresholds(p, d, Costs(), prevalence)


@pytest.mark.parametrize("limit", [-1e-9, 1.1, float("nan")])
def test_a_limit_outside_of_0_to_1_is_refused(limit: float) -> None:
    """Nothing could pass below 0, and a limit above 1 is none."""
    with pytest.raises(ValueError, match="ok_at_most is"):
        choose_thresholds([0.1, 0.9], [False, True], Costs(), ok_at_most=limit)


def test_a_cost_curve_needs_both_kinds() -> None:
    """Without defects every escape rate would do."""
    with pytest.raises(ValueError, match="there are 0 and 2"):
        cost_curve([0.1, 0.2], [False, False], Costs())
