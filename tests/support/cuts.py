"""Pushes over a real SSH server whose connection is cut after so many bytes, and the push after each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from deploy.bundle import open_bundle
from deploy.cli import cli
from deploy.incoming import transfer_lock
from deploy.record import check_usable, read_state
from deploy.slots import Slots, SlotState
from tests.support.sshd import Sshd, Wire, inventory


@dataclass(frozen=True)
class Cuts:
    """What a campaign found.

    Attributes:
        cuts: connections cut.
        nothing: cuts after which nothing could be seen on the device.
        whole: cuts that came too late: the whole bundle was there, verified, in its slot.
        resumed: next pushes that sent less than the whole bundle.
        total: bytes of an uncut connection.
    """

    cuts: int
    nothing: int
    whole: int
    resumed: int
    total: int


def campaign(
    folder: Path, server: Sshd, identity: Path, bundle: Path, offsets: Callable[[int], Iterable[int]]
) -> Cuts:  # fmt: skip
    """Cut at each offset, look at the device, push again uncut. Raises AssertionError at the first thing wrong.

    Args:
        offsets: from the bytes of an uncut connection to the bytes after which to cut.
    """
    wire = Wire(server.port)
    listed = inventory(folder / "wire.toml", identity, {"d1": (server, wire.port)})
    sha256, size = open_bundle(bundle).sha256, bundle.stat().st_size
    pushed(bundle, listed)
    total = wire.up
    found = {"cuts": 0, "nothing": 0, "whole": 0, "resumed": 0}
    for cut in offsets(total):
        shutil.rmtree(server.root, ignore_errors=True)
        wire.cut_after = cut
        result = CliRunner().invoke(cli, ["push", str(bundle), "d1", "--inventory", str(listed)])
        held = settled(server.root)
        if held == Slots():
            assert result.exit_code == 2, result.output
            assert not list(server.root.glob("slots/*/bundle.lgb"))
        else:  # what the device began with all of it there, it ended alone
            assert wire.up > size
            assert held.a.sha256 == sha256
            assert held.a.state in (SlotState.STAGED, SlotState.TRIAL)
        wire.cut_after = None
        assert pushed(bundle, listed) == "running"
        assert (server.root / "slots/a/bundle.lgb").read_bytes() == bundle.read_bytes()
        found["cuts"] += 1
        found["nothing" if held == Slots() else "whole"] += 1
        found["resumed"] += held == Slots() and wire.up < total - 1000
    wire.close()
    return Cuts(**found, total=total)


def pushed(bundle: Path, listed: Path) -> str:
    """A push that must work; what the device thinks of the bundle."""
    result = CliRunner().invoke(cli, ["push", str(bundle), "d1", "--inventory", str(listed), "--json"])
    assert result.exit_code == 0, result.output
    return str(json.loads(result.stdout)["devices"][0]["trial"])


def settled(root: Path) -> Slots:
    """What the device holds once the program whose connection was cut is gone."""
    if not root.exists():
        return Slots()
    with transfer_lock(root, 10):
        return read_state(root) if check_usable(root) else Slots()
