"""The daemon's state as a pure value: a phase that only goes forward, and conditions that come and go.

::

    BOOT -> VERIFY -> SELFTEST -> READY -> RUN -> STOPPED
    in READY and RUN: a warning shows as DEGRADED (verdicts go on), a hold as HOLD (every part is rejected)
    anywhere: a fault shows as FAULT and is latched

What is shown is the gravest of them. Only RUN and DEGRADED may pass a part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from appliance.words import State

PHASES = (State.BOOT, State.VERIFY, State.SELFTEST, State.READY, State.RUN, State.STOPPED)


@dataclass(frozen=True)
class Condition:
    """State of the daemon. Every step returns a new value.

    Attributes:
        phase: one of PHASES.
        warnings, holds: why, by what raised them, so that each can be cleared by the same.
        fault: why; empty where there is none.
    """

    phase: State = State.BOOT
    warnings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    holds: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    fault: str = ""

    @property
    def state(self) -> State:
        """What operators see."""
        if self.phase is State.STOPPED:
            return State.STOPPED
        if self.fault:
            return State.FAULT
        if self.phase in (State.READY, State.RUN):
            if self.holds:
                return State.HOLD
            if self.warnings:
                return State.DEGRADED
        return self.phase

    @property
    def reason(self) -> str:
        """Why it is so, for people; empty in good health."""
        return self.fault or "; ".join((*self.holds.values(), *self.warnings.values()))

    @property
    def rejects_all(self) -> bool:
        """Whether no part can pass now."""
        return self.state not in (State.RUN, State.DEGRADED)

    def enter(self, phase: State) -> Condition:
        """Go on to the next phase, or to STOPPED from anywhere. Raises ValueError on any other step."""
        if phase is not State.STOPPED and PHASES.index(phase) != PHASES.index(self.phase) + 1:
            raise ValueError(f"{self.phase.value} -> {phase.value} is no step of the state machine")
        return replace(self, phase=phase)

    def warn(self, source: str, why: str) -> Condition:
        """Something is not as it should be; verdicts go on."""
        return replace(self, warnings=MappingProxyType({**self.warnings, source: why}))

    def hold(self, source: str, why: str) -> Condition:
        """Reject every part until it is cleared."""
        return replace(self, holds=MappingProxyType({**self.holds, source: why}))

    def clear(self, source: str) -> Condition:
        """The cause of a warning or hold is gone."""
        warnings = {key: why for key, why in self.warnings.items() if key != source}
        holds = {key: why for key, why in self.holds.items() if key != source}
        return replace(self, warnings=MappingProxyType(warnings), holds=MappingProxyType(holds))

    def fail(self, why: str) -> Condition:
        """Latch a fault; the first one stays."""
        return self if self.fault else replace(self, fault=why)
