"""Many devices at once, canaries, inventories and USB sticks, on device roots of this machine."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from calibration.errors import InputError
from deploy.cli import BUSY, cli
from deploy.files import exclusive
from deploy.install import Device
from deploy.inventory import Ways, read_inventory
from deploy.record import LOCK, read_state
from deploy.rollout import Rollout, push
from deploy.slots import Slots, SlotState


def run(*arguments: object) -> Result:
    """`deploy`."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@contextmanager
def appliances(roots: list[Path], bad: frozenset[str] = frozenset()) -> Iterator[None]:
    """Ends every trial on these device roots as a daemon does; those named in `bad` reject."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            for root in (root for root in roots if (root / "state.json").exists()):
                slot = read_state(root).active_slot
                if slot is not None and slot.state is SlotState.TRIAL:
                    device = Device(root, wait_s=5)
                    if root.name in bad:
                        device.reject(slot.sha256, "goldens failed")
                    else:
                        device.confirm(slot.sha256)

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.fixture
def roots(tmp_path: Path) -> list[Path]:
    """Six devices that are not there yet."""
    return [tmp_path / f"d{i}" for i in range(6)]


def test_the_others_follow_once_the_canaries_have_confirmed(roots: list[Path], bundles: list[Path]) -> None:
    """All are confirmed, in the order they were named."""
    with appliances(roots):
        report = push(bundles[0], [f"file:{root}" for root in roots], rollout=Rollout(3, 2, 20))
    assert [outcome.trial for outcome in report.devices] == ["confirmed"] * 6
    assert [outcome.address for outcome in report.devices] == [f"file:{root}" for root in roots]


def test_a_canary_that_rejects_stops_the_roll_out(roots: list[Path], bundles: list[Path]) -> None:
    """Nobody else was touched; the report says why."""
    with appliances(roots, frozenset({"d1"})):
        report = push(bundles[0], [f"file:{root}" for root in roots], rollout=Rollout(3, 2, 20))
    assert [outcome.kind for outcome in report.devices] == ["", "TrialFailed", *["Stopped"] * 4]
    assert "goldens failed" in report.devices[5].error
    assert not any(root.exists() for root in roots[2:])


def test_a_failed_trial_stops_what_was_not_begun(roots: list[Path], bundles: list[Path]) -> None:
    """One at a time, no canary: the third rejects, the fourth is never reached."""
    with appliances(roots, frozenset({"d2"})):
        report = push(bundles[0], [f"file:{root}" for root in roots], rollout=Rollout(1, 0, 20))
    assert [outcome.kind for outcome in report.devices] == ["", "", "TrialFailed", *["Stopped"] * 3]


def test_a_trial_nobody_ends_is_told_and_stops_the_roll_out(roots: list[Path], bundles: list[Path]) -> None:
    """No appliance runs there."""
    report = push(bundles[0], [f"file:{root}" for root in roots[:2]], rollout=Rollout(1, 1, 0.6))
    assert [outcome.kind for outcome in report.devices] == ["TrialPending", "Stopped"]
    assert "is the appliance running there?" in report.devices[0].error


def test_no_more_devices_at_once_than_asked_for(roots: list[Path], bundles: list[Path]) -> None:
    """Counted while they are copied to."""
    now, most, lock = 0, 0, threading.Lock()

    @contextmanager
    def watch(_address: str) -> Iterator[Callable[[int, int], None]]:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05)
        yield lambda _done, _total: None
        with lock:
            now -= 1

    push(bundles[0], [f"file:{root}" for root in roots], watch, rollout=Rollout(2))
    assert most == 2


@pytest.mark.parametrize("wrong", [{"jobs": 0}, {"canary": -1}, {"canary": 1}, {"wait_s": float("nan")}])
def test_a_roll_out_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    """A canary that nobody waits for tells nothing."""
    with pytest.raises(InputError, match="--"):
        Rollout(**wrong)  # type: ignore[arg-type]


def test_a_device_under_change_is_busy(roots: list[Path], bundles: list[Path]) -> None:
    """Exit code 75 where waiting is all there is to do."""
    push(bundles[0], [f"file:{roots[0]}"])
    with exclusive(roots[0] / LOCK, 0) as got:
        assert got
        result = run("push", bundles[1], f"file:{roots[0]}")
    assert result.exit_code == BUSY
    assert "BUSY" in result.stderr


GOOD = """\
[ssh]
user = "lineguard"
identity = "key"
[devices.press-1]
host = "10.1.0.1"
host_key = "ssh-ed25519 AAAA"
[devices.press-2]
host = "10.1.0.2"
port = 2222
[groups]
hall = ["press-2", "press-1"]
all = ["hall", "press-1"]
"""


def test_names_and_groups_of_an_inventory(tmp_path: Path) -> None:
    """Each device once, in order; files are found beside the inventory."""
    path = tmp_path / "devices.toml"
    path.write_text(GOOD)
    assert read_inventory(path).members("all") == ["press-2", "press-1"]
    found = Ways(path).reach(["all"])
    assert [device.address for device in found] == ["press-2", "press-1"]
    assert json.loads(run("inventory", "--inventory", path, "--json").stdout)["devices"]["press-2"]["port"] == 2222
    assert "pinned here" in run("inventory", "--inventory", path).stdout


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('host = "10.1.0.1"', 'hots = "10.1.0.1"', "devices.press-1.host"),
        ("port = 2222", 'port = "2222"', "devices.press-2.port"),
        ("port = 2222", "port = 70000", "devices.press-2.port"),
        ('["press-2", "press-1"]', '["press-9"]', "group hall names press-9"),
        ('["press-2", "press-1"]', '["all"]', "holds itself"),
        ("hall =", "press-1 =", "is a device and a group"),
        ("[devices.press-1]", '[devices."a b"]', "name 'a b'"),
        ('host = "10.1.0.1"', 'host = "-oProxyCommand=x"', "devices.press-1.host"),
        ("[groups]", "[groups", "not valid TOML"),
        ("[ssh]", '[ssh]\npassword = "x"', "ssh.password"),
    ],
)
def test_a_wrong_inventory_is_a_clear_error(tmp_path: Path, old: str, new: str, told: str) -> None:
    """It names the file and the field."""
    path = tmp_path / "devices.toml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(InputError, match=r"devices\.toml") as caught:
        Ways(path).reach(["all"])
    assert told in str(caught.value)


def test_a_device_twice_is_refused_also_through_a_group(tmp_path: Path) -> None:
    """Two pushes onto one device would only get in each other's way."""
    path = tmp_path / "devices.toml"
    path.write_text(GOOD)
    with pytest.raises(InputError, match="press-1 is named twice"):
        Ways(path).reach(["press-1", "all"])


