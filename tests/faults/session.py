"""Random faults, kills and restarts of one line, within what one run of the daemon must survive without a FAULT.

A worker that has to be restarted too often latches a FAULT, and so does a PLC that hangs: as it should be. So each run
of the daemon gets fewer of those, and every class gets its turn.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from random import Random
from typing import TypeVar

from tests.faults.simulator.line import Line
from tests.faults.simulator.plc import PlcOrder
from tests.faults.simulator.world import CameraOrder, DiskOrder, EngineOrder, Kind, Word
from tests.faults.strangers import Strangers

T = TypeVar("T", CameraOrder, EngineOrder)
ENGINE_LOSSES, CAMERA_LOSSES, CUT_LINKS = 4, 2, 3
"""Of one run."""

ACTIONS = (20, 30)
"""Faults and kills of one run: at least, at most."""

WELL_AGAIN_S = 60.0
"""After all faults parts pass again within this time."""

TAKEN_S = 3.0
"""An order that nobody has carried out by then may still be, or be replaced by the next."""

UNCONFIRMED = 8
"""PASSes that the PLC may have taken without its answer arriving, for each fault that can be the cause."""

CAUSES = ("PLC DROP", "PLC HANG", "machine suspended")

CLOCKS_S = (3600.0, -3600.0, -1.79e9, 3.6e8, 1.0)
"""Jumps of the wall clock: an hour on and back, to about 1970, beyond 2038, a leap second."""

DROPPED = (EngineOrder.HANG, EngineOrder.ABORT, EngineOrder.KILL, EngineOrder.FEWER, EngineOrder.RAISE)
"""Orders after which the engine is another process."""


CLASSES = {
    "camera and frames": ("frame", "camera"),
    "engine and timing": ("engine",),
    "output, PLC and clock": ("PLC", "clock", "machine"),
    "database and disk": ("disk", "database"),
    "clients and operators": ("client", "operator", "SIGTERM"),
}
"""Classes of faults, as in the fault list, by the first words of their kinds' names."""

KINDS = (
    *(f"frame {kind.name}" for kind in Kind if kind is not Kind.CLEAN),
    *(f"camera {order.name}" for order in CameraOrder if order),
    *(f"engine {order.name}" for order in EngineOrder if order),
    *(f"disk {order.name}" for order in DiskOrder if order),
    *(f"PLC {order.name}" for order in PlcOrder if order.value),
    *(f"client {name}" for name in ("garbage", "silent", "nonsense", "deaf")),
    *("engine stopped", "machine suspended", "clock jump", "database locked", "database read for long"),
    *("operator", "SIGTERM"),
)
"""Every kind of fault that a campaign injects."""


def by_class(faults: Counter[str]) -> dict[str, int]:
    """Sums of kinds."""
    return {name: sum(n for kind, n in faults.items() if kind.split()[0] in words) for name, words in CLASSES.items()}


