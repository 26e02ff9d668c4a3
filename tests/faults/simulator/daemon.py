"""`appliance` with the simulated disk and clock, and workers with the simulated camera and engine.

`python -m tests.faults.simulator.daemon run --config ...`; everything else is the production daemon.
"""

from __future__ import annotations

import time

from appliance import ledger, store, workers
from appliance.cli import main
from appliance.worker import die_with
from tests.faults.simulator import disk
from tests.faults.simulator.planted import PLANTED
from tests.faults.simulator.settings import told
from tests.faults.simulator.world import Word, World


def plant_clock(world: World) -> None:
    """The wall clock can be set by order; the monotonic clock cannot, as on a real machine."""
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + world.get(Word.CLOCK_NS) / 1e9
    time.time_ns = lambda: real_ns() + world.get(Word.CLOCK_NS)


def plant_disk(world: World) -> None:
    """The station's database on the simulated disk, which is asked whether a PASS leaves with its row unsynced."""
    simulated = disk.SimulatedDisk(world)
    store._connect = disk.connect
    release = ledger.Ledger._release

    def watched(self: ledger.Ledger, rows: list[store.VerdictRow]) -> None:
        """Rows have become durable, it says."""
        if simulated.dirty and any(row.verdict == "PASS" for row in rows):
            world.set(Word.DIRTY, world.get(Word.DIRTY) + 1)
        release(self, rows)

    ledger.Ledger._release = watched  # type: ignore[method-assign]
    simulated.watched = watched  # type: ignore[attr-defined]  the VFS lives as long as the class it is asked by


if __name__ == "__main__":
    settings = told()
    die_with(settings.parent)  # a test that is killed leaves no line behind
    plant_clock(settings.world)
    plant_disk(settings.world)
    workers.WORKER = "tests.faults.simulator.worker"
    PLANTED[settings.mutant]("daemon")
    main()
