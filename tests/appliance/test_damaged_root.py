"""A device root that has suffered while nobody looked: the daemon finds what is whole, or says that nothing is."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from appliance.config import load_station
from appliance.daemon import choose_bundle
from appliance.device_watch import DeviceWatch
from appliance.messages import State
from deploy.bundle import BundleError
from deploy.install import Device
from deploy.record import STATE, STATE_COPY, read_history, read_state, slot_path
from deploy.slots import SLOT_NAMES, SlotState
from tests.appliance.stations import Daemon, make_station, rows, run_json
from tests.support.tiny import tiny_bundle

PACED = "loop = true\nfps = 60.0"


def confirmed(root: Path, *bundles: Path) -> list[str]:
    """Pushed one after the other, each confirmed; their hashes."""
    device, hashes = Device(root), []
    for bundle in bundles:
        device.stage(bundle)
        slot = device.activate().active_slot
        assert slot is not None
        device.confirm(slot.sha256)
        hashes.append(slot.sha256)
    return hashes


def rot(root: Path, sha256: str) -> None:
    """One bit of a slot's bundle is another one."""
    name = read_state(root).find(sha256)
    assert name is not None
    path = slot_path(root, name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Of a device."""
    return tmp_path / "root"


@pytest.fixture
def bundles(tmp_path: Path) -> list[Path]:
    """Two that differ."""
    return [tiny_bundle(tmp_path / "first.lgb", name="first"), tiny_bundle(tmp_path / "second.lgb", name="second")]


def test_a_rotten_confirmed_bundle_is_left_for_the_one_before(tmp_path: Path, root: Path, bundles: list[Path]) -> None:
    """It judges again, an alert says why, and the device's history too; the rotten one is rejected."""
    first, second = confirmed(root, *bundles)
    rot(root, second)
    config = make_station(tmp_path, 3, bundle=root)
    summary = run_json(config)
    assert (summary["bundle"], summary["counts"]["triggers"]) == ("first", 3)
    slots = read_state(root)
    assert slots.active_slot is not None
    assert (slots.active_slot.sha256, slots.active_slot.state) == (first, SlotState.CONFIRMED)
    assert {slots[name].state for name in SLOT_NAMES} == {SlotState.CONFIRMED, SlotState.REJECTED}
    assert "damaged" in read_history(root)[-1].reason
    assert [kind for (kind,) in rows(config, "SELECT kind FROM alert")] == ["BUNDLE"]


def test_a_bundle_of_another_name_in_the_active_slot_is_left_too(root: Path, bundles: list[Path]) -> None:
    """Whole, but not the one that the record names."""
    first, second = confirmed(root, *bundles)
    name = read_state(root).find(second)
    assert name is not None
    slot_path(root, name).write_bytes(tiny_bundle(root.with_name("third.lgb"), name="third").read_bytes())
    assert choose_bundle(root).bundle.sha256 == first


def test_nothing_is_changed_for_somebody_who_only_asks(root: Path, bundles: list[Path]) -> None:
    """`appliance doctor` is told of the damage."""
    _, second = confirmed(root, *bundles)
    rot(root, second)
    before = read_state(root)
    with pytest.raises(BundleError):
        choose_bundle(root, repair=False)
    assert read_state(root) == before


def test_two_rotten_bundles_are_a_fault_until_one_is_whole(tmp_path: Path, root: Path, bundles: list[Path]) -> None:
    """Nothing is judged, the slots stay as they are, and the daemon answers; a push of the active bundle repairs it."""
    first, second = confirmed(root, *bundles)
    rot(root, first)
    rot(root, second)
    before = read_state(root)
    config = make_station(tmp_path, 10, PACED, bundle=root)
    with Daemon(config) as daemon:
        daemon.until(lambda s: s.state is State.FAULT and bool(s.uptime_s))
        assert read_state(root) == before
        assert rows(config) == []
        Device(root, wait_s=5.0).repair(bundles[1])
        daemon.until(lambda s: s.state is State.RUN and s.bundle_sha256 == second and s.counts.ok > 0)
        daemon.stop(signal.SIGTERM)


def test_a_lost_record_is_read_from_its_copy(tmp_path: Path, root: Path, bundles: list[Path]) -> None:
    """state.json is gone, and with it nothing."""
    confirmed(root, bundles[0])
    (root / STATE).unlink()
    assert run_json(make_station(tmp_path, 3, bundle=root))["bundle"] == "first"


def test_a_lost_record_beside_a_rotten_bundle_is_a_fault_that_waits(
    tmp_path: Path, root: Path, bundles: list[Path]
) -> None:
    """The copy says that this is a device root: the daemon does not give up, it waits for a push."""
    (first,) = confirmed(root, bundles[0])
    rot(root, first)
    (root / STATE).unlink()
    config = make_station(tmp_path, 10, PACED, bundle=root)
    with Daemon(config) as daemon:
        fault = daemon.until(lambda s: s.state is State.FAULT and bool(s.uptime_s))
        assert "damaged" in fault.state_reason


def test_the_watch_goes_on_by_the_copy(tmp_path: Path, root: Path, bundles: list[Path]) -> None:
    """No trouble while state.json is gone, and what changes then is seen."""
    confirmed(root, bundles[0])
    station = load_station(make_station(tmp_path, 1, bundle=root))
    watch = DeviceWatch(root, station.station.name)
    (root / STATE).unlink()
    watch.look()
    assert watch.trouble == ""
    before = (root / STATE_COPY).read_bytes()
    (second,) = confirmed(root, bundles[1])
    (root / STATE).unlink()
    assert (root / STATE_COPY).read_bytes() != before
    watch.look()
    assert watch.trouble == ""
    assert watch.wanted is not None
    assert watch.wanted.sha256 == second
