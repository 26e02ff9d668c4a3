"""Pushes over real SSH servers on loopback: three devices, each its own root, host key and authorised key."""

from __future__ import annotations

import getpass
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from deploy.cli import BUSY, cli
from deploy.install import Device
from deploy.record import INCOMING, DeviceBusy, read_history, read_state
from deploy.slots import Slots
from deploy.ssh import SshTransport
from deploy.ssh_target import SshTarget
from tests.support.cuts import campaign
from tests.support.sshd import Sshd, Wire, inventory, keygen, needs_sshd

pytestmark = needs_sshd
PROGRAM = str(Path(sys.executable).with_name("deploy"))


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The key of who pushes; made by the first server."""
    return tmp_path_factory.mktemp("identity") / "push_ed25519"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, identity: Path) -> Iterator[list[Sshd]]:
    """Three devices."""
    folder = tmp_path_factory.mktemp("sshd")
    started = [Sshd(folder / name, identity) for name in ("d1", "d2", "d3")]
    yield started
    for server in started:
        server.stop()


@pytest.fixture
def devices(servers: list[Sshd]) -> list[Sshd]:
    """The same, with nothing on them."""
    for server in servers:
        shutil.rmtree(server.root, ignore_errors=True)
    return servers


@pytest.fixture
def listed(tmp_path: Path, identity: Path, devices: list[Sshd]) -> Path:
    """Their inventory."""
    return inventory(tmp_path / "devices.toml", identity, {f"d{i}": (s, s.port) for i, s in enumerate(devices, 1)})


def run(*arguments: object) -> Result:
    """`deploy`."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def output(*arguments: object) -> Any:
    """The JSON a command prints; it must succeed."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_push_status_list_rollback_of_three_devices(
    listed: Path, devices: list[Sshd], bundles: list[Path], shas: list[str]
) -> None:
    """The same words and the same answers as for a directory; what has the bundle is not sent it again."""
    options = ("--inventory", listed)
    for path, digest in zip(bundles[:2], shas[:2], strict=True):
        pushed = output("push", path, "all", *options)
        assert [told["done"] for told in pushed["devices"]] == [["stage", "activate"]] * 3
        assert [told["device"] for told in pushed["devices"]] == ["d1", "d2", "d3"]
        for server in devices:
            Device(server.root).confirm(digest)
    assert output("push", bundles[1], "d3", *options)["devices"][0]["done"] == []
    status = output("status", "d2", *options)["devices"][0]
    assert (status["active"], status["slots"]["b"]["intact"], status["error"]) == ("b", True, "")
    assert " through " in status["history"][-2]["who"]
    assert [told["judges"]["name"] for told in output("list", "d1", "d3", *options)["devices"]] == ["two"] * 2
    began = time.monotonic()
    assert output("rollback", "all", "--reason", "why", *options)["devices"][2]["done"] == ["rollback"]
    assert time.monotonic() - began < 10
    assert [read_state(server.root).active for server in devices] == ["a"] * 3
    assert [list((server.root / INCOMING).glob("*.lgb*")) for server in devices] == [[]] * 3


def test_a_dry_run_over_ssh_changes_nothing(listed: Path, devices: list[Sshd], bundles: list[Path]) -> None:
    """Not a file."""
    told = output("push", bundles[0], "d1", "--dry-run", "--inventory", listed)["devices"][0]
    assert (told["plan"], told["done"]) == (["stage", "activate"], [])
    assert not devices[0].root.exists()


def test_a_damaged_bundle_is_repaired_over_ssh(listed: Path, devices: list[Sshd], bundles: list[Path]) -> None:
    """By pushing it again."""
    output("push", bundles[0], "d1", "--inventory", listed)
    path = devices[0].root / "slots/a/bundle.lgb"
    path.write_bytes(path.read_bytes()[:-1])
    assert output("push", bundles[0], "d1", "--inventory", listed)["devices"][0]["done"] == ["repair"]
    assert path.read_bytes() == bundles[0].read_bytes()


def test_an_enrolled_device_verifies_what_comes_over_ssh(
    tmp_path: Path, listed: Path, devices: list[Sshd], bundles: list[Path]
) -> None:
    """Unsigned and signed for another device: refused before a byte is sent, each with a line of history."""
    keys, bundle = tmp_path / "keys", Path(shutil.copy(bundles[0], tmp_path / "one.lgb"))
    output("keys", "init", keys)
    output("enrol", f"file:{devices[0].root}", "--root", keys / "root.json", "--id", "press-1")
    for signed_for, kind in (("", "UnsignedBundle"), ("press-2", "WrongDevice")):
        if signed_for:
            output("sign", bundle, "--keys", keys, "--devices", signed_for)
        for extra in ("--dry-run",), ():
            result = run("push", bundle, "d1", "--inventory", listed, "--json", *extra)
            assert result.exit_code == 2
            assert json.loads(result.stdout)["devices"][0]["kind"] == kind
    output("sign", bundle, "--keys", keys, "--devices", "press-1")
    assert output("push", bundle, "d1", "--inventory", listed)["devices"][0]["enrolled"] is True
    history = read_history(devices[0].root)
    assert [line.what for line in history] == ["enrol", "refuse", "refuse", "stage", "activate"]
    assert history[1].reason.startswith("UnsignedBundle")


def test_who_is_not_the_pinned_device_gets_nothing(
    tmp_path: Path, identity: Path, devices: list[Sshd], bundles: list[Path]
) -> None:
    """Another host key than the inventory's; then none known at all: refused, never learnt."""
    pinned = inventory(
        tmp_path / "i.toml", identity, {"d1": (devices[0], devices[0].port)}, d1=devices[1].host_key
    )  # fmt: skip
    result = run("push", bundles[0], "d1", "--inventory", pinned)
    assert result.exit_code == 2
    assert "host key is not the pinned one" in result.stderr
    known = tmp_path / "known_hosts"
    address = f"ssh://127.0.0.1:{devices[0].port}{devices[0].root}"
    for text in (None, "", f"[127.0.0.1]:{devices[0].port} {devices[1].host_key}\n"):
        if text is not None:
            known.write_text(text)
        result = run("push", bundles[0], address, "--known-hosts", known, "--identity", identity)
        assert result.exit_code == 2
        assert "host key" in result.stderr
    assert known.read_text().endswith(f"{devices[1].host_key}\n")
    assert not devices[0].root.exists()


