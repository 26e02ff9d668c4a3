"""Pushing a bundle to devices: facts, then a plan made of them alone, then the plan carried out.

A device is named by an address. `file:DIR` is a device root on this machine; other ways of reaching one are further
implementations of `Transport`, and nothing else here knows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from calibration.errors import InputError
from deploy.bundle import open_bundle
from deploy.install import Device, Report
from deploy.record import DeviceStatus, check_usable, holds, read_state, read_status, read_trust
from deploy.slots import SlotError, SlotName, Slots, SlotState

Watch = Callable[[str], AbstractContextManager[Report]]
"""Makes the progress of one device, named by its address: yields a callback of (bytes done, bytes in all)."""

Step = Literal["stage", "activate", "repair", "rollback"]


class Transport(Protocol):
    """A way to one device. All methods raise InputError (DeviceError, SlotError, BundleError) on failure."""

    address: str

    def slots(self) -> Slots:
        """What the device holds; empty slots where nothing was ever pushed to it."""

    def enrolled(self) -> bool:
        """Whether it asks for signatures. One that does not is a device in development."""

    def verify(self, file: Path) -> None:
        """Raise TrustError where the device would refuse this bundle; nothing is changed."""

    def intact(self, slot: SlotName, sha256: str) -> bool:
        """Whether the file in a slot is this bundle, every byte of it."""

    def repair(self, file: Path, progress: Report) -> Slots:
        """Put a whole copy of a bundle back into the slot that holds it damaged."""

    def status(self, steps: int) -> DeviceStatus:
        """The same in full, the files verified, with the last `steps` steps of the history."""

    def stage(self, file: Path, progress: Report) -> Slots:
        """Copy a bundle into the spare slot, verified."""

    def activate(self, sha256: str) -> Slots:
        """Put this bundle, which is staged, on trial."""

    def rollback(self, reason: str) -> Slots:
        """Go back to the bundle before."""


class LocalTransport:
    """A device root on this machine: `file:DIR`."""

    def __init__(self, root: Path) -> None:
        self.address = f"file:{root}"
        self._root, self._device = root, Device(root)

    def slots(self) -> Slots:
        """As Transport."""
        return read_state(self._root) if check_usable(self._root) else Slots()

    def enrolled(self) -> bool:
        """As Transport."""
        return read_trust(self._root) is not None

    def verify(self, file: Path) -> None:
        """As Transport."""
        self._device.verify(file)

    def intact(self, slot: SlotName, sha256: str) -> bool:
        """As Transport."""
        return holds(self._root, slot, sha256)

    def repair(self, file: Path, progress: Report) -> Slots:
        """As Transport."""
        return self._device.repair(file, progress)

    def status(self, steps: int) -> DeviceStatus:
        """As Transport."""
        return read_status(self._root, steps)

    def stage(self, file: Path, progress: Report) -> Slots:
        """As Transport."""
        return self._device.stage(file, progress)

    def activate(self, sha256: str) -> Slots:
        """As Transport."""
        return self._device.activate(sha256)

    def rollback(self, reason: str) -> Slots:
        """As Transport."""
        return self._device.rollback(reason)


def reach(address: str) -> Transport:
    """The way to a device. Raises InputError where the address names none."""
    scheme, colon, rest = address.partition(":")
    if not colon:
        raise InputError(f"device {address!r} has no scheme; for a directory on this machine write file:{address}")
    if scheme != "file":
        raise InputError(f"device {address!r}: unknown scheme {scheme!r}; this version reaches file:DIR")
    if not rest:
        raise InputError(f"device {address!r} names no directory; write file:DIR")
    return LocalTransport(Path(rest).expanduser())


def reach_all(addresses: Sequence[str]) -> list[Transport]:
    """The ways to several devices. Raises InputError also where one is named twice."""
    devices = [reach(address) for address in addresses]
    seen = [device.address for device in devices]
    for address in seen:
        if seen.count(address) > 1:
            raise InputError(f"device {address} is named twice")
    return devices


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


@dataclass(frozen=True)
class Outcome:
    """What became of one device.

    Attributes:
        address: of the device.
        plan: what was to be done; None where not even the facts could be had.
        done: the steps carried out.
        slots: what the device holds now; None when unknown.
        error: what went wrong; "" otherwise.
        enrolled: whether the device asks for signatures; None when unknown.
    """

    address: str
    plan: Plan | None = None
    done: tuple[Step, ...] = ()
    slots: Slots | None = None
    error: str = ""
    enrolled: bool | None = None


@dataclass(frozen=True)
class PushReport:
    """Who has what after a push."""

    file: Path
    name: str
    sha256: str
    dry_run: bool
    devices: tuple[Outcome, ...]

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The devices that did not get the bundle."""
        return tuple(outcome for outcome in self.devices if outcome.error)


