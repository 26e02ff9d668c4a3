"""The state machine: every state with every event, and every path hypothesis finds."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from appliance.probation import Probation
from appliance.state import (
    ACKNOWLEDGED,
    HARD_DRIFT,
    OPERATOR,
    PASSING,
    PHASES,
    Alert,
    Audit,
    Clear,
    Condition,
    Enter,
    Event,
    Fail,
    Hold,
    Prove,
    Reset,
    Resume,
    Switching,
    Warn,
    step,
)
from appliance.streaks import PICTURES, Streaks
from appliance.words import Reason, State


def after(condition: Condition, *events: Event) -> Condition:
    """The condition after these events."""
    for event in events:
        condition, _ = step(condition, event)
    return condition


def in_phase(phase: State) -> Condition:
    """Without warnings, holds or faults."""
    return after(Condition(), *(Enter(each) for each in PHASES[1 : PHASES.index(phase) + 1]))


RUNNING = in_phase(State.RUN)
CAUSES: dict[str, Event] = {
    "fault": Fail("it broke"),
    "hold": Hold("disk full", "no room"),
    "hard drift": Hold(HARD_DRIFT, "it drifts hard"),
    "switch": Switching("bundle new is on trial"),
    "warning": Warn("drift", "it drifts"),
}
EVENTS: tuple[Event, ...] = (
    *(Enter(phase) for phase in PHASES),
    Warn("drift", "it drifts"),
    Hold("disk full", "no room"),
    Hold(HARD_DRIFT, "it drifts hard"),
    Hold(OPERATOR, "a look at the belt"),
    Clear("drift"),
    Clear("disk full"),
    Clear(HARD_DRIFT),
    Clear(OPERATOR),
    Fail("it broke"),
    Switching("bundle new is warmed"),
    Switching(""),
    Resume("anna"),
    Reset("anna"),
)


def conditions() -> list[Condition]:
    """Every phase with every set of causes."""
    found = []
    for phase in PHASES:
        for chosen in product((False, True), repeat=len(CAUSES)):
            events = [event for event, wanted in zip(CAUSES.values(), chosen, strict=True) if wanted]
            found.append(after(in_phase(phase), *events))
    return found


def expected_state(condition: Condition) -> State:
    """What is shown, told in another way than the product tells it."""
    if condition.phase is State.STOPPED:
        return State.STOPPED
    order = (
        (State.FAULT, bool(condition.fault)),
        (State.HOLD, condition.phase in (State.READY, State.RUN) and bool(condition.holds)),
        (State.SWITCH, condition.phase is State.RUN and bool(condition.switching)),
        (State.DEGRADED, condition.phase is State.RUN and bool(condition.warnings)),
    )
    return next((state for state, shown in order if shown), condition.phase)


def test_every_state_with_every_event() -> None:
    """All pairs: the gravest shows, only RUN, DEGRADED and SWITCH pass parts, a fault is left by a reset alone."""
    shown = set()
    for condition, event in product(conditions(), EVENTS):
        legal = not isinstance(event, Enter) or (
            event.phase is State.STOPPED or PHASES.index(event.phase) == PHASES.index(condition.phase) + 1
        )
        if not legal:
            with pytest.raises(ValueError, match="no step"):
                step(condition, event)
            continue
        new, effects = step(condition, event)
        shown.add((condition.state, new.state))
        assert new.state is expected_state(new)
        assert new.rejects_all == (new.state not in PASSING)
        assert not new.rejects_all or new.state is not State.RUN
        if condition.state is State.FAULT and new.state not in (State.FAULT, State.STOPPED):
            assert isinstance(event, Reset)
            assert new.state is State.SELFTEST
            assert Prove() in effects
        if condition.phase is State.STOPPED:
            assert new.state is State.STOPPED
        audited = [e for e in effects if isinstance(e, Audit) and e.action.startswith("state ")]
        assert len(audited) == (new.state is not condition.state)
        if new == condition:
            assert effects == ()
    assert (State.RUN, State.HOLD) in shown
    assert {old for old, _ in shown} == set(State)


def test_a_fault_is_told_once() -> None:
    """One alert; the first reason stays."""
    broken, effects = step(RUNNING, Fail("first"))
    assert Alert("FAULT", "first") in effects
    assert step(broken, Fail("second")) == (broken, ())


@pytest.mark.parametrize("source", sorted(ACKNOWLEDGED))
def test_some_holds_need_the_cause_gone_and_an_operator(source: str) -> None:
    """In either order; only one of the two is not enough."""
    held = after(RUNNING, Hold(source, "why"))
    assert after(held, Clear(source)).state is State.HOLD
    assert "resume" in after(held, Clear(source)).reason
    assert after(held, Resume("anna")).state is State.HOLD
    assert after(held, Clear(source), Resume("anna")).state is State.RUN
    assert after(held, Resume("anna"), Clear(source)).state is State.RUN
    again = after(held, Resume("anna"), Clear(source), Hold(source, "again"), Clear(source))
    assert again.state is State.HOLD
    assert after(held, Clear(source), Hold(source, "back"), Resume("anna")).state is State.HOLD


def test_other_holds_end_with_their_cause() -> None:
    """And not by an operator's word."""
    held = after(RUNNING, Hold("disk full", "no room"))
    assert after(held, Resume("anna")).state is State.HOLD
    assert after(held, Clear("disk full")).state is State.RUN


def test_an_operators_hold_ends_by_an_operator() -> None:
    """Both are on record with the name."""
    held = after(RUNNING, Hold(OPERATOR, "anna: a look at the belt"))
    resumed, effects = step(held, Resume("bert"))
    assert resumed.state is State.RUN
    assert effects[0] == Audit("bert", "resume", "", "anna: a look at the belt")


