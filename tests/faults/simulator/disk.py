"""The simulated disk: SQLite's own file operations, which fail, run full or take long as ordered."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import cast

import apsw

from tests.faults.disk import RecordedConnection
from tests.faults.mutants import Rewrite, as_it_is
from tests.faults.simulator.world import DiskOrder, Word, World

NAME = "simulated"
SLOW_S = 0.3


class SimulatedDisk(apsw.VFS):
    """The operating system's files, under the orders of the world.

    Attributes:
        dirty: whether the database's log holds writes that were never synced.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.dirty = False
        super().__init__(NAME, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        """A file that obeys."""
        return _SimulatedFile(self, name, flags)


class _SimulatedFile(apsw.VFSFile):
    def __init__(self, disk: SimulatedDisk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._disk, self._log = disk, bool(flags[0] & apsw.SQLITE_OPEN_WAL)
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        order = self._order()
        if order == DiskOrder.FULL:
            self._disk.world.carried_out(order)
            raise apsw.FullError("simulated")
        if order == DiskOrder.ERROR:
            self._disk.world.carried_out(order)
            raise apsw.IOError("simulated")
        super().xWrite(data, offset)
        self._disk.dirty = self._disk.dirty or self._log

    def xSync(self, flags: int) -> None:  # noqa: N802
        order = self._order()
        if order == DiskOrder.ERROR:
            self._disk.world.carried_out(order)
            raise apsw.IOError("simulated")
        if order == DiskOrder.SLOW:
            self._disk.world.carried_out(order)
            time.sleep(SLOW_S)
        if self._log and (hung_ms := self._disk.world.get(Word.SYNC_MS)):
            self._disk.world.set(Word.SYNCING, 1)
            time.sleep(hung_ms / 1000)
            self._disk.world.set(Word.SYNCING, 0)
        super().xSync(flags)
        if self._log:
            self._disk.dirty = False

    def _order(self) -> DiskOrder:
        return DiskOrder(self._disk.world.get(Word.DISK))


def connect(path: Path, rewrite: Rewrite = as_it_is) -> sqlite3.Connection:
    """What the store's own connection is replaced by."""
    return cast(sqlite3.Connection, RecordedConnection(path, NAME, rewrite))