@contextmanager
def unwatched(_address: str) -> Iterator[Report]:
    """Progress that nobody looks at."""
    yield lambda _done, _total: None


def push(
    file: Path, devices: Sequence[str], watch: Watch = unwatched, dry_run: bool = False, retry: bool = False
) -> PushReport:
    """Verify a bundle and put it on trial on each device. One device's failure does not stop the others.

    Args:
        file: the bundle.
        devices: addresses, see `reach`.
        watch: progress, one per device that is copied to.
        dry_run: make the plans, carry none out.
        retry: push even what a device has rejected before.

    Raises:
        BundleError: the file is no good; no device was touched.
        InputError: an address names no device; no device was touched.
    """
    bundle = open_bundle(file)
    transports = reach_all(devices)
    outcomes = [_push_one(file, bundle.sha256, device, watch, dry_run, retry) for device in transports]
    return PushReport(file, bundle.manifest.name, bundle.sha256, dry_run, tuple(outcomes))


def _push_one(file: Path, sha256: str, device: Transport, watch: Watch, dry_run: bool, retry: bool) -> Outcome:
    plan: Plan | None = None
    slots: Slots | None = None
    enrolled: bool | None = None
    done: list[Step] = []
    try:
        slots = device.slots()
        enrolled = device.enrolled()
        holder = slots.find(sha256)
        plan = plan_push(slots, sha256, retry, holder is None or device.intact(holder, sha256))
        if plan.blocked:
            return Outcome(device.address, plan, (), slots, plan.why, enrolled)
        if dry_run and "stage" in plan.steps:
            device.verify(file)
        for step in () if dry_run else plan.steps:
            if step == "activate":
                slots = device.activate(sha256)
            else:
                with watch(device.address) as progress:
                    slots = device.stage(file, progress) if step == "stage" else device.repair(file, progress)
            done.append(step)
    except InputError as error:
        return Outcome(device.address, plan, tuple(done), slots, str(error), enrolled)
    return Outcome(device.address, plan, tuple(done), slots, enrolled=enrolled)


def rollback(devices: Sequence[str], reason: str, dry_run: bool = False) -> tuple[Outcome, ...]:
    """Each device back to the bundle it had confirmed before.

    Raises:
        InputError: an address names no device; no device was touched.
    """
    return tuple(_rollback_one(device, reason, dry_run) for device in reach_all(devices))


def _rollback_one(device: Transport, reason: str, dry_run: bool) -> Outcome:
    slots: Slots | None = None
    plan: Plan | None = None
    try:
        slots = device.slots()
        earlier = slots.rollback(reason).active_slot  # raises where there is no earlier one
        plan = Plan(("rollback",), f"bundle {earlier.name if earlier else ''} judges again")
        if dry_run:
            return Outcome(device.address, plan, slots=slots)
        return Outcome(device.address, plan, ("rollback",), device.rollback(reason))
    except InputError as error:
        return Outcome(device.address, plan, slots=slots, error=str(error))
