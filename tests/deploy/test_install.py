"""File work on a device root: real files, real locks, real processes."""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import stat
from pathlib import Path

import pytest

from calibration.errors import InputError
from deploy import files
from deploy.bundle import BundleError, open_bundle
from deploy.install import (
    Device,
    DeviceBusy,
    DeviceError,
    active_bundle,
    open_active,
    read_history,
    read_record,
    read_state,
    somebody,
)
from deploy.record import holds, open_active_slot, read_status
from deploy.slots import IllegalTransition, NoEarlierBundle, SlotError, SlotState


def install(device: Device, path: Path) -> None:
    """Stage, activate, confirm."""
    device.stage(path)
    device.activate()
    device.confirm(open_bundle(path).sha256)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where a device root will be."""
    return tmp_path / "line" / "device"


def test_a_bundle_goes_from_file_to_confirmed(root: Path, bundles: list[Path], shas: list[str]) -> None:
    """The active bundle is a whole copy, private to its owner, and the state names it."""
    device = Device(root)
    assert device.stage(bundles[0]).a.state is SlotState.STAGED
    with pytest.raises(DeviceError, match="no bundle is active"):
        active_bundle(root)
    assert device.activate(shas[0]).active == "a"
    assert device.confirm(shas[0]).a.state is SlotState.CONFIRMED
    path = active_bundle(root)
    assert path == root / "slots" / "a" / "bundle.lgb"
    assert path.read_bytes() == bundles[0].read_bytes()
    assert open_active(root).sha256 == shas[0] == read_state(root).a.sha256
    for item in (root, *root.rglob("*")):
        assert stat.S_IMODE(item.stat().st_mode) == (0o700 if item.is_dir() else 0o600), item
    assert not list(root.rglob("*.part"))
    bundle, slot = open_active_slot(root)
    assert (bundle.sha256, slot.state) == (shas[0], SlotState.CONFIRMED)


def test_the_copy_reports_its_progress(root: Path, bundles: list[Path]) -> None:
    """Up to the last byte."""
    seen: list[tuple[int, int]] = []
    Device(root).stage(bundles[0], lambda done, total: seen.append((done, total)))
    size = bundles[0].stat().st_size
    assert seen[-1] == (size, size)


def test_rollback_brings_the_bundle_before_back(root: Path, bundles: list[Path], shas: list[str]) -> None:
    """One, two, back to one; a second rollback has nowhere to go and changes nothing."""
    device = Device(root)
    install(device, bundles[0])
    install(device, bundles[1])
    assert open_active(root).sha256 == shas[1]
    device.rollback("operator")
    assert open_active(root).sha256 == shas[0]
    before = (root / "state.json").read_bytes()
    with pytest.raises(NoEarlierBundle):
        device.rollback("operator")
    assert (root / "state.json").read_bytes() == before


def test_a_rejected_trial_falls_back(root: Path, bundles: list[Path], shas: list[str]) -> None:
    """The appliance says why; the bundle before judges again."""
    device = Device(root)
    install(device, bundles[0])
    device.stage(bundles[1])
    device.activate()
    slots = device.reject(shas[1], "golden 3:\x1b[31m deviates by 0.2\nsecond line")
    assert slots.b.reason == "golden 3: [31m deviates by 0.2 second line"
    assert open_active(root).sha256 == shas[0]


def test_a_rejected_only_bundle_says_why_nothing_judges(root: Path, bundles: list[Path], shas: list[str]) -> None:
    """The reason comes with the error."""
    device = Device(root)
    device.stage(bundles[0])
    device.activate()
    device.reject(shas[0], "goldens failed")
    with pytest.raises(DeviceError, match="goldens failed"):
        active_bundle(root)


def test_the_history_tells_who_did_what(root: Path, bundles: list[Path], shas: list[str]) -> None:
    """One line a step, in order, each before the step it tells of."""
    device = Device(root, who="ada@line1")
    install(device, bundles[0])
    device.stage(bundles[1])
    device.reject(shas[1], "why not")
    lines = read_history(root)
    assert [(line.what, line.slot, line.name) for line in lines] == [
        ("stage", "a", "one"),
        ("activate", "a", "one"),
        ("confirm", "a", "one"),
        ("stage", "b", "two"),
        ("reject", "b", "two"),
    ]
    assert {line.who for line in lines} == {"ada@line1"}
    assert lines[-1].reason == "why not"
    assert lines[-1].generation == read_record(root).generation == 5


def test_a_torn_history_line_hurts_neither_its_readers_nor_the_next_line(root: Path, bundles: list[Path]) -> None:
    """A power cut in the middle of a line."""
    device = Device(root)
    device.stage(bundles[0])
    with (root / "history.jsonl").open("ab") as file:
        file.write(b'{"time": "2026-')
    device.activate()
    assert [line.what for line in read_history(root)] == ["stage", "activate"]
    (root / "history.jsonl").unlink()
    assert read_history(root) == []


def test_only_what_changed_gets_a_new_time(root: Path, bundles: list[Path]) -> None:
    """`since` tells when a slot came into its state."""
    device = Device(root)
    install(device, bundles[0])
    since = read_record(root).a.since
    device.stage(bundles[1])
    assert read_record(root).a.since == since
    assert read_record(root).b.since >= since


def test_a_bundle_that_is_there_is_not_copied_again(root: Path, bundles: list[Path]) -> None:
    """Staged already: the file keeps its inode."""
    device = Device(root)
    device.stage(bundles[0])
    inode = (root / "slots/a/bundle.lgb").stat().st_ino
    copied: list[int] = []
    device.stage(bundles[0], lambda done, _total: copied.append(done))
    assert (root / "slots/a/bundle.lgb").stat().st_ino == inode
    assert copied == []


def test_a_staged_copy_that_was_damaged_is_copied_again_or_refused(root: Path, bundles: list[Path]) -> None:
    """Activation verifies; staging again repairs."""
    device = Device(root)
    device.stage(bundles[0])
    path = root / "slots/a/bundle.lgb"
    flip(path, 1000)
    with pytest.raises(DeviceError, match="damaged since it was staged"):
        device.activate()
    assert read_state(root).active is None
    device.stage(bundles[0])
    device.activate()
    assert path.read_bytes() == bundles[0].read_bytes()


def test_a_damaged_earlier_bundle_is_not_rolled_back_to(root: Path, bundles: list[Path], shas: list[str]) -> None:
    """What judges goes on judging."""
    device = Device(root)
    install(device, bundles[0])
    install(device, bundles[1])
    flip(root / "slots/a/bundle.lgb", -1)
    with pytest.raises(DeviceError, match="earlier bundle is damaged"):
        device.rollback("operator")
    assert open_active(root).sha256 == shas[1]
    assert dict(read_status(root).intact) == {"a": False, "b": True}


def test_another_bundle_in_the_active_slot_is_noticed(root: Path, bundles: list[Path]) -> None:
    """A whole bundle, but not the one the state names: nobody confirmed that one."""
    install(Device(root), bundles[0])
    shutil.copy(bundles[1], root / "slots/a/bundle.lgb")
    with pytest.raises(DeviceError, match="not the bundle that"):
        open_active(root)
    flip(root / "slots/a/bundle.lgb", 99)
    with pytest.raises(BundleError, match="damaged"):
        open_active(root)
    assert not holds(root, "b", "0" * 64)


def flip(path: Path, at: int) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_damaged_bundle_changes_nothing_on_the_device(root: Path, bundles: list[Path], tmp_path: Path) -> None:
    """It is verified before the first write."""
    bad = tmp_path / "bad.lgb"
    shutil.copy(bundles[0], bad)
    flip(bad, 20_000)
    with pytest.raises(BundleError, match="damaged"):
        Device(root).stage(bad)
    assert not root.exists()


def test_no_room_is_noticed_before_the_copy(root: Path, bundles: list[Path], shas: list[str]) -> None:
    """The message says how much is missing; the slots are untouched."""
    install(Device(root), bundles[0])
    with pytest.raises(DeviceError, match=r"\d+ MiB free, \d+ MiB needed; free some space"):
        Device(root, headroom=2**60).stage(bundles[1])
    assert open_active(root).sha256 == shas[0]
    assert read_state(root).b.state is SlotState.EMPTY


def _stage_within(root: Path, bundle: Path, limit: int, told: multiprocessing.queues.Queue[str]) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        Device(root).stage(bundle)
    except DeviceError as error:
        told.put(str(error))
    else:
        told.put("staged")


def test_a_copy_that_cannot_be_written_leaves_the_device_as_it_was(root: Path, bundles: list[Path]) -> None:
    """The write fails half-way; the bundle that would have been replaced is still there to roll back to."""
    device = Device(root)
    install(device, bundles[0])
    install(device, bundles[1])
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    context = multiprocessing.get_context("fork")
    told: multiprocessing.queues.Queue[str] = context.Queue()
    process = context.Process(target=_stage_within, args=(root, bundles[2], 20_000, told))
    process.start()
    assert "File too large" in told.get(timeout=20)
    process.join(20)
    assert {p: p.read_bytes() for p in root.rglob("*") if p.is_file()} == before


def test_a_step_while_another_holds_the_lock_is_busy(root: Path, bundles: list[Path], shas: list[str]) -> None:
    """BUSY at once, or after the time it was told to wait; afterwards it works."""
    device = Device(root)
    device.stage(bundles[0])
    with files.exclusive(root / "lock", 0) as got:
        assert got
        for step in (device.activate, lambda: Device(root, wait_s=0.05).stage(bundles[1])):
            with pytest.raises(DeviceBusy, match="BUSY"):
                step()
        assert read_state(root).a.state is SlotState.STAGED  # reading needs no lock
    device.activate()


def test_activating_what_somebody_else_staged_is_busy(root: Path, bundles: list[Path], shas: list[str]) -> None:
    """Between one push's two steps another push came in."""
    device = Device(root)
    device.stage(bundles[0])
    device.stage(bundles[1])
    with pytest.raises(DeviceBusy, match="another bundle was staged"):
        device.activate(shas[0])
    assert read_state(root).active is None


