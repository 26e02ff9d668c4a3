"""A whole station with a live camera: from triggers to verdict rows, by the daemon as it runs on a line."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
import zmq

from appliance.client import trigger_camera
from appliance.config import load_station
from appliance.sources.keys import load_keys
from appliance.sources.listener import LineClient
from calibration.errors import InputError
from tests.appliance.stations import Daemon, appliance, make_station, rows


def live_station(directory: Path, camera: str, sections: str = "") -> Path:
    """A station whose camera is a stream that nobody sends."""
    config = make_station(directory, 1, sections=sections)
    stream = f'source = "rtsp"\nurl = "rtsp://127.0.0.1:1/none"\nframe_ms = 50\n{camera}'
    config.write_text(config.read_text().replace('source = "folder"\npath = "frames"', stream))
    return config


def test_software_triggers_of_a_camera_that_is_gone_are_rejected(tmp_path: Path) -> None:
    """One row for each, with serial and lot, NO_FRAME with what is wrong; an alert tells of the camera."""
    config = live_station(tmp_path, 'trigger = "software"')
    with pytest.raises(InputError, match="no daemon"):
        trigger_camera(load_station(config), "top", "", "")
    with Daemon(config) as daemon:
        daemon.until(lambda status: status.state.value in ("RUN", "DEGRADED", "HOLD"))
        daemon.until(lambda status: "cannot be opened" in status.cameras["top"])
        done = appliance("trigger", "top", "--serial", "A-1", "--lot", "L9", "--config", config, "--json")
        assert json.loads(done.stdout)["camera"] == "top", done.stderr
        trigger_camera(daemon.station, "top", "", "")
        status = daemon.until(lambda status: status.counts.triggers == 2)
        assert status.rejects_by_reason == {"NO_FRAME": 2}
        assert any(alert.kind == "CAMERA" for alert in status.alerts)
        for camera, serial, text in (("side", "", "software"), ("top", " bad", "no serial")):
            with pytest.raises(InputError, match=text):
                trigger_camera(daemon.station, camera, serial, "")
        daemon.until(lambda _: rows(config, "SELECT COUNT(*) FROM verdict") == [(2,)])
    found = rows(config, "SELECT serial, lot, reason FROM verdict ORDER BY seq")
    assert found == [("A-1", "L9", "NO_FRAME"), ("2", "L1", "NO_FRAME")]


def test_trigger_messages_reach_the_rows(tmp_path: Path) -> None:
    """Keys made by the command; ids in order, one left out: a row for each part that the line counted."""
    config = live_station(tmp_path, 'trigger = "message"\nlisten = "tcp://127.0.0.1:0"')
    refused = appliance("run", "--config", config)
    assert refused.returncode == 2
    assert "appliance keys" in refused.stderr
    made = appliance("keys", "--client", "plc", "--config", config, "--json")
    assert len(json.loads(made.stdout)["made"]) == 4, made.stderr
    directory = tmp_path / "keys"
    (directory / "station.key").chmod(0o644)
    assert "chmod 600" in appliance("run", "--config", config).stderr
    (directory / "station.key").chmod(0o600)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    config.write_text(config.read_text().replace("tcp://127.0.0.1:0", endpoint))
    secret = (directory / "plc.key").read_bytes().strip()
    client = LineClient(endpoint, load_keys(directory).public, zmq.curve_public(secret), secret)
    with Daemon(config) as daemon:
        daemon.until(lambda status: status.state.value in ("RUN", "DEGRADED", "HOLD"))
        for number in (41, 43):
            assert client.trigger(number, f"S{number}", timeout_s=5.0)["taken"]
            time.sleep(0.1)
        daemon.until(lambda _: rows(config, "SELECT COUNT(*) FROM verdict") == [(3,)])
    client.close()
    found = rows(config, "SELECT trigger, serial, reason FROM verdict ORDER BY seq")
    assert [(trigger, reason) for trigger, _, reason in found] == [(n, "NO_FRAME") for n in (41, 42, 43)]
    assert [serial for _, serial, _ in found] == ["S41", "2", "S43"]


def test_a_camera_process_that_hangs_is_killed_and_started_anew(tmp_path: Path) -> None:
    """Stopped, as by a driver that never comes back: its silence is noticed, another process takes its place, and
    triggers are answered again."""
    config = live_station(tmp_path, 'trigger = "software"', "[timing]\ncamera_timeout_s = 1.0\ndeadline_ms = 10000")
    with Daemon(config) as daemon:
        daemon.until(lambda status: status.state.value in ("RUN", "DEGRADED", "HOLD"))
        daemon.until(lambda status: "cannot be opened" in status.cameras["top"])
        before = daemon.workers()["camera"]
        os.kill(before, signal.SIGSTOP)
        status = daemon.until(lambda status: any("hung in its driver" in alert.message for alert in status.alerts))
        assert status.state.value != "FAULT"
        daemon.until(lambda _: daemon.workers().get("camera", before) != before)
        daemon.until(lambda status: "cannot be opened" in status.cameras["top"])
        trigger_camera(daemon.station, "top", "", "")
        daemon.until(lambda status: status.rejects_by_reason.get("NO_FRAME") == 1)
