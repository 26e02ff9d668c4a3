"""Enrolment and signed pushes through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from deploy.cli import cli
from deploy.install import Device
from deploy.record import DeviceError, read_history, read_record, read_state, read_trust
from tests.support.tiny import tiny_bundle


def run(*arguments: object) -> Result:
    """Run `deploy`."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def output(*arguments: object) -> Any:
    """The JSON a command prints; it must succeed."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A key directory made by the command."""
    output("keys", "init", tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def bundle(tmp_path: Path, bundles: list[Path]) -> Path:
    """A bundle of this test's own."""
    return Path(shutil.copyfile(bundles[0], tmp_path / "one.lgb"))


def enrol(root: Path, keys: Path) -> Any:
    """By the command."""
    return output("enrol", f"file:{root}", "--root", keys / "root.json", "--id", "press-3")


def test_keys_enrol_sign_push(tmp_path: Path, keys: Path, bundle: Path) -> None:
    """The whole way: refused while unsigned, by dry run too; taken once signed."""
    device = f"file:{tmp_path}/d"
    assert enrol(tmp_path / "d", keys)["id"] == "press-3"
    for extra in ((), ("--dry-run",)):
        result = run("push", bundle, device, *extra)
        assert result.exit_code == 2
        assert "not signed" in result.stderr
    signed = output("sign", bundle, "--keys", keys, "--devices", "press-3,press-4")
    assert signed["terms"]["devices"] == ["press-3", "press-4"]
    pushed = run("push", bundle, device)
    assert pushed.exit_code == 0
    assert pushed.stderr == ""
    assert read_state(tmp_path / "d").active == "a"
    assert [line.what for line in read_history(tmp_path / "d")] == ["enrol", "refuse", "stage", "activate"]
    assert output("status", device)["devices"][0]["error"] == ""


def test_a_device_that_is_not_enrolled_takes_unsigned_bundles_with_a_warning(tmp_path: Path, bundle: Path) -> None:
    """On standard error, so that nobody takes it for the way it should be."""
    result = run("push", bundle, f"file:{tmp_path}/d")
    assert result.exit_code == 0
    assert "not enrolled: signatures are not checked" in result.stderr


def test_enrolment_is_for_good(tmp_path: Path, keys: Path, bundle: Path) -> None:
    """Not twice; and a device whose trust.json is gone takes nothing, signed or not."""
    root = tmp_path / "d"
    enrol(root, keys)
    result = run("enrol", f"file:{root}", "--root", keys / "root.json", "--id", "press-4")
    assert result.exit_code == 2
    assert "enrolled already, as press-3" in result.stderr
    (root / "trust.json").unlink()
    assert read_record(root).enrolled
    with pytest.raises(DeviceError, match=r"trust\.json: missing, though this device is enrolled"):
        Device(root).stage(bundle)
    assert run("push", bundle, f"file:{root}").exit_code == 2
    (root / "trust.json").write_text('{"version": 1}')
    with pytest.raises(DeviceError, match=r"trust\.json: damaged"):
        Device(root).stage(bundle)


def test_enrolment_keeps_what_judges_and_drops_what_was_staged_unsigned(tmp_path: Path, keys: Path) -> None:
    """The confirmed bundle goes on; the staged one may not become active by the back door."""
    root = tmp_path / "d"
    device = Device(root)
    device.stage(tiny_bundle(tmp_path / "one.lgb", name="one"))
    active = device.activate().active_slot
    assert active is not None
    device.confirm(active.sha256)
    device.stage(tiny_bundle(tmp_path / "two.lgb", name="two"))
    enrol(root, keys)
    slots = read_state(root)
    assert slots.active_slot is not None
    assert slots.active_slot.name == "one"
    assert slots.b.reason == "staged unsigned before this device was enrolled"


def test_an_enrolment_cut_short_is_ended_by_the_first_signed_push(tmp_path: Path, keys: Path, bundle: Path) -> None:
    """The power went between trust.json and the state: signatures are asked for, and the state catches up."""
    root = tmp_path / "d"
    enrol(root, keys)
    state = json.loads((root / "state.json").read_text())
    (root / "state.json").write_text(json.dumps({**state, "enrolled": False}))
    assert run("push", bundle, f"file:{root}").exit_code == 2
    output("sign", bundle, "--keys", keys)
    output("push", bundle, f"file:{root}")
    assert read_record(root).enrolled


def test_a_dry_run_of_enrolment_changes_nothing(tmp_path: Path, keys: Path) -> None:
    """Not even a directory is made."""
    output("enrol", f"file:{tmp_path}/d", "--root", keys / "root.json", "--id", "press-3", "--dry-run")
    assert not (tmp_path / "d").exists()


def test_the_device_follows_a_rotation_by_the_commands(tmp_path: Path, keys: Path, bundle: Path) -> None:
    """rotate, show, revoke, sign, push."""
    enrol(tmp_path / "d", keys)
    assert output("keys", "rotate", keys)["root"]["version"] == 2
    shown = output("keys", "show", keys)
    signing = next(key for key, role in shown["keys"].items() if role == "signing")
    assert output("keys", "revoke", keys, signing[:10])["root"]["removed"] == [signing]
    output("sign", bundle, "--keys", keys)
    output("push", bundle, f"file:{tmp_path}/d")
    record = read_trust(tmp_path / "d")
    assert record is not None
    assert len(record.roots) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("enrol", "there", "--root", "{keys}/root.json", "--id", "a"), "enrol it where it is, as file:DIR"),
        (("enrol", "file:{tmp}/d", "--root", "{tmp}/none", "--id", "a"), "give the root.json of a key directory"),
        (("enrol", "file:{tmp}/d", "--root", "{keys}/root.json", "--id", "a b"), "use 1 to 64 letters"),
        (("keys", "init", "{keys}"), "never overwritten"),
        (("keys", "init", "{tmp}/new", "--threshold", "0"), "use 1 to 8 signers"),
        (("keys", "rotate", "{tmp}/none"), "makes a key directory"),
        (("keys", "revoke", "{keys}", "ffffffffffff"), "one id that `deploy keys show` lists"),
        (("sign", "{tmp}/none.lgb", "--keys", "{keys}"), "none.lgb"),
    ],
)
def test_unusable_input_is_one_line_and_exit_code_2(
    tmp_path: Path, keys: Path, arguments: tuple[str, ...], message: str
) -> None:
    """No traceback, the remedy named."""
    result = run(*(argument.format(keys=keys, tmp=tmp_path) for argument in arguments))
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
