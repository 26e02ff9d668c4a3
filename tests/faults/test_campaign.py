"""The campaign's own promises: mutants are found, and a summary is good only when everything is."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from appliance.ring import checksum
from tests.faults.campaign import Amount, Outcome, summarise
from tests.faults.session import KINDS, by_class
from tests.faults.simulator.checks import Findings
from tests.faults.simulator.plan import USUAL, Plan, may_pass, number_of, pool, stamped
from tests.faults.simulator.planted import PLANTED
from tests.faults.simulator.world import Kind
from tests.faults.trials import CASES, Trial, trial
from tests.support.tiny import tiny_spec

REQUIRED = ("synchronous OFF", "missing checksum test", "late PASS allowed", "stale frame reused")
HONEST = Trial("", "", caught=False)
FOUND = {"": HONEST, "a": Trial("wrong_pass 1", "", caught=True)}
NOTHING = Amount(0, 0, 0, 0)


@pytest.mark.parametrize("mutant", REQUIRED)
def test_a_mutant_is_found(mutant: str) -> None:
    """An appliance with this promise broken fails the checks; all other mutants are part of `make faults`."""
    held = trial(mutant, seed=1)
    assert held.caught, held


def test_every_mutant_has_its_situation() -> None:
    """None is planted for which no trial is made, and the trial of an honest appliance leaves none out."""
    assert set(CASES) == set(PLANTED) - {""}


def outcome(**changes: object) -> Outcome:
    """Of a line on which all was well, but for the changes."""
    findings = Findings(parts=100, passed=50)
    for name, value in changes.items():
        setattr(findings, name, value)
    faults = Counter({**dict.fromkeys(KINDS, 2), "frame BLACK": 5})
    return Outcome(findings, faults, Counter({"engine": 4}), [1.0, 2.0])


def test_a_summary_adds_up_and_is_good() -> None:
    """Two lines on which all was well."""
    summary = summarise([outcome(), outcome()], FOUND, Amount(200, 6, 4, 8), seed=3, seconds=1.0)
    assert summary.good, summary
    assert (summary.triggers, summary.faults, summary.kills) == (200, 4 * len(KINDS) + 6, 8)
    assert (summary.mutants_planted, summary.mutants_caught) == (1, 1)
    assert summary.start_s == {"median": 2.0, "worst": 2.0}


@pytest.mark.parametrize(
    "changes",
    [
        {"wrong_pass": 1},
        {"lost_rows": 1},
        {"no_row": 1},
        {"two_rows": 1},
        {"strange_rows": 1},
        {"judged_bad": 1},
        {"too_early": 1},
        {"broken": ["integrity_check: no"]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_anything_wrong_makes_a_summary_bad(changes: dict[str, object]) -> None:
    """One wrong PASS, one lost row, one broken promise."""
    assert not summarise([outcome(**changes)], FOUND, NOTHING, seed=3, seconds=1.0).good


@pytest.mark.parametrize(
    "trials",
    [
        {"": HONEST, "a": Trial("", "", caught=False)},
        {"": HONEST, "a": Trial("no_row 1", "", caught=False)},
        {"": HONEST, "a": Trial("", "the situation was not met", caught=False)},
        {"": Trial("no_row 1", "", caught=False), "a": FOUND["a"]},
        {"a": FOUND["a"]},
    ],
    ids=["not found", "found by another count", "not held", "honest one accused", "honest one not tried"],
)
def test_trials_that_prove_nothing_make_a_summary_bad(trials: dict[str, Trial]) -> None:
    """A mutant that was not caught, and an honest appliance that was."""
    assert not summarise([outcome()], trials, NOTHING, seed=3, seconds=1.0).good


@pytest.mark.parametrize(
    ("amount", "what"),
    [
        (Amount(101, 0, 0, 0), "parts"),
        (Amount(0, 50, 0, 0), "engine and timing"),
        (Amount(0, 0, 3, 0), "clock jump"),
        (Amount(0, 0, 0, 5), "kills"),
    ],
)
def test_too_little_done_makes_a_summary_bad(amount: Amount, what: str) -> None:
    """Parts, faults of each class, of each kind, and kills."""
    summary = summarise([outcome()], FOUND, amount, seed=3, seconds=1.0)
    assert not summary.good
    assert any(text.startswith(what) for text in summary.short_of)


def test_every_kind_of_fault_is_of_one_class() -> None:
    """So none is left out of the sums."""
    assert sum(by_class(Counter(dict.fromkeys(KINDS, 1))).values()) == len(KINDS)


def test_a_plan_is_the_same_for_the_same_seed_and_has_every_fault() -> None:
    """All kinds appear at about their rates, another seed gives another plan, and only clean good parts may pass."""
    plan = Plan(5, USUAL)
    drawn = [plan.draw(n) for n in range(20_000)]
    assert drawn == [Plan(5, USUAL).draw(n) for n in range(20_000)]
    assert drawn != [Plan(6, USUAL).draw(n) for n in range(20_000)]
    counts = Counter(kind for kind, _ in drawn)
    for kind, rate in USUAL.items():
        assert 0.4 * rate < counts[kind] / 20 < 2.0 * rate, kind
    assert {kind for kind, index in drawn if may_pass(kind, index)} == {Kind.CLEAN}


def test_a_tensor_tells_which_part_it_shows_where_its_checksum_does_not() -> None:
    """A good and a bad part with the same CRC-32, found by a campaign that took the good one for the bad one."""
    frames = pool()
    good, bad = (tiny_spec().apply(stamped(frames[picture], n)) for picture, n in ((0, 13_077), (54, 5_478)))
    assert checksum(good) == checksum(bad)
    assert (number_of(good), number_of(bad)) == (13_077, 5_478)
    assert number_of(tiny_spec().apply(frames[0])) is None
    drawn = Random(3).sample(range(1 << 20), 200)
    assert [number_of(tiny_spec().apply(stamped(frames[n % len(frames)], n))) for n in drawn] == drawn
