"""What a station looks after beside its parts: free space on the disk, and rows that have had their time."""

from __future__ import annotations

import shutil
import time
from enum import IntEnum
from pathlib import Path

from appliance.config import Station
from appliance.health import Health
from appliance.retention import Retention
from appliance.store import Store, StoreError

LOOK_NS = 1_000_000_000
LOG_MAX = 256 * 2**20
"""A log (WAL) longer than this has a reader that does not let go of its old state."""

MARGIN = 1.1
"""Things are better again only with so many times the space that they became worse at."""


class Space(IntEnum):
    """Free space. LOW: DEGRADED. FULL: HOLD, so that what is left serves the rows of rejected parts."""

    ENOUGH = 0
    LOW = 1
    FULL = 2


def space(free: int, warn: int, hold: int, before: Space) -> Space:
    """How much is free, given how it was before. `free`, `warn`, `hold` in bytes."""
    now = Space.FULL if free < hold else Space.LOW if free < warn else Space.ENOUGH
    if now >= before:
        return now
    return Space.FULL if before is Space.FULL and free < hold * MARGIN else Space.LOW if free < warn * MARGIN else now


class Upkeep:
    """Called a few times a second; each call takes a few milliseconds at most."""

    def __init__(self, station: Station, store: Store, health: Health) -> None:
        self._path: Path = store.path.parent
        self._log = store.path.with_name(store.path.name + "-wal")
        self._warn, self._hold = station.disk.warn_mib * 2**20, station.disk.hold_mib * 2**20
        self._health = health
        self._retention = Retention(store, station.retention.days, station.retention.max_mib * 2**20)
        self._space = Space.ENOUGH
        self._look_ns = 0

    def tick(self, now_ns: int) -> None:
        """Look at the disk once a second, and take one step of retention."""
        if now_ns >= self._look_ns:
            self._look_ns = now_ns + LOOK_NS
            self._look()
            self._look_at_log()
        if "database" not in self._health.condition.holds:
            try:
                self._retention.step(time.time())
            except StoreError as error:
                self._health.hold("database", str(error))

    def _look(self) -> None:
        free = shutil.disk_usage(self._path).free
        before, self._space = self._space, space(free, self._warn, self._hold, self._space)
        if self._space is before:
            return
        text = f"{free / 2**20:.0f} MiB free on the disk of {self._path}"
        if self._space is Space.ENOUGH:
            self._health.clear("disk")
        else:
            self._health.warn("disk", text)
        if self._space is Space.FULL:
            self._health.hold("disk full", text)
        else:
            self._health.clear("disk full")
        if self._space > before:
            what = "every part is rejected until there is more" if self._space is Space.FULL else "make room soon"
            self._health.alert("DISK", f"{text}; {what}")

    def _look_at_log(self) -> None:
        """While some reader holds an old state of the database, its log only grows."""
        size = self._log.stat().st_size if self._log.exists() else 0
        if size <= LOG_MAX:
            self._health.clear("log")
        elif "log" not in self._health.condition.warnings:
            text = f"the database's log has grown to {size / 2**20:.0f} MiB: a program reads without letting go"
            self._health.warn("log", text)
            self._health.alert("DATABASE", f"{text}; find it with `fuser {self._log}` and end it")