class Session:
    """Runs of one line's daemon, one after the other.

    Attributes:
        kills: by process.
    """

    def __init__(self, line: Line, random: Random) -> None:
        self.line = line
        self.kills: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._random = random
        self._strangers = Strangers(line.config, random)
        self._engine_left = self._camera_left = self._links_left = 0

    def faults(self) -> Counter[str]:
        """What has happened so far, by kind: orders that somebody has carried out, and pictures as the journal has
        them."""
        world, plc = self.line.world, self.line.plc
        found = Counter(self._faults)
        found.update({f"camera {order.name}": world.done(order) for order in CameraOrder if order})
        found.update({f"engine {order.name}": world.done(order) for order in EngineOrder if order})
        found.update({f"PLC {order.name}": plc.done(order) for order in PlcOrder if order.value})
        kinds = Counter(world.event(number).kind for number in range(world.parts))
        found.update({f"frame {kind.name}": n for kind, n in kinds.items() if kind is not Kind.CLEAN})
        return found

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
            self._faults["database read for long"] += isinstance(reader, _Reader)
            for _ in range(random.randint(*ACTIONS)):
                time.sleep(random.uniform(0.02, 0.15))
                random.choice(random.choice(self._possible()))()
            line.until(lambda: line.world.parts >= target, WELL_AGAIN_S, "parts")
            line.passes(5, WELL_AGAIN_S)
        self._strangers.leave()
        if self._behind(line.plc.done(PlcOrder.HANG), 4):
            self._hang_plc()
        if self._behind(self._faults["SIGTERM"], 5):
            line.stop()
            self._faults["SIGTERM"] += 1
        else:
            line.kill()
            self.kills["supervisor"] += 1

    def finish(self) -> None:
        """A last run without faults, ended in good order: every part must have its row now."""
        self.line.start()
        self.line.passes(20, WELL_AGAIN_S)
        self.line.stop()

    def _possible(self) -> list[list[Callable[[], None]]]:
        """What may happen now, by class: one class is as likely as another, whatever it has left."""
        engine = [self._engine_scores]
        if self._engine_left:
            engine += [self._lose_engine, self._kill_engine, self._kill_engine, self._stop_engine]
        camera = [self._lose_camera, self._kill_camera, self._kill_camera] if self._camera_left else []
        output = [self._repeat, self._repeat, self._clock, self._suspend]
        if self._links_left:
            output += [self._cut_link, self._cut_link]
        return [each for each in (engine, camera, output, [self._disk, self._disk, self._lock], [self._client]) if each]

    def _behind(self, done: int, every: int) -> bool:
        """Whether a fault that ends a run, done so often, is to end this one: about one in so many."""
        return len(self.line.starts_s) / every - done >= 1 or self._random.random() < 1 / every

    def _pick(self, orders: Sequence[T]) -> T:
        """One of them: every other time the one that was carried out least."""
        return self._random.choice(orders) if self._random.random() < 0.5 else min(orders, key=self.line.world.done)

    def _order(self, word: Word, order: CameraOrder | EngineOrder) -> None:
        """Give it, and time to somebody to carry it out: whoever should may be at its start."""
        self.line.world.set(word, order)
        self._wait(lambda: not self.line.world.get(word))

    def _plc_order(self, order: PlcOrder) -> None:
        before = self.line.plc.done(order)
        self.line.plc.order(order)
        self._wait(lambda: self.line.plc.done(order) > before)

    def _wait(self, good: Callable[[], bool]) -> None:
        end = time.monotonic() + TAKEN_S
        while not good() and time.monotonic() < end:
            time.sleep(0.005)

    def _kill_at_start(self) -> None:
        self.line.launch()
        time.sleep(self._random.uniform(0.05, 2.0))
        self.line.kill()
        self.kills["supervisor at its start"] += 1

    def _engine_scores(self) -> None:
        self._order(Word.ENGINE, self._pick((EngineOrder.NAN, EngineOrder.INFINITE, EngineOrder.SLOW)))

    def _lose_engine(self) -> None:
        self._engine_left -= 1
        self._order(Word.ENGINE, self._pick(DROPPED))

    def _kill_engine(self) -> None:
        if self.line.kill_worker("engine"):
            self._engine_left -= 1
            self.kills["engine"] += 1

    def _stop_engine(self) -> None:
        """One that serves: a hung one that still loads is given a minute."""
        self.line.passes(1, WELL_AGAIN_S)
        if self.line.stop_worker("engine"):
            self._engine_left -= 1
            self._faults["engine stopped"] += 1

    def _kill_camera(self) -> None:
        if self.line.kill_worker("camera"):
            self._camera_left -= 1
            self.kills["camera"] += 1

    def _lose_camera(self) -> None:
        self._camera_left -= 1
        self._order(Word.CAMERA, self._pick((CameraOrder.UNPLUG, CameraOrder.UNPLUG, CameraOrder.STALL)))

    def _disk(self) -> None:
        world = self.line.world
        order = self._random.choice((DiskOrder.FULL, DiskOrder.ERROR, DiskOrder.SLOW))
        before = world.done(order)
        world.set(Word.DISK, order)
        time.sleep(self._random.uniform(0.05, 0.3))
        world.set(Word.DISK, DiskOrder.NONE)
        self._faults[f"disk {order.name}"] += world.done(order) > before

    def _lock(self) -> None:
        other = sqlite3.connect(self.line.paths.database, timeout=1, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(self._random.uniform(0.05, 0.3))
            other.execute("ROLLBACK")
            self._faults["database locked"] += 1
        except sqlite3.OperationalError:
            pass  # the daemon was faster, and another part is not worth a longer wait
        finally:
            other.close()

    def _clock(self) -> None:
        self.line.world.set(Word.CLOCK_NS, int(self._random.choice(CLOCKS_S) * 1e9))
        self._faults["clock jump"] += 1

    def _client(self) -> None:
        strangers = self._strangers
        which = self._random.choice(
            (strangers.garbage, strangers.silent, strangers.nonsense, strangers.deaf, strangers.operator)
        )
        name = which.__name__
        self._faults[name if name == "operator" else f"client {name}"] += which()

    def _suspend(self) -> None:
        self.line.pause(self._random.uniform(0.05, 0.6))
        self._faults["machine suspended"] += 1

    def _repeat(self) -> None:
        self._plc_order(PlcOrder.REPEAT)

    def _cut_link(self) -> None:
        self._links_left -= 1
        self._plc_order(PlcOrder.DROP)

    def _hang_plc(self) -> None:
        """It latches a FAULT: nothing passes until the daemon is started again."""
        self.line.plc.order(PlcOrder.HANG)
        time.sleep(3.5)


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
