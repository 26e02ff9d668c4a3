"""A device root that is damaged, half written, missing or not one at all: a clear error, and nothing lost."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.bundle import open_bundle
from deploy.install import (
    Device,
    DeviceError,
    active_bundle,
    open_active,
    read_history,
    read_record,
    read_state,
)


def install(device: Device, path: Path) -> None:
    """Stage, activate, confirm."""
    device.stage(path)
    device.activate()
    device.confirm(open_bundle(path).sha256)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where a device root will be."""
    return tmp_path / "line" / "device"


def test_leftovers_of_a_power_cut_are_removed(root: Path, bundles: list[Path]) -> None:
    """A half-written copy is no bundle and no obstacle."""
    device = Device(root)
    device.stage(bundles[0])
    for slot in "ab":
        (root / "slots" / slot / "bundle.lgb.part").write_bytes(b"half")
    (root / "state.json.part").write_bytes(b"half")
    device.stage(bundles[1])
    device.activate()
    assert not list(root.rglob("*.part"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged"),
        (b"{", "damaged"),
        (b"[]", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b'{"version": 2}', "version 2; this program reads version 1"),
        (b'{"version": 1, "active": "c"}', "active"),
        (b'{"version": 1, "active": "a"}', "active slot a is empty"),
        (b'{"version": 1, "colour": 3}', "colour"),
        (b'{"version": 1, "a": {"state": "staged", "sha256": "12"}}', "damaged"),
        (b'{"version": 1, "generation": -1}', "generation"),
        (b'{"version": 1, "generation": "3x"}', "generation"),
    ],
)
def test_a_damaged_state_is_a_clear_error(root: Path, bundles: list[Path], content: bytes, message: str) -> None:
    """Nothing is guessed and nothing is overwritten."""
    device = Device(root)
    device.stage(bundles[0])
    (root / "state.copy.json").unlink()
    (root / "state.json").write_bytes(content)
    for step in (lambda: read_state(root), device.activate, lambda: device.stage(bundles[1])):
        with pytest.raises(DeviceError, match=r"state\.json") as caught:
            step()
        assert message in str(caught.value)
    assert (root / "state.json").read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 900, None])
def test_a_damaged_state_is_restored_from_its_copy(
    root: Path, bundles: list[Path], shas: list[str], content: bytes | None
) -> None:
    """The device goes on judging at once; the next change writes the state anew and says so in the history."""
    device = Device(root)
    install(device, bundles[0])
    if content is None:
        (root / "state.json").unlink()
    else:
        (root / "state.json").write_bytes(content)
    assert open_active(root).sha256 == shas[0]
    device.stage(bundles[1])
    assert [line.what for line in read_history(root)][-2:] == ["restore", "stage"]
    assert "state.json" in read_history(root)[-2].reason
    assert (root / "state.json").read_bytes() == (root / "state.copy.json").read_bytes()
    assert read_record(root).generation == 4


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_damage_to_the_state_gets_past_its_check(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A cut or a changed byte: a DeviceError, or a state that is still free of contradictions."""
    folder = tmp_path_factory.getbasetemp() / "states"
    folder.mkdir(exist_ok=True)
    record = {
        "version": 1,
        "generation": 3,
        "active": "a",
        "a": {"state": "confirmed", "sha256": "a" * 64, "name": "one", "size": 9, "reason": "", "since": ""},
        "b": {"state": "rejected", "sha256": "b" * 64, "name": "two", "size": 9, "reason": "bad", "since": ""},
    }
    content = bytearray(json.dumps(record).encode())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255))
    (folder / "state.json").write_bytes(bytes(content[: data.draw(st.sampled_from([at, len(content)]))]))
    try:
        slots = read_state(folder)
    except DeviceError:
        return
    assert slots.active_slot is not None


def test_a_missing_state_beside_bundles_is_not_started_over(root: Path, bundles: list[Path]) -> None:
    """Somebody deleted state.json: a new one would hide what judges."""
    install(Device(root), bundles[0])
    for name in ("state.json", "state.copy.json"):
        (root / name).unlink()
    with pytest.raises(DeviceError, match=r"state\.json is missing but bundles are there"):
        Device(root).stage(bundles[1])


def test_a_directory_of_other_things_is_not_filled(tmp_path: Path, bundles: list[Path]) -> None:
    """A typing error in the address must not scatter slots over somebody's files."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DeviceError, match=r"holds other things \(notes.txt\)"):
        Device(tmp_path).stage(bundles[0])
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_is_no_device_root(tmp_path: Path, bundles: list[Path]) -> None:
    """Nor is a directory below one."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="not a directory"):
        Device(tmp_path / "file").stage(bundles[0])
    with pytest.raises(DeviceError, match="Not a directory"):
        Device(tmp_path / "file" / "below").stage(bundles[0])


def test_a_root_that_was_never_pushed_to_is_a_clear_error(root: Path, shas: list[str]) -> None:
    """Each says how a device root comes to be."""
    device = Device(root)
    reads = (lambda: read_state(root), lambda: active_bundle(root))
    for step in (device.activate, lambda: device.confirm(shas[0]), *reads):
        with pytest.raises(DeviceError, match="deploy push"):
            step()


def test_a_root_that_may_not_be_written_is_a_clear_error(bundles: list[Path]) -> None:
    """Nobody may make directories in /sys, not even root."""
    with pytest.raises(DeviceError, match="/sys/lineguard"):
        Device(Path("/sys/lineguard")).stage(bundles[0])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_root_of_somebody_else_is_a_clear_error(root: Path, bundles: list[Path]) -> None:
    """The remedy is named."""
    Device(root).stage(bundles[0])
    (root / "lock").chmod(0)
    with pytest.raises(DeviceError, match="run as the user who owns the device root"):
        Device(root).activate()


def test_unreadable_records_are_clear_errors(root: Path, bundles: list[Path]) -> None:
    """A directory where a file should be."""
    Device(root).stage(bundles[0])
    (root / "state.copy.json").unlink()
    for name, read in (("state.json", read_state), ("history.jsonl", read_history)):
        (root / name).unlink()
        (root / name).mkdir()
        with pytest.raises(DeviceError, match=name):
            read(root)  # type: ignore[operator]
