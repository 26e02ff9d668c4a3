"""Faults of the machine under a running line: no CPU, no memory, a loop that stands still, descriptors, logs, wear."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from appliance.store import Store, VerdictRow
from tests.appliance.stations import appliance, make_station, rows
from tests.faults.conftest import WAIT_S, Asked
from tests.faults.simulator.line import Line
from tests.faults.simulator.plc import BEAT_NS
from tests.faults.simulator.settings import Settings
from tests.faults.simulator.world import Word

HUNG_S = 2.0 * BEAT_NS / 1e9


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many others that want a whole core each."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()


def test_a_starved_line_passes_nothing_late(asked: Asked) -> None:
    """Fault 21: four programs a core want it too; what is late is rejected (checked for all parts at the end), and the
    line recovers."""
    first = asked.line.world.parts
    with busy(4 * (os.cpu_count() or 1)):
        asked.line.run_parts(100)
    asked.line.passes(10, 2 * WAIT_S)
    asked.row(first)


def test_an_engine_without_memory_dies_alone(asked: Asked) -> None:
    """Fault 22: it cannot even load; its parts are rejected, the next one gets memory, and everybody else lives."""
    camera, engine = asked.line.worker("camera"), asked.line.worker("engine")
    assert asked.line.kill_worker("engine")
    asked.wait(lambda: asked.line.worker("engine") not in (None, engine), "another engine")
    starved = asked.line.worker("engine")
    assert starved is not None
    resource.prlimit(starved, resource.RLIMIT_AS, (60 << 20, 60 << 20))
    asked.wait(lambda: asked.line.worker("engine") not in (None, starved), "an engine after the starved one")
    asked.line.passes(5, 2 * WAIT_S)
    assert asked.line.worker("camera") == camera


def test_restarts_leave_no_descriptor_behind(asked: Asked) -> None:
    """Fault 23: the supervisor has as many open as before its camera died."""
    assert asked.line.process is not None
    directory = f"/proc/{asked.line.process.pid}/fd"
    asked.line.passes(5)
    before, camera = len(os.listdir(directory)), asked.line.worker("camera")
    assert asked.line.kill_worker("camera")
    asked.wait(lambda: asked.line.worker("camera") not in (None, camera), "another camera")
    asked.line.passes(20)
    asked.wait(lambda: len(os.listdir(directory)) <= before, f"{before} descriptors")


def test_a_loop_that_stands_still_feeds_no_watchdog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 30: the disk takes seconds for a sync. Other threads live on, but systemd hears nothing, and the relay,
    which misses its heartbeat, lets nothing pass."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with Line(tmp_path, Settings(str(tmp_path), fps=80.0, deadline_ms=600.0, rates={})) as line:
            line.start()
            line.passes(5)
            line.world.set(Word.SYNC_MS, int(HUNG_S * 1000))
            line.until(lambda: bool(line.world.get(Word.SYNCING)), WAIT_S, "sync that hangs")
            systemd.setblocking(False)
            _heard(systemd)  # what was said before
            time.sleep(0.8 * HUNG_S)
            assert line.world.get(Word.SYNCING)
            assert not line.plc.relay.energised(time.monotonic_ns())
            assert not _heard(systemd)
            line.world.set(Word.SYNC_MS, 0)
            line.passes(5)
            assert b"WATCHDOG=1" in _heard(systemd)


def _heard(systemd: socket.socket) -> list[bytes]:
    """What lies there, and is taken away."""
    found = []
    with suppress(BlockingIOError):
        while True:
            found.append(systemd.recv(4096))
    return found


def test_a_storm_of_errors_is_no_storm_of_lines(tmp_path: Path) -> None:
    """Fault 87: hundreds of bad pictures in a few seconds; each has its row, the log has a few lines."""
    config = make_station(tmp_path, 0)
    (tmp_path / "frames").mkdir()
    for number in range(400):
        (tmp_path / "frames" / f"{number:04d}.png").write_bytes(b"no picture")
    done = appliance("run", "--config", config, "--json")
    assert done.returncode == 0, done.stderr
    assert rows(config, "SELECT count(*) FROM verdict WHERE verdict = 'REJECT'") == [(400,)]
    assert len(done.stderr) < 3000, done.stderr


def written(store: Store, group: int, total: int = 200) -> float:
    """Bytes written for each of `total` rows, committed in groups."""

    def so_far() -> int:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
        return int(dict(line.split(": ") for line in lines)["wchar"])

    before, first = so_far(), store.next_seq
    for number in range(total):
        store.add(_row(first + number), None)
        if (number + 1) % group == 0:
            store.commit()
    return (so_far() - before) / total


def _row(seq: int) -> VerdictRow:
    values: dict[str, object] = dict.fromkeys(VerdictRow._fields, 0)
    texts = ("camera", "frame", "serial", "lot", "utc", "boot_id", "decision", "verdict", "reason", "detail", "bundle")
    values.update(dict.fromkeys(texts, "text of usual length"), top_class="ok", logits=bytes(8), seq=seq, trigger=seq)
    return VerdictRow(**values)  # type: ignore[arg-type]


def test_rows_in_groups_wear_the_disk_less(tmp_path: Path) -> None:
    """Fault 48: a row in a commit of fifty costs less than a fifth of the bytes of a row with its own commit."""
    store = Store(tmp_path / "station.db")
    alone, together = written(store, 1), written(store, 50)
    store.close()
    assert together < alone / 5, (alone, together)
