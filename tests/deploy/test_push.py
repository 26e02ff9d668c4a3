"""Push and rollback: plans as data, then whole runs against device roots in a directory."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from calibration.errors import InputError
from deploy.bundle import BundleError
from deploy.install import Device, DeviceError, read_history, read_state
from deploy.inventory import Ways
from deploy.plan import Plan, plan_push
from deploy.rollout import push, rollback
from deploy.slots import Slot, Slots, SlotState


def sha(name: str) -> str:
    """The hash of a made-up bundle."""
    return hashlib.sha256(name.encode()).hexdigest()


def slot(state: str, name: str, reason: str = "") -> Slot:
    """A slot of a made-up bundle."""
    return Slot(SlotState(state), sha(name), name, 9, reason)


EMPTY = Slots()
ONE = Slots(a=slot("confirmed", "one"), active="a")
BOTH = Slots(slot("confirmed", "one"), slot("confirmed", "two"), "b")
STAGED = Slots(slot("confirmed", "one"), slot("staged", "two"), "a")
TRIAL = Slots(slot("confirmed", "one"), slot("trial", "two"), "b")
REJECTED = Slots(slot("confirmed", "one"), slot("rejected", "two", "goldens failed"), "a")


@pytest.mark.parametrize(
    ("slots", "wanted", "steps", "why"),
    [
        (EMPTY, "one", ("stage", "activate"), "into slot a"),
        (ONE, "two", ("stage", "activate"), "into slot b"),
        (ONE, "one", (), "the device has it, confirmed"),
        (TRIAL, "two", (), "the device has it, on trial"),
        (STAGED, "two", ("activate",), "staged already in slot b"),
        (STAGED, "three", ("stage", "activate"), "into slot b"),
        (BOTH, "one", ("stage", "activate"), "lies in slot a already, no copy needed"),
        (BOTH, "three", ("stage", "activate"), "into slot a"),
        (REJECTED, "three", ("stage", "activate"), "into slot b"),
    ],
)
def test_plans(slots: Slots, wanted: str, steps: tuple[str, ...], why: str) -> None:
    """Facts and wish to steps."""
    assert plan_push(slots, sha(wanted)) == Plan(steps, why)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("slots", "wanted", "why"),
    [
        (TRIAL, "three", "is on trial"),
        (TRIAL, "one", "already"),
        (REJECTED, "two", "rejected this bundle (goldens failed)"),
    ],
)
def test_blocked_plans(slots: Slots, wanted: str, why: str) -> None:
    """A running trial is waited for; what was rejected is not tried again by accident."""
    plan = plan_push(slots, sha(wanted))
    assert plan.blocked
    assert plan.steps == ()
    assert why in plan.why


@pytest.mark.parametrize(
    ("slots", "wanted", "steps"),
    [
        (ONE, "one", ("repair",)),
        (TRIAL, "one", ("repair",)),
        (TRIAL, "two", ("repair",)),
        (STAGED, "two", ("stage", "activate")),
        (BOTH, "one", ("stage", "activate")),
    ],
)
def test_plans_for_a_damaged_copy(slots: Slots, wanted: str, steps: tuple[str, ...]) -> None:
    """What judges, or is the fallback, is put back in its place; what waits is copied again."""
    plan = plan_push(slots, sha(wanted), intact=False)
    assert plan.steps == steps
    assert "damaged" in plan.why or steps[0] == "stage"


def test_a_damaged_active_bundle_is_repaired_by_pushing_it_again(tmp_path: Path, bundles: list[Path]) -> None:
    """The state stays; the history tells."""
    root = tmp_path / "d"
    push(bundles[0], [f"file:{root}"])
    path = root / "slots/a/bundle.lgb"
    path.write_bytes(path.read_bytes()[:-1])
    before = read_state(root)
    report = push(bundles[0], [f"file:{root}"])
    assert report.devices[0].done == ("repair",)
    assert path.read_bytes() == bundles[0].read_bytes()
    assert read_state(root) == before
    assert read_history(root)[-1].what == "repair"
    with pytest.raises(DeviceError, match="no slot holds this bundle"):
        Device(root).repair(bundles[1])


def test_a_rejected_bundle_is_tried_again_on_demand() -> None:
    """--retry."""
    assert plan_push(REJECTED, sha("two"), retry=True).steps == ("stage", "activate")


def test_push_puts_the_bundle_on_trial_everywhere(tmp_path: Path, bundles: list[Path], shas: list[str]) -> None:
    """Each device holds it, active and on trial; progress was shown per device."""
    watched: list[str] = []

    @contextmanager
    def watch(address: str) -> Iterator[object]:
        watched.append(address)
        yield lambda _done, _total: None

    addresses = [f"file:{tmp_path}/{name}" for name in ("d1", "d2")]
    report = push(bundles[0], addresses, watch)  # type: ignore[arg-type]
    assert (report.name, report.sha256, report.failed) == ("one", shas[0], ())
    assert [outcome.done for outcome in report.devices] == [("stage", "activate")] * 2
    assert sorted(watched) == addresses  # devices are pushed to at once, in no order
    for name in ("d1", "d2"):
        held = read_state(tmp_path / name)
        assert held.active_slot == Slot(SlotState.TRIAL, shas[0], "one", bundles[0].stat().st_size)


def test_a_second_push_skips_what_the_device_has(tmp_path: Path, bundles: list[Path]) -> None:
    """No step, no history line."""
    push(bundles[0], [f"file:{tmp_path}/d"])
    again = push(bundles[0], [f"file:{tmp_path}/d"])
    assert again.devices[0].done == ()
    assert again.devices[0].error == ""
    assert len(read_history(tmp_path / "d")) == 2


def test_an_interrupted_push_is_completed(tmp_path: Path, bundles: list[Path], shas: list[str]) -> None:
    """Staged but not activated: the next push activates."""
    Device(tmp_path / "d").stage(bundles[0])
    assert push(bundles[0], [f"file:{tmp_path}/d"]).devices[0].done == ("activate",)


def test_a_dry_run_changes_nothing(tmp_path: Path, bundles: list[Path]) -> None:
    """Not even a directory is made."""
    report = push(bundles[0], [f"file:{tmp_path}/d"], dry_run=True)
    assert report.devices[0].plan == Plan(("stage", "activate"), "into slot a")
    assert report.devices[0].done == ()
    assert list(tmp_path.iterdir()) == []


def test_one_bad_device_does_not_stop_the_others(tmp_path: Path, bundles: list[Path]) -> None:
    """The report names it and its reason; a device with nothing readable has no slots."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("")
    names = ("bad", "file/below", "good")
    report = push(bundles[0], [f"file:{tmp_path}/{name}" for name in names])
    assert [bool(outcome.error) for outcome in report.devices] == [True, True, False]
    assert [outcome.address for outcome in report.failed] == [f"file:{tmp_path}/bad", f"file:{tmp_path}/file/below"]
    assert report.devices[0].slots is None
    assert read_state(tmp_path / "good").active == "a"


