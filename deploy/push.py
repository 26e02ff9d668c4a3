"""Pushing a bundle to one device: facts, then a plan made of them alone, then the plan carried out.

deploy.rollout does it on many. Nothing here knows how a device is reached.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from calibration.errors import InputError
from deploy.install import Report
from deploy.plan import Plan, Step, plan_push, plan_rollback
from deploy.record import DeviceBusy
from deploy.slots import Slots, SlotState
from deploy.transport import Transport, TransportError

Watch = Callable[[str], AbstractContextManager[Report]]
"""Makes the progress of one device, named by its address: yields a callback of (bytes done, bytes in all)."""

Trial = Literal["", "running", "confirmed", "rejected"]
POLL_S = 0.5


@dataclass(frozen=True)
class Outcome:
    """What became of one device.

    Attributes:
        address: of the device.
        plan: what was to be done; None where not even the facts could be had.
        done: the steps carried out.
        slots: what the device holds now; None when unknown.
        error: what went wrong; "" otherwise. kind: the name of its class.
        enrolled: whether the device asks for signatures; None when unknown.
        trial: what the device thinks of this bundle; "" where it does not hold it, or nobody asked.
    """

    address: str
    plan: Plan | None = None
    done: tuple[Step, ...] = ()
    slots: Slots | None = None
    error: str = ""
    kind: str = ""
    enrolled: bool | None = None
    trial: Trial = ""

    @property
    def busy(self) -> bool:
        """Whether somebody else was changing the device: the same push may work later."""
        return self.kind == DeviceBusy.__name__


@contextmanager
def unwatched(_address: str) -> Iterator[Report]:
    """Progress that nobody looks at."""
    yield lambda _done, _total: None


@dataclass(frozen=True)
class Order:
    """One bundle, and how it is to be pushed.

    Attributes:
        file, sha256: the bundle, and its hash as it was verified.
        dry_run: make the plan, do not carry it out.
        retry: push even what a device has rejected before.
        wait_s: how long to watch the trial; 0 does not watch it.
    """

    file: Path
    sha256: str
    dry_run: bool = False
    retry: bool = False
    wait_s: float = 0.0


def push_one(order: Order, device: Transport, watch: Watch) -> Outcome:
    """Put a bundle on trial on one device, and watch the trial where that is asked for. Errors are in the outcome."""
    outcome = Outcome(device.address)
    try:
        slots = device.slots()
        outcome = replace(outcome, slots=slots, enrolled=device.enrolled())
        holder = slots.find(order.sha256)
        plan = plan_push(slots, order.sha256, order.retry, holder is None or device.intact(holder, order.sha256))
        outcome = replace(outcome, plan=plan)
        if plan.blocked:
            return replace(_judged(outcome, order.sha256), error=plan.why, kind="Blocked")
        if order.dry_run and "stage" in plan.steps:
            device.verify(order.file)
        for step in () if order.dry_run else plan.steps:
            if step == "activate":
                slots = device.activate(order.sha256)
            else:
                with watch(device.address) as progress:
                    slots = (device.stage if step == "stage" else device.repair)(order.file, progress)
            outcome = replace(outcome, slots=slots, done=(*outcome.done, step))
        if order.wait_s and not order.dry_run:
            return _watched(outcome, order, device)
    except InputError as error:
        return replace(outcome, error=str(error), kind=kind_of(error))
    return _judged(outcome, order.sha256)


def rollback_one(device: Transport, reason: str, dry_run: bool) -> Outcome:
    """One device back to the bundle it had confirmed before. Errors are in the outcome."""
    outcome = Outcome(device.address)
    try:
        slots = device.slots()
        outcome = replace(outcome, slots=slots)
        outcome = replace(outcome, plan=plan_rollback(slots, reason))
        if dry_run:
            return outcome
        return replace(outcome, slots=device.rollback(reason), done=("rollback",))
    except InputError as error:
        return replace(outcome, error=str(error), kind=kind_of(error))


def kind_of(error: InputError) -> str:
    """The name of an error's class, also of one that happened on a device."""
    return str(getattr(error, "kind", type(error).__name__))


def _judged(outcome: Outcome, sha256: str) -> Outcome:
    """With what the device thinks of the bundle now."""
    holder = outcome.slots.find(sha256) if outcome.slots else None
    if outcome.slots is None or holder is None:
        return replace(outcome, trial="")
    states: dict[SlotState, Trial] = {SlotState.TRIAL: "running", SlotState.CONFIRMED: "confirmed"}
    states[SlotState.REJECTED] = "rejected"
    return replace(outcome, trial=states.get(outcome.slots[holder].state, ""))


def _watched(outcome: Outcome, order: Order, device: Transport) -> Outcome:
    """After the trial, or after the wait. A connection that is cut meanwhile is made again."""
    until = time.monotonic() + order.wait_s
    lost = ""
    while True:
        try:
            outcome, lost = _judged(replace(outcome, slots=device.slots()), order.sha256), ""
        except TransportError as error:
            lost = str(error)
        if not lost and outcome.trial != "running":
            break
        if time.monotonic() + POLL_S > until:
            told = lost or f"still on trial after {order.wait_s:g} s; is the appliance running there?"
            return replace(outcome, error=told, kind="TransportError" if lost else "TrialPending")
        time.sleep(POLL_S)
    if outcome.trial == "confirmed":
        return outcome
    holder = outcome.slots.find(order.sha256) if outcome.slots else None
    if outcome.slots is None or holder is None or outcome.trial == "":
        return replace(outcome, error="somebody else has pushed another bundle meanwhile", kind="DeviceBusy")
    return replace(outcome, error=f"trial failed: {outcome.slots[holder].reason}", kind="TrialFailed")
