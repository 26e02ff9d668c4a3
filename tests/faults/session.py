"""Random faults, kills and restarts of one line, within what one run of the daemon must survive without a FAULT.

A worker that has to be restarted too often latches a FAULT, and so does a PLC that hangs: as it should be. So each run
of the daemon gets fewer of those, and every class gets its turn.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from random import Random

from tests.faults.simulator.line import Line
from tests.faults.simulator.plc import PlcOrder
from tests.faults.simulator.world import CameraOrder, DiskOrder, EngineOrder, Word

ENGINE_LOSSES, CAMERA_LOSSES, CUT_LINKS = 3, 2, 3
"""Of one run."""

ACTIONS = (8, 14)
"""Faults and kills of one run: at least, at most."""

WELL_AGAIN_S = 30.0
"""After all faults parts pass again within this time."""

UNCONFIRMED = 8
"""PASSes that the PLC may have taken without its answer arriving, for each fault that can be the cause."""

CAUSES = ("PLC DROP", "PLC HANG", "all processes stopped")

CLOCKS_S = (3600.0, -3600.0, -1.79e9, 3.6e8, 1.0)
"""Jumps of the wall clock: an hour on and back, to about 1970, beyond 2038, a leap second."""

DROPPED = {EngineOrder.HANG, EngineOrder.ABORT, EngineOrder.KILL, EngineOrder.FEWER, EngineOrder.RAISE}
"""Orders after which the engine is another process."""


@dataclass
class Tally:
    """What was done to a line. faults: by class, kills: by process."""

    faults: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)


class Session:
    """Runs of one line's daemon, one after the other."""

    def __init__(self, line: Line, random: Random) -> None:
        self.line, self.tally = line, Tally()
        self._random = random
        self._engine_left = self._camera_left = self._links_left = 0

    def run(self, parts: int) -> None:
        """One run of the daemon: from its start, through at least so many parts, to its death."""
        line, random = self.line, self._random
        self._engine_left, self._camera_left, self._links_left = ENGINE_LOSSES, CAMERA_LOSSES, CUT_LINKS
        if line.starts_s:  # before its very first start nobody knows where the line's count began
            if random.random() < 0.7:
                self._kill_at_start()
            line.unseen(random.choice((0, 0, 1, random.randrange(40))))
        line.start()
        target = line.world.parts + parts
        with _Reader(line) if random.random() < 0.3 else nullcontext() as reader:
            self.tally.faults["database read for long"] += isinstance(reader, _Reader)
            for _ in range(random.randint(*ACTIONS)):
                time.sleep(random.uniform(0.02, 0.3))
                random.choice(self._possible())()
            line.until(lambda: line.world.parts >= target, WELL_AGAIN_S, "parts")
            line.passes(5, WELL_AGAIN_S)
        if random.random() < 0.1:
            self._hang_plc()
        if random.random() < 0.85:
            line.kill()
            self.tally.kills["supervisor"] += 1
        else:
            line.stop()

    def finish(self) -> None:
        """A last run without faults, ended in good order: every part must have its row now."""
        self.line.start()
        self.line.passes(20, WELL_AGAIN_S)
        self.line.stop()

    def _possible(self) -> list[Callable[[], None]]:
        """What may happen now."""
        possible = [self._disk, self._lock, self._clock, self._pause, self._engine_scores, self._repeat]
        if self._engine_left:
            possible += [self._lose_engine, self._kill_engine, self._kill_engine, self._stop_engine]
        if self._camera_left:
            possible += [self._unplug, self._kill_camera, self._kill_camera]
        if self._links_left:
            possible.append(self._cut_link)
        return possible

    def _kill_at_start(self) -> None:
        self.line.launch()
        time.sleep(self._random.uniform(0.05, 2.0))
        self.line.kill()
        self.tally.kills["supervisor at its start"] += 1

    def _engine_order(self, order: EngineOrder) -> None:
        self.line.world.set(Word.ENGINE, order)
        self.tally.faults[f"engine {order.name}"] += 1

    def _engine_scores(self) -> None:
        self._engine_order(self._random.choice((EngineOrder.NAN, EngineOrder.INFINITE, EngineOrder.SLOW)))

    def _lose_engine(self) -> None:
        self._engine_left -= 1
        self._engine_order(self._random.choice(sorted(DROPPED)))

    def _kill_engine(self) -> None:
        if self.line.kill_worker("engine"):
            self._engine_left -= 1
            self.tally.kills["engine"] += 1

    def _stop_engine(self) -> None:
        """One that serves: a hung one that still loads is given a minute."""
        self.line.passes(1, WELL_AGAIN_S)
        if self.line.stop_worker("engine"):
            self._engine_left -= 1
            self.tally.faults["engine stopped"] += 1

    def _kill_camera(self) -> None:
        if self.line.kill_worker("camera"):
            self._camera_left -= 1
            self.tally.kills["camera"] += 1

    def _unplug(self) -> None:
        self._camera_left -= 1
        self.line.world.set(Word.CAMERA, CameraOrder.UNPLUG)
        self.tally.faults["camera UNPLUG"] += 1

    def _disk(self) -> None:
        order = self._random.choice((DiskOrder.FULL, DiskOrder.ERROR, DiskOrder.SLOW))
        self.line.world.set(Word.DISK, order)
        time.sleep(self._random.uniform(0.05, 0.5))
        self.line.world.set(Word.DISK, DiskOrder.NONE)
        self.tally.faults[f"disk {order.name}"] += 1

    def _lock(self) -> None:
        other = sqlite3.connect(self.line.paths.database, timeout=1, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(self._random.uniform(0.05, 0.5))
            other.execute("ROLLBACK")
            self.tally.faults["database locked"] += 1
        except sqlite3.OperationalError:
            pass  # the daemon was faster, and another part is not worth a longer wait
        finally:
            other.close()

    def _clock(self) -> None:
        self.line.world.set(Word.CLOCK_NS, int(self._random.choice(CLOCKS_S) * 1e9))
        self.tally.faults["clock jump"] += 1

    def _pause(self) -> None:
        self.line.pause(self._random.uniform(0.05, 0.6))
        self.tally.faults["all processes stopped"] += 1

    def _repeat(self) -> None:
        self.line.plc.order(PlcOrder.REPEAT)
        self.tally.faults["PLC REPEAT"] += 1

    def _cut_link(self) -> None:
        self._links_left -= 1
        self.line.plc.order(PlcOrder.DROP)
        self.tally.faults["PLC DROP"] += 1

    def _hang_plc(self) -> None:
        """It latches a FAULT: nothing passes until the daemon is started again."""
        self.line.plc.order(PlcOrder.HANG)
        time.sleep(2.0)
        self.tally.faults["PLC HANG"] += 1


class _Reader:
    """A program that holds an old state of the database as long as the `with` block."""

    def __init__(self, line: Line) -> None:
        self._other = sqlite3.connect(line.paths.database, timeout=1, isolation_level=None)

    def __enter__(self) -> _Reader:
        self._other.execute("BEGIN")
        self._other.execute("SELECT count(*) FROM verdict").fetchone()
        return self

    def __exit__(self, *_: object) -> None:
        self._other.close()
