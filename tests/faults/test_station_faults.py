"""Faults of clock, disk, database and clients, each on a running line."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

import pytest
import zmq

from tests.faults.conftest import Asked
from tests.faults.simulator.world import DiskOrder, Word
from tests.support.fixtures import Context


@pytest.mark.parametrize("seconds", [3600.0, -3600.0, -1.79e9, 3.6e8, 1.0], ids=["on", "back", "1970", "2038", "leap"])
def test_the_wall_clock_changes_nothing_but_the_date(asked: Asked, seconds: float) -> None:
    """Fault 36: parts pass as before; rows are ordered by their number and carry the monotonic time."""
    asked.line.world.set(Word.CLOCK_NS, int(seconds * 1e9))
    asked.line.passes(10)
    times = [at for (at,) in asked.rows("SELECT mono_ns FROM verdict WHERE decision = 'OK' ORDER BY seq DESC LIMIT 10")]
    assert times == sorted(times, reverse=True)
    asked.line.world.set(Word.CLOCK_NS, 0)


@pytest.mark.parametrize("order", [DiskOrder.FULL, DiskOrder.ERROR])
def test_without_a_disk_nothing_passes_and_nothing_is_lost(asked: Asked, order: DiskOrder) -> None:
    """Faults 41, 42: HOLD while the disk takes no rows; afterwards every part has its row, and parts pass again."""
    asked.line.world.set(Word.DISK, order)
    time.sleep(0.3)
    accepted = len(asked.line.plc.accepted())
    first = asked.line.world.parts
    time.sleep(0.5)
    assert len(asked.line.plc.accepted()) == accepted
    asked.line.world.set(Word.DISK, DiskOrder.NONE)
    asked.line.passes(5)
    assert asked.row(first)[0] == "REJECT"


def test_a_slow_disk_makes_no_late_pass(asked: Asked) -> None:
    """Fault 45: 300 ms a sync; no PASS leaves after its deadline, which is checked for all parts at the end."""
    asked.line.world.set(Word.DISK, DiskOrder.SLOW)
    time.sleep(1.0)
    asked.line.world.set(Word.DISK, DiskOrder.NONE)
    asked.line.passes(5)


def test_a_database_locked_by_another_program_holds_the_line(asked: Asked) -> None:
    """Fault 46, by a writer: no PASS without its row, and the line recovers by itself."""
    with closing(sqlite3.connect(asked.line.paths.database, timeout=5, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        time.sleep(0.4)
        accepted = len(asked.line.plc.accepted())
        time.sleep(0.4)
        assert len(asked.line.plc.accepted()) == accepted
        other.execute("ROLLBACK")
    asked.line.passes(5)


def test_a_client_that_never_reads_delays_nobody(asked: Asked, context: Context) -> None:
    """Faults 77, 83: hundreds of requests whose answers nobody takes, then the client is gone; parts pass on."""
    client = context.socket(zmq.DEALER)
    client.setsockopt(zmq.RCVHWM, 1)
    client.connect(f"ipc://{asked.line.paths.control}")
    first = asked.line.world.parts
    for _ in range(300):
        client.send(b'{"op": "status"}')
    asked.line.passes(20)
    late = asked.rows("SELECT count(*) FROM verdict WHERE trigger >= ? AND reason = 'LATE'", first)
    client.close(linger=0)
    asked.line.passes(5)
    assert late == [(0,)]
