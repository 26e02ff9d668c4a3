"""End to end: three devices behind real SSH servers, each with a running daemon; bad bundles come off by themselves."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from appliance.messages import State
from deploy.cli import cli
from deploy.record import read_state
from deploy.slots import SlotState
from tests.appliance.stations import Daemon, make_station, rows
from tests.appliance.test_switch import wrong_goldens
from tests.support.sshd import Sshd, inventory, needs_sshd
from tests.support.tiny import FRAME_HEIGHT, FRAME_WIDTH, tiny_bundle

pytestmark = needs_sshd
PACED = "loop = true\nfps = 20.0"
TRIAL = "[trial]\nframes = 90\nseconds = 0.5"


@dataclass
class Line:
    """One device: its server, its station and its daemon."""

    server: Sshd
    config: Path
    daemon: Daemon

    def judges(self) -> str:
        """The bundle that its daemon judges with, once it does."""
        return self.daemon.until(lambda s: s.state is State.RUN, 30).bundle_name


def deploy(*arguments: object) -> tuple[int, Any]:
    """Exit code and JSON of a command."""
    result = CliRunner().invoke(cli, [*map(str, arguments), "--json"])
    return result.exit_code, json.loads(result.stdout)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[tuple[Path, list[Line]]]:
    """An inventory of d1, d2 and d3, all judging with `first`; part 50 of d2 is brighter than any golden."""
    identity = tmp_path / "identity"
    with ExitStack() as stack:
        servers = [Sshd(tmp_path / name, identity) for name in ("d1", "d2", "d3")]
        for server in servers:
            stack.callback(server.stop)
        listed = inventory(tmp_path / "i.toml", identity, {f"d{i}": (s, s.port) for i, s in enumerate(servers, 1)})
        code, _ = deploy("push", tiny_bundle(tmp_path / "first.lgb", name="first"), "all", "--inventory", listed)
        assert code == 0
        lines = []
        for server in servers:
            config = make_station(server.folder, 60, PACED, TRIAL, bundle=server.root)
            if server is servers[1]:
                frame = np.random.default_rng(3).normal(215, 4, (FRAME_HEIGHT, FRAME_WIDTH)).clip(0, 254)
                cv2.imwrite(str(server.folder / "frames/part-00050-ok-bright.png"), frame.astype(np.uint8))
            lines.append(Line(server, config, stack.enter_context(Daemon(config))))
        yield listed, lines


def test_bad_bundles_come_off_by_themselves_and_the_report_names_them(
    tmp_path: Path, fleet: tuple[Path, list[Line]]
) -> None:
    """A trial that fails on part 50 stops the roll-out; goldens that fail never judge; the rest goes on; no part is
    lost; a roll-back is over in ten seconds."""
    listed, lines = fleet
    options = ("--inventory", listed, "--wait", 60)
    assert [line.judges() for line in lines] == ["first"] * 3

    dazzled = tiny_bundle(tmp_path / "dazzled.lgb", name="dazzled", dazzled=True)
    code, report = deploy("push", dazzled, "d2", "d1", "--canary", 1, *options)
    assert code == 2
    assert [(told["device"], told["kind"]) for told in report["devices"]] == [("d2", "TrialFailed"), ("d1", "Stopped")]
    assert "its engine failed on part" in report["devices"][0]["error"]
    assert "canary d2 failed" in report["devices"][1]["error"]

    code, report = deploy("push", wrong_goldens(tmp_path / "wrong.lgb"), "d3", *options)
    assert (code, report["devices"][0]["kind"]) == (2, "TrialFailed")
    assert "goldens" in report["devices"][0]["error"]

    good = tiny_bundle(tmp_path / "good.lgb", name="good")
    code, report = deploy("push", good, "d1", *options)
    assert (code, report["devices"][0]["trial"]) == (0, "confirmed")

    code, report = deploy("list", "all", "--inventory", listed)
    assert [told["judges"]["name"] for told in report["devices"]] == ["good", "first", "first"]
    assert ["goldens" in told["other"]["reason"] for told in report["devices"]] == [False, False, True]
    assert "failed on part" in report["devices"][1]["other"]["reason"]
    assert [line.judges() for line in lines] == ["good", "first", "first"]

    began = time.monotonic()
    assert deploy("rollback", "d1", "--reason", "by hand", "--inventory", listed)[0] == 0
    lines[0].daemon.until(lambda s: s.bundle_name == "first" and s.state is State.RUN, 10)
    assert time.monotonic() - began < 10
    back = lines[0].daemon.until(lambda s: s.bundle_name == "first")
    lines[0].daemon.until(lambda s: s.counts.triggers > back.counts.triggers + 50)

    for line in lines:
        line.daemon.stop(signal.SIGTERM)
        held = read_state(line.server.root).active_slot
        assert held is not None
        assert (held.name, held.state) == ("first", SlotState.CONFIRMED)
        found = rows(line.config, "SELECT trigger, bundle, reason FROM verdict ORDER BY trigger")
        assert [trigger for trigger, _, _ in found] == list(range(len(found)))
        assert found[-1][1] == held.sha256
        assert {reason for _, _, reason in found} <= {"", "DEFECT", "UNSURE", "ENGINE", "STOPPED"}