def test_a_push_during_a_trial_is_blocked(tmp_path: Path, bundles: list[Path], shas: list[str]) -> None:
    """The trial goes on; the report says what to do."""
    device = Device(tmp_path / "d")
    push(bundles[0], [f"file:{tmp_path}/d"])
    device.confirm(shas[0])
    push(bundles[1], [f"file:{tmp_path}/d"])
    report = push(bundles[2], [f"file:{tmp_path}/d"])
    assert "roll back first" in report.failed[0].error
    assert read_state(tmp_path / "d").active == "b"


def test_a_bad_bundle_touches_no_device(tmp_path: Path, bundles: list[Path]) -> None:
    """It is verified before any device is reached."""
    bad = tmp_path / "bad.lgb"
    bad.write_bytes(bundles[0].read_bytes()[:-1])
    with pytest.raises(BundleError):
        push(bad, [f"file:{tmp_path}/d"])
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("/var/lib/x", "write file:/var/lib/x"),
        ("ssh:host", "write ssh://USER@HOST"),
        ("tcp:host", "unknown scheme 'tcp'"),
        ("ssh://host", "names no directory"),
        ("ssh://a:b@host/dir", "passwords are not used"),
        ("press-3", "no inventory"),
        ("file:", "names no directory"),
        ("", "no scheme"),
    ],
)
def test_an_address_that_names_no_device_is_a_clear_error(address: str, message: str) -> None:
    """It says what to write instead."""
    with pytest.raises(InputError, match=message):
        Ways().reach([address])


def test_a_device_named_twice_is_a_clear_error() -> None:
    """Two pushes onto one device at once would only get in each other's way."""
    with pytest.raises(InputError, match="named twice"):
        Ways().reach(["file:/a", "file:/b", "file:/a"])


def test_rollback_of_several_devices(tmp_path: Path, bundles: list[Path], shas: list[str]) -> None:
    """One goes back, one cannot: both are told, and a dry run told the same before."""
    device = Device(tmp_path / "d1")
    for path, digest in zip(bundles[:2], shas[:2], strict=True):
        push(path, [f"file:{tmp_path}/d1"])
        device.confirm(digest)
    push(bundles[0], [f"file:{tmp_path}/d2"])
    addresses = [f"file:{tmp_path}/{name}" for name in ("d1", "d2")]

    planned = rollback(addresses, "why", dry_run=True)
    assert planned[0].plan == Plan(("rollback",), "bundle one judges again")
    assert (planned[0].done, read_state(tmp_path / "d1").active) == ((), "b")

    done = rollback(addresses, "why")
    assert done[0].done == ("rollback",)
    assert read_state(tmp_path / "d1").active == "a"
    assert read_state(tmp_path / "d1").b.reason == "why"
    assert "no earlier confirmed bundle" in done[1].error == planned[1].error


def test_rollback_of_an_unknown_device_is_an_outcome(tmp_path: Path) -> None:
    """A directory that does not exist has nothing to go back to."""
    assert "no earlier confirmed bundle" in rollback([f"file:{tmp_path}/none"], "why")[0].error


def test_pushing_the_earlier_bundle_again_copies_nothing(tmp_path: Path, bundles: list[Path], shas: list[str]) -> None:
    """One, two, one: the file of one is still in its slot, and goes on trial again."""
    root = tmp_path / "d"
    for path, digest in zip(bundles[:2], shas[:2], strict=True):
        push(path, [f"file:{root}"])
        Device(root).confirm(digest)
    inode = (root / "slots/a/bundle.lgb").stat().st_ino
    push(bundles[0], [f"file:{root}"])
    assert (root / "slots/a/bundle.lgb").stat().st_ino == inode
    assert read_state(root).active == "a"
    shutil.rmtree(root)