def test_a_key_that_is_not_authorised_is_a_clear_error(
    tmp_path: Path, devices: list[Sshd], bundles: list[Path]
) -> None:
    """No password is asked for."""
    other = tmp_path / "other"
    keygen(other)
    listed = inventory(tmp_path / "i.toml", other, {"d1": (devices[0], devices[0].port)})
    assert "authorized_keys" in run("push", bundles[0], "d1", "--inventory", listed).stderr
    other.chmod(0o644)
    assert "chmod 600" in run("push", bundles[0], "d1", "--inventory", listed).stderr


def test_a_device_without_lineguard_says_so(tmp_path: Path, listed: Path, bundles: list[Path]) -> None:
    """What its shell said is in the error; the others get the bundle."""
    listed.write_text(listed.read_text().replace('/bin/deploy"', '/bin/absent"'))
    result = run("push", bundles[0], "d1", "--inventory", listed)
    assert result.exit_code == 2
    assert "absent" in result.stderr


def test_a_key_tied_to_serve_can_push_and_nothing_else(tmp_path: Path, identity: Path, bundles: list[Path]) -> None:
    """authorized_keys names the command and the directory; what the workstation asks for is ignored."""
    root = tmp_path / "tied" / "root"
    server = Sshd(tmp_path / "tied", identity, f"{PROGRAM} serve {root}")
    try:
        known = tmp_path / "known_hosts"
        known.write_text(f"[127.0.0.1]:{server.port} {server.host_key}\n")
        address = f"ssh://127.0.0.1:{server.port}/somewhere/else"
        output("push", bundles[0], address, "--known-hosts", known, "--identity", identity)
    finally:
        server.stop()
    assert read_state(root).active == "a"


def test_of_two_pushes_at_once_one_wins_and_the_other_is_busy(
    tmp_path: Path, identity: Path, devices: list[Sshd], bundles: list[Path], shas: list[str]
) -> None:
    """The second program comes while the first one's bundle is on its way: exit codes 0 and 75, the first has won."""
    wire = Wire(devices[0].port)
    wire.stall_after = 20_000
    both = {"d1": (devices[0], wire.port), "d2": (devices[0], devices[0].port)}
    listed = inventory(tmp_path / "i.toml", identity, both)
    first = subprocess.Popen([PROGRAM, "push", bundles[0], "d1", "--inventory", listed], stdout=subprocess.DEVNULL)
    assert wire.stalled.wait(30)
    second = run("push", bundles[1], "d2", "--inventory", listed)
    wire.go_on.set()
    assert first.wait(60) == 0
    wire.close()
    assert second.exit_code == BUSY
    assert "BUSY, somebody else is pushing to this device" in second.stderr
    active = read_state(devices[0].root).active_slot
    assert active is not None
    assert active.sha256 == shas[0]


def test_a_plan_made_before_somebody_else_was_done_is_not_carried_out(
    devices: list[Sshd], identity: Path, bundles: list[Path], shas: list[str]
) -> None:
    """Facts, then another push, then this one: BUSY, though nobody holds the lock any more."""
    target = SshTarget("d1", "127.0.0.1", devices[0].port, getpass.getuser(), str(devices[0].root), PROGRAM,
                       devices[0].host_key, identity=identity)  # fmt: skip
    late, soon = SshTransport(target), SshTransport(target)
    assert late.slots() == soon.slots() == Slots()
    soon.stage(bundles[0], lambda _done, _total: None)
    soon.activate(shas[0])
    with pytest.raises(DeviceBusy, match="has changed this device meanwhile"):
        late.stage(bundles[1], lambda _done, _total: None)
    for transport in (late, soon):
        transport.close()
    assert read_state(devices[0].root).a.sha256 == shas[0]


def test_a_connection_cut_anywhere_leaves_nothing_and_the_next_push_resumes(
    tmp_path: Path, identity: Path, devices: list[Sshd], bundles: list[Path]
) -> None:
    """At 5 offsets spread over the connection (`make push-cuts`: 300). The later ones find something to go on from."""
    found = campaign(
        tmp_path,
        devices[0],
        identity,
        bundles[0],
        lambda total: (100, *(total * n // 100 for n in (50, 82, 90)), total - 40),
    )
    assert (found.cuts, found.nothing + found.whole) == (5, 5)
    assert found.nothing >= 4
    assert found.resumed >= 2