def test_a_bundle_travels_on_a_stick(tmp_path: Path, bundles: list[Path]) -> None:
    """Packed only when signed; installed only when what is on the stick is what was signed."""
    stick, keys, root = tmp_path / "stick", tmp_path / "keys", tmp_path / "device"
    bundle = Path(shutil.copy(bundles[0], tmp_path / "one.lgb"))
    stick.mkdir()
    assert run("keys", "init", keys).exit_code == 0
    assert run("enrol", f"file:{root}", "--root", keys / "root.json", "--id", "press-1").exit_code == 0
    assert "not signed" in run("pack", bundle, "--usb", stick).stderr
    assert "deploy pack" in run("install", "--from", stick, f"file:{root}").stderr
    assert run("sign", bundle, "--keys", keys).exit_code == 0
    assert run("pack", bundle, "--usb", stick, "--dry-run").exit_code == 0
    assert list(stick.iterdir()) == []
    assert run("pack", bundle, "--usb", stick).exit_code == 0

    carried = stick / "lineguard" / "bundle.lgb"
    whole = carried.read_bytes()
    carried.write_bytes(bundles[1].read_bytes())
    swapped = run("install", "--from", stick, f"file:{root}")
    assert (swapped.exit_code, read_state(root)) == (2, Slots())
    assert "not the bundle that was signed" in swapped.stderr
    carried.write_bytes(whole)
    installed = run("install", "--from", stick, f"file:{root}", "--json")
    assert json.loads(installed.stdout)["devices"][0]["done"] == ["stage", "activate"]
    active = read_state(root).active_slot
    assert active is not None
    assert active.name == "one"
