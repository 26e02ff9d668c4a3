"""The operator's screen on a real daemon: the tiny bundle, replayed parts, the station's own database."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot

from appliance.client import fetch_status
from appliance.config import Station, load_station
from appliance.messages import Counts, State
from appliance.tui.app import LineguardApp
from appliance.tui.feed import NoAnswerError, RefusedError
from appliance.tui.station import StationSource
from tests.appliance.tui_data import screen_text, shows, until
from tests.appliance.tui_pty import terminal
from tests.support.tiny import tiny_bundle, write_parts

CONFIG = """
[station]
name = "screen-test"
data = "data"
bundle = "tiny.lgb"

[camera.top]
source = "folder"
path = "frames"
fps = 100.0
loop = true
count = {count}

[drift]
window = 40
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, and parts of which every second one is scratched: the predictions drift against the baseline."""
    path = tmp_path_factory.mktemp("station")
    tiny_bundle(path / "tiny.lgb")
    write_parts(path / "frames", 40, every=2)
    (path / "frames" / "part-00006-ok.png").write_bytes(b"no picture")
    return path


@contextmanager
def daemon(folder: Path, count: int) -> Iterator[tuple[Station, subprocess.Popen[bytes]]]:
    """A station with a daemon that judges `count` parts, 100 a second; killed at the end if it still runs."""
    config = folder / "station.toml"
    config.write_text(CONFIG.format(count=count))
    process = subprocess.Popen(
        [sys.executable, "-m", "appliance.cli", "run", "--config", str(config)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        yield load_station(config), process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def rows(station: Station) -> Counts:
    """The counts of the verdict rows, read without any code of the product."""
    with closing(sqlite3.connect(station.station.data / "station.db")) as connection:
        found = dict(connection.execute("SELECT reason, count(*) FROM verdict GROUP BY reason"))
    total, ok, defect, unsure = sum(found.values()), found.get("", 0), found.get("DEFECT", 0), found.get("UNSURE", 0)
    return Counts(triggers=total, ok=ok, defect=defect, unsure=unsure, not_inspected=total - ok - defect - unsure)


ROWS = {
    "ok": "● OK",
    "defect": "■ DEFECT",
    "unsure": "▲ UNSURE",
    "not_inspected": "○ NOT INSPECTED",
    "triggers": "  of triggers",
}


def on_screen(app: LineguardApp) -> Counts | None:
    """The counts as the operator reads them; None where dashes stand for them."""
    text = screen_text(app)
    found = {name: re.search(rf"^ {label} +([\d,]+)\b", text, re.MULTILINE) for name, label in ROWS.items()}
    numbers = {name: int(match[1].replace(",", "")) for name, match in found.items() if match}
    return Counts(**numbers) if numbers else None


def eventually(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something is true. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.05)


async def test_counts_are_equal_in_database_status_and_screen(folder: Path) -> None:
    """Every part of a whole run is counted once, in the same class, in all three places; the run's end is told."""
    with daemon(folder, 300) as (station, process):
        app = LineguardApp(StationSource(station), "Jana", poll_s=0.3)
        async with app.run_test(size=(80, 24)) as pilot:
            await shows(pilot, "parts are being judged")
            await shows(pilot, "○ DECODE")
            await until(pilot, lambda: process.poll() is not None)
            assert process.returncode == 0
            await shows(pilot, "○ STOPPED")
            counts = on_screen(app)
            assert counts is not None
            assert counts.triggers == 300
            assert counts.not_inspected >= 7
            assert counts == rows(station) == fetch_status(station).counts


async def _acknowledge(pilot: Pilot[None], station: Station, operator: str) -> None:
    """Acknowledge the selected alert by keys, and find the name in the database."""
    await pilot.press("a", "enter")
    await shows(pilot, f"acknowledged by {operator}")
    with closing(sqlite3.connect(station.station.data / "station.db")) as connection:
        names = [name for (name,) in connection.execute("SELECT acknowledged_by FROM alert")]
    assert operator in names


async def test_a_silent_daemon_is_not_believed_and_its_alert_is_acknowledged(folder: Path) -> None:
    """A drift alert reaches the screen and is acknowledged there; a stopped process is silent; it comes back."""
    with daemon(folder, 1_000_000) as (station, process):
        app = LineguardApp(StationSource(station, timeout_s=0.5), "Jana", poll_s=0.3)
        async with app.run_test(size=(80, 24)) as pilot:
            await shows(pilot, "▲ DEGRADED")
            await shows(pilot, "► ")
            await _acknowledge(pilot, station, "Jana")
            process.send_signal(signal.SIGSTOP)
            await shows(pilot, "NO CONNECTION   since")
            assert "does not answer within 0.5 s" in screen_text(app)
            assert on_screen(app) is None
            with pytest.raises(NoAnswerError, match="does not answer"):
                StationSource(station, timeout_s=0.2).acknowledge(1, "Jana")
            process.send_signal(signal.SIGCONT)
            await until(pilot, lambda: app.view.live is not None)
            process.terminate()
            eventually(lambda: process.poll() is not None)
            await shows(pilot, "○ STOPPED")
            assert fetch_status(station).state is State.STOPPED
            with pytest.raises(RefusedError):
                StationSource(station).acknowledge(999_999, "Jana")
            assert on_screen(app) == rows(station)
            if app.view.feed.open_alerts:
                await _acknowledge(pilot, station, "Jana")


def test_what_happens_to_a_screen_does_not_reach_the_daemon(folder: Path) -> None:
    """A screen that is stopped for a while, and then killed, costs no verdict: parts are judged on."""
    with daemon(folder, 1_000_000) as (station, process):
        eventually(lambda: fetch_status(station).state in (State.RUN, State.DEGRADED))
        with terminal("-m", "appliance.cli", "tui", "--config", str(folder / "station.toml")) as it:
            it.read_until("NOT INSPECTED")
            it.read_until("parts are being judged")
            for blow in (signal.SIGSTOP, signal.SIGKILL):
                it.process.send_signal(blow)
                before = fetch_status(station)
                eventually(lambda b=before: fetch_status(station).counts.triggers > b.counts.triggers + 100)
        after = fetch_status(station)
        assert process.poll() is None
        missed = after.counts.not_inspected - before.counts.not_inspected
        unreadable = after.rejects_by_reason["DECODE"] - before.rejects_by_reason["DECODE"]
        assert missed == unreadable


async def test_a_station_that_never_ran_says_so(folder: Path, tmp_path: Path) -> None:
    """No daemon, no database: STOPPED, nothing counted, nothing invented."""
    (tmp_path / "station.toml").write_text(CONFIG.format(count=1))
    app = LineguardApp(StationSource(load_station(tmp_path / "station.toml")), poll_s=60)
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "it has never run")
        assert on_screen(app) == Counts()
