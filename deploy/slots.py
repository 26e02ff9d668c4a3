"""The two slots of a device, as a pure state machine: no files, no clock.

::

    empty | rejected | confirmed (not the active one) --stage--> staged --activate--> trial --confirm--> confirmed
    staged | trial --reject--> rejected          active confirmed --rollback--> rejected, the other one judges again
    trial --attempt--> trial, counted; with TRIES attempts of which none came to an end --attempt--> rejected

The *active* slot holds the bundle that judges. The *last confirmed* bundle is the active one, or while that is
still on trial the other one; it is what a failed trial falls back to, so neither is ever overwritten. What the state
can be told from is derived, never stored twice: a record that contradicts itself cannot be made.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal

from calibration.errors import InputError

SlotName = Literal["a", "b"]
SLOT_NAMES: tuple[SlotName, SlotName] = ("a", "b")
TRIES = 3
"""Attempts at a trial: an appliance that died in so many of them does not try that bundle again."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


class SlotError(InputError):
    """The step is not possible from the state the slots are in; nothing was changed."""


class IllegalTransition(SlotError):  # noqa: N818  the name says what happened
    """The step does not start at this state."""


class NoEarlierBundle(SlotError):  # noqa: N818
    """There is no confirmed bundle to go back to."""


class SlotState(str, Enum):
    """What is known of a slot's bundle.

    STAGED: verified, not judging. TRIAL: judging, until the appliance has seen enough of it. CONFIRMED: has judged,
    may be gone back to. REJECTED: must not judge; `Slot.reason` says why.
    """

    EMPTY = "empty"
    STAGED = "staged"
    TRIAL = "trial"
    CONFIRMED = "confirmed"
    REJECTED = "rejected"


_OVERWRITE = (SlotState.STAGED, SlotState.EMPTY, SlotState.REJECTED, SlotState.CONFIRMED)


@dataclass(frozen=True)
class Slot:
    """One slot.

    Attributes:
        state: see SlotState.
        sha256: of the bundle file, 64 hex digits; "" when empty.
        name: the bundle's name, for people.
        size: of the bundle file in bytes.
        reason: why it was rejected; "" otherwise.
        attempts: on trial: how often the appliance has begun to judge with it and neither ended nor was stopped.
    """

    state: SlotState = SlotState.EMPTY
    sha256: str = ""
    name: str = ""
    size: int = 0
    reason: str = ""
    attempts: int = 0

    def __post_init__(self) -> None:
        if self.attempts < 0 or (self.attempts and self.state is not SlotState.TRIAL):
            raise ValueError(f"a slot that is {self.state.value} has {self.attempts} attempts at a trial")
        empty = self.state is SlotState.EMPTY
        if empty != (self.sha256 == "") or not (empty or _SHA256.fullmatch(self.sha256)):
            raise ValueError(f"a slot that is {self.state.value} has the hash {self.sha256!r}")
        if (self.state is SlotState.REJECTED) != (self.reason != ""):
            raise ValueError(f"a slot that is {self.state.value} has the reason {self.reason!r}")
        if self.size < 0:
            raise ValueError(f"a slot has the size {self.size}")


