"""The daemon's state as a pure function of events: `step(condition, event)` gives the next condition and what to do.

::

    BOOT -> VERIFY -> SELFTEST -> READY -> RUN -> STOPPED            the phase: it only goes forward, but for a reset
    in READY and RUN: a hold shows as HOLD (no part passes)
    in RUN: a switch of bundles shows as SWITCH (verdicts go on: the old bundle's, then the one's on trial)
    in RUN: a warning shows as DEGRADED (verdicts go on)
    anywhere: a fault shows as FAULT (no part passes); latched, left only by an operator's reset through SELFTEST

What is shown is the gravest: FAULT, HOLD, SWITCH, DEGRADED, the phase. Only RUN, DEGRADED and SWITCH may pass a part.

A hold ends when its cause is gone. Those in ACKNOWLEDGED also wait for an operator, before or after that; the
operator's own ends with `Resume`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeAlias

from appliance.words import State

PHASES = (State.BOOT, State.VERIFY, State.SELFTEST, State.READY, State.RUN, State.STOPPED)
PASSING = (State.RUN, State.DEGRADED, State.SWITCH)

OPERATOR = "operator"
HARD_DRIFT = "hard drift"
CHALLENGE = "challenge"
REEVALUATION = "re-evaluation"
ACKNOWLEDGED = frozenset({HARD_DRIFT, CHALLENGE})
"""Holds that say something is wrong with the judging itself: a person must have looked."""


@dataclass(frozen=True)
class Enter:
    """Go on to the next phase, or to STOPPED from anywhere."""

    phase: State


@dataclass(frozen=True)
class Warn:
    """Something is not as it should be; verdicts go on."""

    source: str
    why: str


@dataclass(frozen=True)
class Hold:
    """No part passes until the cause is gone."""

    source: str
    why: str


@dataclass(frozen=True)
class Clear:
    """The cause of a warning or hold is gone."""

    source: str


@dataclass(frozen=True)
class Fail:
    """A fault; the first one stays."""

    why: str


@dataclass(frozen=True)
class Switching:
    """Another bundle is warmed, or on trial; `why` is empty when that is over."""

    why: str


@dataclass(frozen=True)
class Resume:
    """An operator lets the line go on: ends their own hold, acknowledges the others that need it."""

    who: str


@dataclass(frozen=True)
class Reset:
    """An operator has repaired what was at fault: prove everything again."""

    who: str


Event: TypeAlias = Enter | Warn | Hold | Clear | Fail | Switching | Resume | Reset


@dataclass(frozen=True)
class Audit:
    """To be written down: another state is shown, or an operator acted."""

    actor: str
    action: str
    new: str
    old: str


@dataclass(frozen=True)
class Alert:
    """To be acknowledged by an operator."""

    kind: str
    message: str


@dataclass(frozen=True)
class Prove:
    """Engine and cameras are to be started and proven anew."""


Effect: TypeAlias = Audit | Alert | Prove


def _texts() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True)
class Condition:
    """State of the daemon.

    Attributes:
        phase: one of PHASES.
        warnings, holds: why, by what raised them, so that each can be cleared by the same.
        gone: holds whose cause is gone and that wait for an operator.
        acknowledged: holds that an operator has acknowledged and whose cause is still there.
        fault: why; empty where there is none.
        switching: which bundle is being changed to; empty where none is.
    """

    phase: State = State.BOOT
    warnings: Mapping[str, str] = field(default_factory=_texts)
    holds: Mapping[str, str] = field(default_factory=_texts)
    gone: frozenset[str] = frozenset()
    acknowledged: frozenset[str] = frozenset()
    fault: str = ""
    switching: str = ""

    @property
    def state(self) -> State:
        """What operators see."""
        if self.phase is State.STOPPED:
            return State.STOPPED
        if self.fault:
            return State.FAULT
        if self.holds and self.phase in (State.READY, State.RUN):
            return State.HOLD
        if self.phase is State.RUN and self.switching:
            return State.SWITCH
        return State.DEGRADED if self.phase is State.RUN and self.warnings else self.phase

    @property
    def reason(self) -> str:
        """Why it is so, for people; empty in good health."""
        waiting = [
            f"{why} (over; `appliance resume` lets the line go on)" if source in self.gone else why
            for source, why in self.holds.items()
        ]
        return self.fault or "; ".join(filter(None, (*waiting, self.switching, *self.warnings.values())))

    @property
    def rejects_all(self) -> bool:
        """Whether no part can pass now."""
        return self.state not in PASSING

    @property
    def judges(self) -> bool:
        """Whether parts go to the engine: also in HOLD, since that is how the end of its cause can show."""
        return self.phase is State.RUN and not self.fault


def step(condition: Condition, event: Event) -> tuple[Condition, tuple[Effect, ...]]:
    """The condition after an event, and the effects to carry out, in order.

    Raises:
        ValueError: a phase that does not follow the present one. Every other event is allowed at any time.
    """
    after = _after(condition, event)
    effects: list[Effect] = []
    if after == condition:
        return condition, ()
    if isinstance(event, Resume | Reset):
        effects.append(Audit(event.who, type(event).__name__.lower(), after.reason, condition.reason))
    if after.state is not condition.state:
        effects.append(Audit("daemon", f"state {after.state.value}", after.reason, condition.state.value))
    if isinstance(event, Fail):
        effects.append(Alert("FAULT", event.why))
    if isinstance(event, Reset):
        effects.append(Prove())
    return after, tuple(effects)


def _after(condition: Condition, event: Event) -> Condition:
    match event:
        case Enter(phase):
            return _entered(condition, phase)
        case Warn(source, why):
            return replace(condition, warnings=_with(condition.warnings, source, why))
        case Hold(source, why):
            return replace(condition, holds=_with(condition.holds, source, why), gone=condition.gone - {source})
        case Clear(source):
            return _cleared(condition, source)
        case Fail(why):
            return condition if condition.fault or condition.phase is State.STOPPED else replace(condition, fault=why)
        case Switching(why):
            return replace(condition, switching=why)
        case Resume():
            return _resumed(condition)
        case Reset():
            if condition.state is not State.FAULT:
                return condition
            return replace(condition, phase=State.SELFTEST, fault="", warnings=_texts(), switching="")


def _entered(condition: Condition, phase: State) -> Condition:
    if phase is not State.STOPPED and PHASES.index(phase) != PHASES.index(condition.phase) + 1:
        raise ValueError(f"{condition.phase.value} -> {phase.value} is no step of the state machine")
    return replace(condition, phase=phase)


def _cleared(condition: Condition, source: str) -> Condition:
    condition = replace(condition, warnings=_without(condition.warnings, {source}))
    if source not in condition.holds:
        return condition
    if source in ACKNOWLEDGED - condition.acknowledged:
        return replace(condition, gone=condition.gone | {source})
    return _released(condition, {source})


def _resumed(condition: Condition) -> Condition:
    lasting = (ACKNOWLEDGED & condition.holds.keys()) - condition.gone
    condition = replace(condition, acknowledged=condition.acknowledged | lasting)
    return _released(condition, {OPERATOR, *condition.gone})


def _released(condition: Condition, sources: set[str]) -> Condition:
    return replace(
        condition,
        holds=_without(condition.holds, sources),
        gone=condition.gone - sources,
        acknowledged=condition.acknowledged - sources,
    )


def _with(texts: Mapping[str, str], source: str, why: str) -> Mapping[str, str]:
    return MappingProxyType({**texts, source: why})


def _without(texts: Mapping[str, str], sources: set[str]) -> Mapping[str, str]:
    return MappingProxyType({source: why for source, why in texts.items() if source not in sources})
