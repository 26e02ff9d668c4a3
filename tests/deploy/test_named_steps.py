"""Every named step of push, installation, activation, trial, confirmation and roll-back, killed, failing and hanging.

A real process works on a device root and meets its fault in place of one named file operation. Afterwards the device
judges with a verified bundle, the old one or the new one, and the same work done again succeeds.
"""

from __future__ import annotations

import errno
import os
import re
import select
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.daemon import choose_bundle
from calibration.errors import InputError
from deploy.install import Device
from deploy.record import DeviceBusy, DeviceError, open_active, read_history, read_record, read_status
from deploy.slots import TRIES, SlotError, SlotState
from tests.powercut.disk import Operation, Recorder
from tests.powercut.scenes import DEVICE_ID, Stock

FAULTS = ("kill", "error", "hang")
ERRNOS = (errno.ENOSPC, errno.EIO, errno.EROFS)
REFUSED, REACHED = 2, b"."


@dataclass(frozen=True)
class Step:
    """A named file operation of an action: the `nth` of `kind` on a path that matches."""

    action: str
    name: str
    kind: str
    path: str
    nth: int = 1


_STATE, _PART, _HISTORY, _SLOT = "state.json", r"bundle\.lgb\.part", r"history\.jsonl", "slots/a"


def _record(action: str) -> tuple[Step, ...]:
    """The steps by which every change of the state is put on record."""
    return (
        Step(action, "history written", "write", _HISTORY),
        Step(action, "history synced", "sync", _HISTORY),
        Step(action, "state written", "write", _STATE),
        Step(action, "state synced", "sync", _STATE),
        Step(action, "state in place", "rename", _STATE),
    )


_STAGE = (
    Step("stage", "copy begun", "create", _PART),
    Step("stage", "copy written", "write", _PART),
    Step("stage", "copy synced", "sync", _PART),
    Step("stage", "slot cleared", "rename", _STATE),
    Step("stage", "bundle in place", "rename", _PART),
    Step("stage", "slot synced", "sync", _SLOT + "$"),
    Step("stage", "history written", "write", _HISTORY),
    Step("stage", "state written", "write", _STATE, 2),
    Step("stage", "state in place", "rename", _STATE, 2),
)
_SIGNED = tuple(
    Step("stage signed", f"trust {name}", kind, "trust.json")
    for name, kind in (("written", "write"), ("synced", "sync"), ("in place", "rename"))
)
STEPS = (*_STAGE, *_SIGNED, *(s for a in ("activate", "attempt", "confirm", "reject", "rollback") for s in _record(a)))

Work = Callable[[Device, Stock], object]
STAGE: Work = lambda device, stock: device.stage(stock.paths["three"])  # noqa: E731  a table reads better
ACTIVATE: Work = lambda device, _stock: device.activate()  # noqa: E731
CONFIRM: Work = lambda device, stock: device.confirm(stock.shas["three"])  # noqa: E731
ACTIONS: dict[str, tuple[tuple[Work, ...], Work]] = {
    "stage": ((), STAGE),
    "stage signed": ((lambda device, stock: device.enrol(stock.root, DEVICE_ID),), STAGE),
    "activate": ((STAGE,), ACTIVATE),
    "attempt": ((STAGE, ACTIVATE), lambda device, stock: device.attempt(stock.shas["three"])),
    "confirm": ((STAGE, ACTIVATE), CONFIRM),
    "reject": ((STAGE, ACTIVATE), lambda device, stock: device.reject(stock.shas["three"], "golden 3 deviates")),
    "rollback": ((STAGE, ACTIVATE, CONFIRM), lambda device, _stock: device.rollback("by hand")),
}
"""What goes before, and the work that meets the fault."""


class Faulty(Recorder):
    """Lets a fault happen in place of one operation; says so with a byte on a pipe."""

    def __init__(self, root: Path, step: Step, fault: str, error: int, told: int) -> None:
        super().__init__(root)
        self._step, self._fault, self._errno, self._told, self._met = step, fault, error, told, 0

    def _note(self, operation: Operation) -> None:
        if operation.kind == self._step.kind and re.search(self._step.path, operation.path):
            self._met += 1
            if self._met == self._step.nth:
                os.write(self._told, REACHED)
                if self._fault == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                if self._fault == "hang":
                    signal.pause()
                raise OSError(self._errno, os.strerror(self._errno), operation.path)
        super()._note(operation)