@dataclass(frozen=True)
class Slots:
    """Both slots and which of them judges. All steps return a new value or raise SlotError.

    Always true: a slot on trial is the active one; the active one is on trial or confirmed; no confirmed bundle
    without an active one; at most one is staged; the two slots never hold the same bundle.
    """

    a: Slot = Slot()
    b: Slot = Slot()
    active: SlotName | None = None

    def __post_init__(self) -> None:
        states = {name: self[name].state for name in SLOT_NAMES}
        if self.active is not None and states[self.active] not in (SlotState.TRIAL, SlotState.CONFIRMED):
            raise ValueError(f"active slot {self.active} is {states[self.active].value}")
        if any(state is SlotState.TRIAL and name != self.active for name, state in states.items()):
            raise ValueError("a slot is on trial that is not the active one")
        if self.active is None and SlotState.CONFIRMED in states.values():
            raise ValueError("a bundle is confirmed but none is active")
        if self.a.state is self.b.state is SlotState.STAGED:
            raise ValueError("both slots are staged")
        if self.a.sha256 == self.b.sha256 != "":
            raise ValueError("both slots hold the same bundle")

    def __getitem__(self, name: SlotName) -> Slot:
        return self.a if name == "a" else self.b

    @property
    def active_slot(self) -> Slot | None:
        """The slot that judges; None before the first bundle, or when the only one was rejected."""
        return None if self.active is None else self[self.active]

    @property
    def last_confirmed(self) -> SlotName | None:
        """The slot a failed trial falls back to, and that is never overwritten."""
        if self.active is None:
            return None
        if self[self.active].state is SlotState.CONFIRMED:
            return self.active
        return self._fallback()

    def find(self, sha256: str) -> SlotName | None:
        """The slot that holds this bundle."""
        return next((name for name in SLOT_NAMES if sha256 and self[name].sha256 == sha256), None)

    def target(self, sha256: str) -> SlotName:
        """The slot into which this bundle would be staged: never the active or the last confirmed one.

        Raises:
            IllegalTransition: no slot is spare, or the bundle judges or is the fallback already.
        """
        free = [name for name in SLOT_NAMES if name not in (self.active, self.last_confirmed)]
        holder = self.find(sha256)
        if holder is not None and holder not in free:
            raise IllegalTransition(f"slot {holder} holds this bundle already ({self[holder].state.value})")
        if not free:
            raise IllegalTransition(
                f"slot {self.active} is on trial and the other one is its fallback; "
                "wait until the appliance has confirmed it, or roll back first"
            )
        if holder is not None:
            return holder
        # an empty slot before one that still tells why its bundle was rejected
        return min(free, key=lambda name: (_OVERWRITE.index(self[name].state), name))

    def cleared(self, sha256: str) -> Slots:
        """The target slot of `stage` emptied: said before its file is replaced, so that no record outlives its file."""
        return self._with(self.target(sha256), Slot())

    def stage(self, sha256: str, name: str, size: int) -> Slots:
        """A verified bundle now lies in its `target` slot. One that was staged elsewhere is forgotten.

        Raises:
            IllegalTransition: as `target`.
        """
        target = self.target(sha256)
        slots = self
        for other in SLOT_NAMES:
            if other != target and self[other].state is SlotState.STAGED:
                slots = slots._with(other, Slot())
        return slots._with(target, Slot(SlotState.STAGED, sha256, name, size))

    def activate(self) -> Slots:
        """The staged bundle judges, on trial.

        A bundle still on trial that has no confirmed one to fall back to is superseded, that is rejected.

        Raises:
            IllegalTransition: nothing is staged.
        """
        staged = next((name for name in SLOT_NAMES if self[name].state is SlotState.STAGED), None)
        if staged is None:
            raise IllegalTransition("no bundle is staged; push one first")
        slots = self
        if self.active is not None and self[self.active].state is SlotState.TRIAL:
            slots = self.reject(self[self.active].sha256, "superseded before it was confirmed")
        return slots._with(staged, replace(self[staged], state=SlotState.TRIAL), active=staged)

    def confirm(self, sha256: str) -> Slots:
        """The bundle on trial has stood it.

        Raises:
            IllegalTransition: this bundle is not the one on trial.
        """
        name, slot = self._trial(sha256)
        return self._with(name, replace(slot, state=SlotState.CONFIRMED, attempts=0))

    def attempt(self, sha256: str) -> Slots:
        """The appliance begins to judge with the bundle on trial, once more. After TRIES attempts that came to no end
        it is rejected instead, which breaks the loop of a bundle that kills the appliance.

        Raises:
            IllegalTransition: this bundle is not the one on trial.
        """
        name, slot = self._trial(sha256)
        if slot.attempts >= TRIES:
            return self.reject(sha256, f"the appliance died {slot.attempts} times while it was on trial")
        return self._with(name, replace(slot, attempts=slot.attempts + 1))

    def pause(self, sha256: str) -> Slots:
        """The appliance was stopped in good order in the middle of the trial, which held nothing against the bundle.

        Raises:
            IllegalTransition: this bundle is not the one on trial.
        """
        name, slot = self._trial(sha256)
        return self._with(name, replace(slot, attempts=0))

    def reject(self, sha256: str, reason: str) -> Slots:
        """The staged bundle or the one on trial must not judge; the last confirmed one judges again, if any.

        Raises:
            IllegalTransition: this bundle is neither staged nor on trial. A confirmed one is left by `rollback`.
        """
        holder = self.find(sha256)
        if holder is None or self[holder].state not in (SlotState.STAGED, SlotState.TRIAL):
            raise IllegalTransition(f"bundle {sha256[:12]} is neither staged nor on trial ({self._told()})")
        active = self._fallback() if holder == self.active else self.active
        return self._with(holder, self._rejected(holder, reason), active=active)

    def rollback(self, reason: str) -> Slots:
        """The bundle confirmed before the active one judges again; the active one is rejected.

        Raises:
            NoEarlierBundle: there is none. The active bundle goes on judging.
        """
        earlier = self._fallback()
        if self.active is None or earlier is None:
            raise NoEarlierBundle(f"no earlier confirmed bundle to go back to ({self._told()}); push one instead")
        return self._with(self.active, self._rejected(self.active, reason), active=earlier)

    def _trial(self, sha256: str) -> tuple[SlotName, Slot]:
        slot = self.active_slot
        if self.active is None or slot is None or slot.sha256 != sha256 or slot.state is not SlotState.TRIAL:
            raise IllegalTransition(f"bundle {sha256[:12]} is not on trial ({self._told()})")
        return self.active, slot

    def _fallback(self) -> SlotName | None:
        """The other slot than the active one, when its bundle is confirmed."""
        others = (name for name in SLOT_NAMES if name != self.active and self[name].state is SlotState.CONFIRMED)
        return next(others, None)

    def _rejected(self, name: SlotName, reason: str) -> Slot:
        told = reason.strip() or "no reason given"
        return replace(self[name], state=SlotState.REJECTED, reason=told, attempts=0)

    def _with(self, name: SlotName, slot: Slot, active: SlotName | Literal["same"] | None = "same") -> Slots:
        now = self.active if active == "same" else active
        return Slots(slot if name == "a" else self.a, slot if name == "b" else self.b, now)

    def _told(self) -> str:
        return ", ".join(f"{name}: {self[name].state.value}" for name in SLOT_NAMES)