def _push_repeatedly(root: Path, path: Path, start: multiprocessing.synchronize.Event, told: object) -> None:
    start.wait(20)
    results = []
    for _ in range(5):
        try:
            Device(root).stage(path)
            results.append("ok")
        except DeviceBusy:
            results.append("BUSY")
        except SlotError as error:
            results.append(str(error))
    told.put(results)  # type: ignore[attr-defined]


def test_pushes_at_once_are_done_or_busy_and_the_device_stays_whole(root: Path, bundles: list[Path]) -> None:
    """Three processes stage three bundles, five times each: every answer is done or BUSY, one whole bundle is there."""
    context = multiprocessing.get_context("fork")
    start, told = context.Event(), context.Queue()
    processes = [context.Process(target=_push_repeatedly, args=(root, path, start, told)) for path in bundles]
    for process in processes:
        process.start()
    start.set()
    results = [result for _ in processes for result in told.get(timeout=30)]
    for process in processes:
        process.join(20)
    assert set(results) <= {"ok", "BUSY"}
    assert "ok" in results
    slots = read_state(root)
    assert [slots.a.state, slots.b.state].count(SlotState.STAGED) == 1
    assert all(read_status(root).intact.values())
    assert not list(root.rglob("*.part"))
    assert results.count("ok") == len(read_history(root))


def test_illegal_steps_leave_no_trace(root: Path, bundles: list[Path], shas: list[str]) -> None:
    """No history line, no new generation."""
    device = Device(root)
    device.stage(bundles[0])
    with pytest.raises(IllegalTransition):
        device.confirm(shas[0])
    with pytest.raises(IllegalTransition):
        device.reject(shas[1], "why")
    assert read_record(root).generation == len(read_history(root)) == 1


def test_somebody_has_a_name_and_a_machine() -> None:
    """user@machine, for the history."""
    user, at, machine = somebody().partition("@")
    assert user
    assert at
    assert machine


def test_all_errors_are_input_errors() -> None:
    """So that every command line ends them with exit code 2."""
    assert issubclass(DeviceBusy, DeviceError)
    assert issubclass(DeviceError, InputError)
    assert issubclass(SlotError, InputError)
