"""Stations for tests: a tiny bundle, some parts, a station.toml, and the daemon as a real process."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from appliance.client import fetch_status
from appliance.config import Station, load_station
from appliance.messages import Status
from tests.support.tiny import tiny_bundle, write_parts

ROOT = Path(__file__).resolve().parents[2]


def make_station(
    directory: Path, parts: int = 20, camera: str = "", sections: str = "", bundle: Path | None = None
) -> Path:
    """A station.toml with everything it names; returns its path. `camera` and `sections` are further TOML lines."""
    frames = directory / "frames"
    if parts:
        write_parts(frames, parts)
    if "[timing]" not in sections:  # a busy test machine is no reason for late parts
        sections += "\n[timing]\ndeadline_ms = 10000"
    if "[engine]" not in sections:  # to time whether a second one pays can take a second of each start
        sections += "\n[engine]\nthreads = 1"
    if bundle is None:
        bundle = tiny_bundle(directory / "tiny.lgb")
    config = directory / "station.toml"
    config.write_text(
        f'[station]\nname = "test"\ndata = "data"\nbundle = {json.dumps(str(bundle))}\nlot = "L1"\n'
        f'[camera.top]\nsource = "folder"\npath = "frames"\n{camera}\n{sections}\n',
        encoding="utf-8",
    )
    return config


def command(*arguments: object) -> list[str]:
    """`appliance ...` as this checkout has it."""
    return [sys.executable, "-m", "appliance.cli", *map(str, arguments)]


def appliance(*arguments: object, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=timeout, env={**os.environ}
    )


def run_json(config: Path, *arguments: object, timeout: float = 60) -> dict[str, Any]:
    """`appliance run --json` to its end; its summary."""
    done = appliance("run", "--config", config, "--json", *arguments, timeout=timeout)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


class Daemon:
    """`appliance run` in the background; killed at the end of the `with` block if it still runs."""

    def __init__(self, config: Path, *arguments: object) -> None:
        self.station: Station = load_station(config)
        self.process = subprocess.Popen(
            command("run", "--config", config, "--json", *arguments),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def until(self, good: Callable[[Status], bool], timeout: float = 30.0) -> Status:
        """Poll the status until `good`."""
        deadline = time.monotonic() + timeout
        while True:
            status = fetch_status(self.station)
            if good(status):
                return status
            assert time.monotonic() < deadline, f"still {status!r}"
            assert self.process.poll() is None, self.process.communicate()[1]
            time.sleep(0.05)

    def workers(self) -> dict[str, int]:
        """Pids of its child processes by kind."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                except (OSError, ValueError):
                    continue
                if parent == self.process.pid and b"appliance.worker" in words:
                    found[words[words.index(b"appliance.worker") + 1].decode()] = int(entry.name)
        return found

    def stop(self, number: int, timeout: float = 10.0) -> dict[str, Any]:
        """Send a signal and wait for the summary."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=timeout)
        assert self.process.returncode == 0, err
        result: dict[str, Any] = json.loads(out)
        return result


def rows(config: Path, query: str = "SELECT * FROM verdict ORDER BY seq") -> list[tuple[Any, ...]]:
    """Rows of the station's database."""
    with closing(sqlite3.connect(config.parent / "data" / "station.db")) as connection:
        return connection.execute(query).fetchall()


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
