"""What a push would do on one device, made of facts alone: nothing is reached and nothing is touched here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deploy.slots import SlotError, Slots, SlotState

Step = Literal["stage", "activate", "repair", "rollback"]


@dataclass(frozen=True)
class Plan:
    """What a push would do on one device.

    Attributes:
        steps: in order; none when the device needs nothing or must not be touched.
        why: one sentence.
        blocked: whether the push cannot be carried out.
    """

    steps: tuple[Step, ...]
    why: str
    blocked: bool = False


def plan_push(slots: Slots, sha256: str, retry: bool = False, intact: bool = True) -> Plan:
    """Facts and wishes to steps, without touching anything.

    Args:
        slots: what the device holds.
        sha256: of the bundle to push.
        retry: push even what the device has rejected before.
        intact: whether the slot that holds this bundle, if any, holds it undamaged.
    """
    holder = slots.find(sha256)
    state = SlotState.EMPTY if holder is None else slots[holder].state
    if holder is not None and holder in (slots.active, slots.last_confirmed) and not intact:
        return Plan(("repair",), f"the device has it in slot {holder}, damaged")
    if holder is not None and holder == slots.active:
        return Plan((), f"the device has it, {'on trial' if state is SlotState.TRIAL else 'confirmed'}")
    if holder is not None and state is SlotState.REJECTED and not retry:
        told = slots[holder].reason
        return Plan((), f"the device rejected this bundle ({told}); push with --retry to try it again", blocked=True)
    try:
        target = slots.target(sha256)
    except SlotError as error:
        return Plan((), str(error), blocked=True)
    if state is SlotState.STAGED and intact:
        return Plan(("activate",), f"staged already in slot {target}")
    if holder is not None:
        copy = "no copy needed" if intact else "damaged"
        return Plan(("stage", "activate"), f"lies in slot {target} already, {copy}")
    return Plan(("stage", "activate"), f"into slot {target}")


def plan_rollback(slots: Slots, reason: str) -> Plan:
    """Back to the bundle confirmed before. Raises NoEarlierBundle where there is none."""
    earlier = slots.rollback(reason).active_slot
    return Plan(("rollback",), f"bundle {earlier.name if earlier else ''} judges again")
