"""The campaign's own promises: mutants are found, and a summary is good only when everything is."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.faults.campaign import Outcome, summarise
from tests.faults.simulator.checks import Findings
from tests.faults.simulator.plan import USUAL, Plan, may_pass
from tests.faults.simulator.world import Kind
from tests.faults.trials import short_trial

REQUIRED = ("synchronous OFF", "missing checksum test", "late PASS allowed", "stale frame reused")


@pytest.mark.parametrize("mutant", REQUIRED)
def test_a_mutant_is_found(mutant: str) -> None:
    """An appliance with this promise broken fails the checks; all other mutants are part of `make faults`."""
    assert short_trial(mutant, seed=1)


def outcome(**changes: object) -> Outcome:
    """Of a line on which all was well, but for the changes."""
    findings = Findings(parts=100, passed=50)
    for name, value in changes.items():
        setattr(findings, name, value)
    return Outcome(findings, Counter({"frame BLACK": 5, "clock jump": 10}), Counter({"engine": 4}), [1.0, 2.0])


def test_a_summary_adds_up_and_is_good() -> None:
    """Two lines on which all was well."""
    summary = summarise([outcome(), outcome()], {"a": "found"}, (200, 20, 8), seed=3, seconds=1.0)
    assert summary.good
    assert (summary.triggers, summary.faults, summary.kills) == (200, 30, 8)
    assert summary.start_s == {"median": 2.0, "worst": 2.0}


@pytest.mark.parametrize(
    ("changes", "mutants", "asked"),
    [
        ({"wrong_pass": 1}, {"a": "x"}, (0, 0, 0)),
        ({"lost_rows": 1}, {"a": "x"}, (0, 0, 0)),
        ({"no_row": 1}, {"a": "x"}, (0, 0, 0)),
        ({"two_rows": 1}, {"a": "x"}, (0, 0, 0)),
        ({"strange_rows": 1}, {"a": "x"}, (0, 0, 0)),
        ({"too_early": 1}, {"a": "x"}, (0, 0, 0)),
        ({"broken": ["integrity_check: no"]}, {"a": "x"}, (0, 0, 0)),
        ({}, {"a": ""}, (0, 0, 0)),
        ({}, {"a": "x"}, (101, 0, 0)),
        ({}, {"a": "x"}, (0, 11, 0)),
        ({}, {"a": "x"}, (0, 0, 5)),
    ],
)
def test_anything_wrong_makes_a_summary_bad(
    changes: dict[str, object], mutants: dict[str, str], asked: tuple[int, int, int]
) -> None:
    """One wrong PASS, one lost row, one mutant not found, too little done."""
    assert not summarise([outcome(**changes)], mutants, asked, seed=3, seconds=1.0).good


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