def in_a_process(work: Callable[[], object], recorder: Callable[[int], Faulty]) -> tuple[int, int]:
    """Fork, work, and meet the fault. Returns the process's id and a pipe that tells when it is met."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with recorder(tell).recording():
                work()
            code = 0
        except InputError as error:
            code = REFUSED if "\n" not in str(error) and str(error) else 1
        finally:
            os._exit(code)
    os.close(tell)
    return child, told


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """Where syncing costs nothing, if there is such a place."""
    fast = Path("/dev/shm")  # noqa: S108  a directory of our own is made in it
    with tempfile.TemporaryDirectory(dir=fast if os.access(fast, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def stock(memory: Path) -> Stock:
    """Four bundles, signed."""
    return Stock.made(memory)


@pytest.fixture(scope="module")
def prepared(memory: Path, stock: Stock) -> dict[str, Path]:
    """For each action, a device that has confirmed one and two and stands right before it."""
    roots = {}
    for action, (before, _) in ACTIONS.items():
        device = Device(memory / action)
        for name in ("one", "two"):
            device.stage(stock.paths[name])
            device.activate()
            device.confirm(stock.shas[name])
        for work in before:
            work(device, stock)
        roots[action] = device.root
    return roots


def judges_verified(root: Path, stock: Stock) -> str:
    """The name of the bundle that judges, verified; all on record is whole."""
    assert all(read_status(root).intact.values())
    return open_active(root).manifest.name


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step.action}-{step.name}".replace(" ", "-"))
def test_a_fault_at_a_named_step(step: Step, fault: str, stock: Stock, prepared: dict[str, Path], memory: Path) -> None:
    """The device judges with a verified bundle at once, and the work done again comes to its end."""
    root = Path(shutil.copytree(prepared[step.action], memory / "case"))
    try:
        device, (_, work) = Device(root), ACTIONS[step.action]
        old = judges_verified(root, stock)
        error = ERRNOS[STEPS.index(step) % len(ERRNOS)]
        child, told = in_a_process(lambda: work(device, stock), lambda tell: Faulty(root, step, fault, error, tell))
        assert select.select([told], [], [], 30)[0]
        assert os.read(told, 1) == REACHED, "the step was never reached"
        os.close(told)
        if fault == "hang":
            assert judges_verified(root, stock) in (old, "two", "three")  # reading waits for nobody
            with pytest.raises(DeviceBusy):
                device.rollback("while somebody hangs")
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == (REFUSED if fault == "error" else -signal.SIGKILL)
        assert judges_verified(root, stock) in (old, "two", "three")
        try:
            work(device, stock)
        except SlotError:  # it had been carried out already
            assert read_record(root).generation > read_record(prepared[step.action]).generation
        whole = Path(shutil.copytree(prepared[step.action], memory / "whole"))
        work(Device(whole), stock)
        slots, expected = read_record(root).slots(), read_record(whole).slots()
        assert (slots.active_slot.sha256, slots.a.state) == (expected.active_slot.sha256, expected.a.state)  # type: ignore[union-attr]
        assert judges_verified(root, stock) == open_active(whole).manifest.name
    finally:
        shutil.rmtree(memory / "case", ignore_errors=True)
        shutil.rmtree(memory / "whole", ignore_errors=True)


def test_there_are_enough_named_cases() -> None:
    """At least sixty, and no name twice."""
    assert len({(step.action, step.name) for step in STEPS}) == len(STEPS)
    assert len(STEPS) * len(FAULTS) >= 60


def test_a_state_that_cannot_be_written_stops_nothing(prepared: dict[str, Path], memory: Path, stock: Stock) -> None:
    """Something else has its place: each step is refused by a clear error, and the device goes on judging."""
    root = Path(shutil.copytree(prepared["activate"], memory / "unwritable"))
    (root / "state.json.part").mkdir()
    device = Device(root)
    for step in (
        device.activate,
        lambda: device.reject(stock.shas["three"], "why"),
        lambda: device.stage(stock.paths["four"]),
    ):
        with pytest.raises(DeviceError, match=r"state\.json"):
            step()
        assert judges_verified(root, stock) == "two"
    (root / "state.json.part").rmdir()
    assert device.activate().active == "a"


@pytest.mark.parametrize("damage", [b"", b"\0" * 1000, b'{"version": 1, "active": "a"'])
@pytest.mark.parametrize("action", ACTIONS)
def test_a_corrupted_state_before_any_action(
    action: str, damage: bytes, prepared: dict[str, Path], memory: Path, stock: Stock
) -> None:
    """What judged still judges, and the action works as if nothing had been."""
    root = Path(shutil.copytree(prepared[action], memory / f"corrupted-{action}-{len(damage)}"))
    before = judges_verified(root, stock)
    (root / "state.json").write_bytes(damage)
    assert judges_verified(root, stock) == before
    ACTIONS[action][1](Device(root), stock)
    assert "restore" in [line.what for line in read_history(root)]
    assert judges_verified(root, stock) in ("two", "three")


def test_a_trial_that_kills_its_machine_for_ever_is_given_up(
    prepared: dict[str, Path], memory: Path, stock: Stock
) -> None:
    """Each start of the appliance counts before it judges; the last known good bundle judges after TRIES of them."""
    root = Path(shutil.copytree(prepared["confirm"], memory / "loop"))
    starts = 0
    while open_active(root).manifest.name == "three":
        starts += 1
        child = os.fork()
        if child == 0:  # the appliance of one boot: it opens what it has to judge with, and the power goes
            choose_bundle(root)
            os.kill(os.getpid(), signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        assert starts <= 10
    assert starts == TRIES + 1
    assert read_record(root).slots().a.state is SlotState.REJECTED
    assert judges_verified(root, stock) == "two"
    assert choose_bundle(root).bundle.manifest.name == "two"
