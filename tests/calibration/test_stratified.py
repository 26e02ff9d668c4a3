"""Escape and overkill on the line, from people's word on a random part of the parts."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.reevaluation import SETTINGS, Setting, measure
from calibration.risk import wilson
from calibration.stratified import LineRates, Stratum, is_beyond, line_rates
from calibration.values import Interval


def strata() -> st.SearchStrategy[Stratum]:
    """Anything that a line may leave."""

    def of(parts: int, judged: float, defects: float, expected: float) -> Stratum:
        by_people = round(judged * parts)
        return Stratum(parts, expected * parts, by_people, round(defects * by_people))

    share = st.floats(0, 1)
    return st.builds(of, st.integers(0, 2_000_000), share, share, share)


@pytest.mark.parametrize("setting", [SETTINGS[0], SETTINGS[3]])
def test_intervals_cover_the_truth_as_often_as_they_say(setting: Setting) -> None:
    """95 % intervals hold on at least 93 % of 400 simulated lines, less three standard errors."""
    found = measure(setting, 400, draws=2000)
    assert min(found.escape_held, found.overkill_held) >= 0.93 - 3 * math.sqrt(0.93 * 0.07 / 400)
    assert found.false_alarms <= 0.01


def test_where_every_part_was_judged_nothing_is_left_to_chance() -> None:
    """The rates are counts; both limits are the value."""
    rates = line_rates(Stratum(900, 10, 900, 9), [Stratum(60, 30, 60, 30), Stratum(61, 60, 61, 61)])
    assert rates.escape == Interval(0.09, 0.09, 0.09)
    assert rates.overkill == Interval(30 / 921, 30 / 921, 30 / 921)


def test_a_sample_stands_for_all_parts_of_its_decision() -> None:
    """1 of 100 judged passes was a defect, of 10,000: so were about 100; all 100 DEFECT ones were judged."""
    rates = line_rates(Stratum(10_000, 0, 100, 1), [Stratum(100, 0, 100, 100)])
    assert rates.escape.value == pytest.approx(0.5)
    by_binomial = wilson(1, 100)
    low, high = (10_000 * p / (10_000 * p + 100) for p in (by_binomial.low, by_binomial.high))
    assert rates.escape.low == pytest.approx(low, abs=0.08)
    assert rates.escape.high == pytest.approx(high, abs=0.03)


def test_what_nobody_has_looked_at_may_be_anything() -> None:
    """No value, and nearly the whole range."""
    for passed, rejected in ((Stratum(1000), Stratum(50, 0, 50, 50)), (Stratum(1000, 0, 0, 0), Stratum(50))):
        rates = line_rates(passed, [rejected])
        assert math.isnan(rates.escape.value)
        assert rates.escape.high > 0.95


def test_the_models_own_word_comes_from_its_probabilities() -> None:
    """Of 20 defects that it expects it lets 2 pass; of 980 good parts it rejects 82."""
    rates = line_rates(Stratum(900, 2.0), [Stratum(60, 3.0), Stratum(40, 15.0)])
    assert (rates.expected_escape, rates.expected_overkill) == (pytest.approx(0.1), pytest.approx(82 / 980))
    empty = line_rates(Stratum(), [])
    assert math.isnan(empty.expected_escape)
    assert math.isnan(empty.escape.value)


@example(passed=Stratum(26, 0.0, 26, 26), unsure=Stratum(), defect=Stratum(109, 0.0, 54, 51))
@given(passed=strata(), unsure=strata(), defect=strata())
def test_rates_and_limits_are_shares_around_the_value(passed: Stratum, unsure: Stratum, defect: Stratum) -> None:
    """Whatever was found."""
    rates = line_rates(passed, [unsure, defect], draws=200)
    for rate in (rates.escape, rates.overkill):
        assert 0 <= rate.low <= rate.high <= 1
        assert math.isnan(rate.value) or rate.low <= rate.value <= rate.high


def test_an_alarm_needs_a_found_rate_and_all_but_certainty() -> None:
    """9 of 100 judged passes bad against 2 % stated is one; 1 of 100 is none, and a guess never is."""
    passed, rejected = Stratum(1000, 0, 100, 9), Stratum(300, 0, 300, 300)

    def beyond(rates: LineRates, stated: float) -> bool:
        return is_beyond(rates.escape, rates.escape_draws, stated, 0.001)

    assert beyond(line_rates(passed, [rejected]), 0.02)
    assert not beyond(line_rates(passed, [rejected]), 0.15)
    assert not beyond(line_rates(replace(passed, defects=1), [rejected]), 0.02)
    assert not beyond(line_rates(Stratum(10**7), [Stratum(10, 0, 10, 10)]), 0.02)


@pytest.mark.parametrize("values", [(5, 0, 6, 0), (5, 0, 3, 4), (5, 6, 0, 0), (-1, 0, 0, 0), (5, float("nan"), 0, 0)])
def test_counts_that_cannot_be_are_refused(values: tuple[int, float, int, int]) -> None:
    """More judged than there were, more defects than judged, more expected than parts."""
    with pytest.raises(ValueError, match="do not hold"):
        Stratum(*values)