def test_a_reset_keeps_the_holds() -> None:
    """What held the line before the fault still holds it after."""
    condition = after(RUNNING, Hold("disk full", "no room"), Fail("broken"), Reset("anna"))
    assert condition.state is State.SELFTEST
    assert after(condition, Enter(State.READY), Enter(State.RUN)).state is State.HOLD


class Paths(RuleBasedStateMachine):
    """Any events in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.condition = Condition()
        self.causes: set[str] = set()
        self.looked: set[str] = set()
        self.broken = False

    @rule(event=st.sampled_from(EVENTS))
    def happen(self, event: Event) -> None:
        """One event; a plain model of what must hold is kept beside it."""
        try:
            self.condition, _ = step(self.condition, event)
        except ValueError:
            assert isinstance(event, Enter)
            return
        if isinstance(event, Hold):
            self.causes.add(event.source)
            if event.source not in ACKNOWLEDGED:
                self.looked.add(event.source)
        elif isinstance(event, Clear):
            if event.source in self.looked:
                self.looked.discard(event.source)
            self.causes.discard(event.source)
        elif isinstance(event, Resume):
            self.causes.discard(OPERATOR)
        elif isinstance(event, Fail):
            self.broken = self.broken or self.condition.phase is not State.STOPPED
        elif isinstance(event, Reset):
            self.broken = self.broken and self.condition.phase is State.STOPPED

    @invariant()
    def nothing_passes_while_there_is_a_cause(self) -> None:
        """No path passes a part in a fault, with a hold whose cause is there, or outside RUN."""
        if not self.condition.rejects_all:
            assert self.condition.phase is State.RUN
            assert not self.broken
            assert not self.causes

    @invariant()
    def a_cause_always_holds(self) -> None:
        """Every cause shows among the holds, and what waits for an operator is among them too."""
        assert self.causes <= set(self.condition.holds)
        assert self.condition.gone <= set(self.condition.holds) & ACKNOWLEDGED
        assert self.condition.acknowledged <= set(self.condition.holds) & ACKNOWLEDGED
        assert not self.condition.gone & self.condition.acknowledged


Paths.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestPaths = Paths.TestCase


def test_rejects_in_a_row_hold_until_a_part_is_inspected() -> None:
    """Five that nothing could judge hold, whatever their reasons; a judged part lets go."""
    streaks = Streaks(5)
    reasons = (Reason.STALE, Reason.LATE, Reason.ENGINE, Reason.BAD_IMAGE)
    assert [streaks.see("top", reason) for reason in reasons] == [()] * 4
    (held,) = streaks.see("top", Reason.NO_FRAME)
    assert isinstance(held, Hold)
    assert "5 parts in a row" in held.why
    assert streaks.see("top", Reason.NO_FRAME) == ()
    assert streaks.see("top", Reason.DEFECT) == (Clear(held.source),)


@pytest.mark.parametrize("breaker", [Reason.NONE, Reason.DEFECT, Reason.UNSURE])
def test_an_inspected_part_ends_the_row(breaker: Reason) -> None:
    """Four, one inspected, four: no hold. Another camera's parts are another row."""
    streaks = Streaks(5)
    for reason in (*[Reason.LATE] * 4, breaker, *[Reason.LATE] * 4):
        assert streaks.see("top", reason) == ()
        assert not any(isinstance(event, Hold) for event in streaks.see("side", Reason.NONE))


def test_parts_rejected_by_a_hold_are_no_new_cause() -> None:
    """Otherwise a hold would keep itself alive."""
    streaks = Streaks(5)
    assert [streaks.see("top", Reason.HOLD) for _ in range(20)] == [()] * 20


def test_three_equal_pictures_hold_until_another_is_judged() -> None:
    """The first repeat is a reject, the second, which is the third equal picture, a hold."""
    streaks = Streaks(100)
    assert streaks.see("top", Reason.NONE) == ()
    assert streaks.see("top", Reason.STALE) == ()
    (held,) = streaks.see("top", Reason.STALE)
    assert held == Hold("frozen top", f"camera top: the same picture {PICTURES} times")
    assert streaks.see("top", Reason.STALE) == streaks.see("top", Reason.NO_FRAME) == ()
    assert streaks.see("top", Reason.UNSURE) == (Clear("frozen top"),)


def test_a_trial_needs_parts_and_time() -> None:
    """Not the one without the other."""
    trial = Probation(frames=3, seconds=1.0, late_share=0.5, began_ns=0)
    for reason in (Reason.NONE, Reason.DEFECT, Reason.NO_FRAME, Reason.HOLD):
        trial.see(reason)
    assert not trial.stood(2 * 10**9)
    trial.see(Reason.UNSURE)
    assert not trial.stood(10**9 - 1)
    assert trial.stood(10**9)
    assert trial.describe(5 * 10**8) == "3 of 3 parts, 0 of 1 s"


@given(st.lists(st.sampled_from(list(Reason)), max_size=60), st.integers(0, 20), st.floats(0, 1))
def test_a_trial_fails_by_its_own_engine_or_its_late_parts(reasons: list[Reason], frames: int, share: float) -> None:
    """And by nothing else that a part says; what has failed never stands."""
    trial = Probation(frames, 0.0, share, 0)
    for reason in reasons:
        trial.see(reason)
    failed = Reason.ENGINE in reasons or reasons.count(Reason.LATE) > share * frames
    assert bool(trial.failure) == failed
    assert not (failed and trial.stood(10**12))
