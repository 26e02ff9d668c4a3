"""What must hold of a device that comes up after a power cut.

The old bundle or the new one judges, whole; what was acknowledged still holds; every slot on record is intact; what was
signed is not forgotten; a trial can be left for the bundle before; and the next push works.
"""

from __future__ import annotations

from pathlib import Path

from calibration.errors import InputError
from deploy.install import Device
from deploy.record import INCOMING, check_usable, open_active, read_status
from deploy.slots import SlotState
from tests.powercut.scenes import Facts, Stock, receive


def problem_of(root: Path, low: Facts, high: Facts, exempt: bool, stock: Stock | None) -> str:
    """What is wrong with a device that comes up after a cut; "" when nothing is. The tree is used up.

    Args:
        low, high: what was acknowledged, and what will be once the act under way is done.
        exempt: slot a was damaged from the start.
        stock: bundles to go on with; None looks no further than at the device as it comes up.
    """
    try:
        problem = _record_problem(root, low, high, exempt)
        return problem or (_life_problem(root, stock) if stock else "")
    except InputError as error:
        return str(error)


def _record_problem(root: Path, low: Facts, high: Facts, exempt: bool) -> str:
    """Against what was acknowledged (`low`) and what is under way (`high`)."""
    if low.record is None and not check_usable(root):
        return ""  # a first push that left next to nothing behind
    now = Facts.of(root)
    if now.record is None:
        return "no state"
    if not low.generation <= now.generation <= high.generation:
        return f"generation {now.generation}, not {low.generation} to {high.generation}"
    if now.active not in (low.active, high.active):
        return f"bundle {now.active[:12]} judges, neither the old nor the new one"
    if now.active and open_active(root).sha256 != now.active:
        return "another bundle judges than the one on record"
    damaged = [
        name for name, whole in read_status(root, 0).intact.items() if not whole and not (exempt and name == "a")
    ]
    if damaged:
        return f"slot {damaged[0]} is on record and its bundle is not whole"
    if low.generation == high.generation and now.record != low.record:
        return "what was acknowledged is not on record"
    known = {(line.generation, line.what) for line in now.history}
    told = (*low.history, *(line for line in high.history if line.generation <= now.generation))
    if any((line.generation, line.what) not in known for line in told):
        return "history lacks a step that was carried out"
    return _trust_problem(now, low, high)


def _trust_problem(now: Facts, low: Facts, high: Facts) -> str:
    """A signature that was accepted is never forgotten once its bundle is on record."""
    assert now.record is not None
    if now.trust not in (low.trust, high.trust):
        return "trust is neither the old nor the new"
    if now.shas - low.shas and now.trust != high.trust:
        return "a bundle is on record and its signature could be replayed against"
    if now.record.enrolled and now.trust is None:
        return "enrolled, and trusts nobody"
    slots = now.record.slots()
    enrolling = low.trust is None and now.trust is not None and not now.shas - low.shas
    if enrolling and SlotState.STAGED in (slots.a.state, slots.b.state):
        return "enrolled, and what was staged unsigned may still be activated"
    return ""


def _life_problem(root: Path, stock: Stock) -> str:
    """What a device does next: it proves a trial or falls back, and takes the next push."""
    device = Device(root, who="after the cut")
    slots = Facts.of(root).record
    trial = slots.slots().active_slot if slots else None
    if slots and trial and trial.state is SlotState.TRIAL:
        after = device.reject(trial.sha256, "as if its goldens had failed")
        if after.active is not None and open_active(root).sha256 != after[after.active].sha256:
            return "the bundle fallen back to is not the one on record"
    if (root / INCOMING).exists():  # a transfer goes on from what a cut left of it, or begins anew
        receive(device, stock, "three", signed=False).clear()
    device.stage(stock.paths["four"])
    device.activate(stock.shas["four"])
    device.confirm(stock.shas["four"])
    return "" if open_active(root).sha256 == stock.shas["four"] else "the next push does not judge"
