"""A whole line: the station's files, the PLC, and the daemon as a process that is started, hurt and killed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from appliance.config import load_station
from appliance.paths import StationPaths, make_directories
from deploy.install import Device
from tests.faults.simulator.plc import Plc, PlcOrder
from tests.faults.simulator.settings import Settings
from tests.faults.simulator.world import EngineOrder, Event, Kind, Word, World
from tests.support.tiny import tiny_bundle, write_parts

ROOT = Path(__file__).resolve().parents[3]
ENGINE_TIMEOUT_S = 1.0
PLC_TIMEOUT_MS = 6000
CAMERA_TIMEOUT_S = 1.5
GONE_S = 30.0
"""Workers end with their supervisor; one that was only just started finds out when it has loaded its modules."""


class LineError(AssertionError):
    """The daemon did not do in time what it has to."""


class Line:
    """One line in a directory; use it in a `with` block.

    Attributes:
        world, settings: of the simulation.
        plc: which outlives the daemon.
        process: the daemon, None while there is none.
        starts_s: how long each start took until the first part was triggered, in seconds.
    """

    def __init__(self, directory: Path, settings: Settings, sections: str = "") -> None:
        """Make the station. `sections`: further lines of its station.toml."""
        self.directory, self.settings = directory, settings
        self.world: World = settings.world
        self.config = _station(directory, settings, sections)
        self.paths = StationPaths.of(load_station(self.config).station.data)
        make_directories(self.paths)
        self.plc = Plc(self.paths.relay)
        self.process: subprocess.Popen[bytes] | None = None
        self.starts_s: list[float] = []
        self._errors = (directory / "stderr").open("ab")

    def __enter__(self) -> Line:
        self.plc.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()
        self.plc.__exit__()
        self._errors.close()

    def launch(self) -> None:
        """Start the daemon and do not wait."""
        assert self.process is None
        for word in (Word.CAMERA, Word.ENGINE, Word.DISK):
            self.world.set(word, 0)
        self.plc.order(PlcOrder.NONE)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.simulator.daemon", "run", "--config", str(self.config), "--json"],
            cwd=ROOT,
            env=self.settings.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,  # one process group, which can be stopped as a whole
        )

    def start(self, timeout_s: float = 60.0) -> None:
        """Start the daemon and wait until it triggers parts."""
        parts, begin = self.world.parts, time.monotonic()
        self.launch()
        self.until(lambda: self.world.parts > parts, timeout_s, "RUN")
        self.starts_s.append(time.monotonic() - begin)

    def until(self, good: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait for something. Raises LineError when it does not come, or the daemon ends."""
        end = time.monotonic() + timeout_s
        while not good():
            if time.monotonic() > end:
                raise LineError(f"no {what} within {timeout_s} s; {self.last_words()}")
            if self.process is None or self.process.poll() is not None:
                raise LineError(f"the daemon ended while waiting for {what}; {self.last_words()}")
            time.sleep(0.01)

    def run_parts(self, parts: int, timeout_s: float = 60.0) -> None:
        """Let so many more parts be triggered."""
        target = self.world.parts + parts
        self.until(lambda: self.world.parts >= target, timeout_s, f"part {target}")

    def passes(self, more: int, timeout_s: float = 60.0) -> None:
        """Wait until so many more parts have passed: the line is well again."""
        target = len(self.plc.relay.accepted) + more
        self.until(lambda: len(self.plc.relay.accepted) >= target, timeout_s, f"{more} parts that pass")

    def shot(self, kind: Kind, timeout_s: float = 60.0) -> int:
        """Let this happen to the picture of the next part; the part's number."""
        first = self.world.parts
        self.world.set(Word.FRAME, kind)

        def found() -> list[int]:
            return [n for n in range(first, self.world.parts) if self.world.event(n).kind is kind]

        self.until(lambda: bool(found()), timeout_s, f"part that is {kind.name}")
        return found()[0]

    def order_engine(self, order: EngineOrder, timeout_s: float = 60.0) -> None:
        """Let the engine do this with its next batch, and wait until it has that batch in hand."""
        self.world.set(Word.ENGINE, order)
        self.until(lambda: not self.world.get(Word.ENGINE), timeout_s, f"batch for {order.name}")

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query now."""
        with closing(sqlite3.connect(f"file:{self.paths.database}?mode=ro", uri=True, timeout=5)) as database:
            return database.execute(query, values).fetchall()

    def until_rows(self, query: str, *values: Any, timeout_s: float = 60.0) -> list[tuple[Any, ...]]:
        """The rows of a query, once there are some."""
        self.until(lambda: bool(self.rows(query, *values)), timeout_s, query)
        return self.rows(query, *values)

    def worker(self, kind: str) -> int | None:
        """Pid of the camera or engine process; None while there is none."""
        assert self.process is not None
        try:
            tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
            pids = [pid for task in tasks for pid in (task / "children").read_text().split()]
        except OSError:
            return None
        for pid in pids:
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if len(words) > 1 and words[-2] == kind.encode():
                return int(pid)
        return None

    def kill_worker(self, kind: str) -> bool:
        """kill -9; whether there was one."""
        return self._signal(kind, signal.SIGKILL)

    def stop_worker(self, kind: str) -> bool:
        """It stands still and never answers again; whether there was one."""
        return self._signal(kind, signal.SIGSTOP)

    def pause(self, seconds: float) -> None:
        """Stop all processes of the appliance, as a suspended machine does, and let them go on."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.killpg(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """kill -9 of the supervisor; its workers die with it."""
        self._end(signal.SIGKILL)

    def abandon(self) -> None:
        """After a LineError: end whatever still runs."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self._end(signal.SIGTERM)

    def unseen(self, parts: int) -> None:
        """So many parts pass while no daemon runs."""
        assert self.process is None
        for _ in range(parts):
            self.world.add(Event(0, Kind.UNSEEN, 0))

    def last_words(self) -> str:
        """The end of what the daemon has said and put on record."""
        lines = (self.directory / "stderr").read_text(errors="replace").splitlines()
        said = [line for line in lines if "WARN" not in line][-6:]
        try:
            with closing(sqlite3.connect(self.paths.database, timeout=1)) as database:
                query = "SELECT action || ' ' || new FROM audit ORDER BY id DESC LIMIT 6"
                said += [text for (text,) in database.execute(query)][::-1]
        except sqlite3.Error:
            pass
        return " | ".join(said)[-1500:]

    def _signal(self, kind: str, number: int) -> bool:
        pid = self.worker(kind)
        if pid is None:
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def _end(self, number: int) -> int:
        assert self.process is not None
        workers = [pid for pid in (self.worker("camera"), self.worker("engine")) if pid is not None]
        self.process.send_signal(number)
        code = self.process.wait(15)
        end = time.monotonic() + GONE_S
        while any(_alive(pid) for pid in workers):  # the camera of before must not write into the journal any more
            if time.monotonic() > end:
                raise LineError(f"a worker has outlived its supervisor: {[_status(pid) for pid in workers]}")
            time.sleep(0.002)
        self.process = None
        return code


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _status(pid: int) -> str:
    try:
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
        )
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return f"{command}: {status['State']}, parent {status['PPid']}"
    except OSError:
        return "gone"


def _station(directory: Path, settings: Settings, sections: str) -> Path:
    """station.toml: the simulated camera stands in for the folder that it names."""
    write_parts(directory / "frames", 1)
    device = Device(directory / "root")
    device.stage(tiny_bundle(directory / "tiny.lgb"))
    device.activate()
    config = directory / "station.toml"
    config.write_text(
        f'[station]\nname = "line"\ndata = "data"\nbundle = {json.dumps(str(directory / "root"))}\n'
        f'[camera.top]\nsource = "folder"\npath = "frames"\nloop = true\nfps = {settings.fps}\n'
        f"[batch]\nsize = 8\nwait_ms = 5\n[timing]\ndeadline_ms = {settings.deadline_ms}\n"
        f"camera_timeout_s = {CAMERA_TIMEOUT_S}\n"
        f"[engine]\ntimeout_s = {ENGINE_TIMEOUT_S}\nthreads = 1\n"
        f'[output]\nkind = "relay"\ntimeout_ms = {PLC_TIMEOUT_MS}\n{sections}\n',
        encoding="utf-8",
    )
    return config
