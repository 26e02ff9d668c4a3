"""A disk that loses its power: SQLite's own file operations, recorded, and what may be left of them after a cut.

The recording goes through a VFS of apsw, a second build of SQLite with the same file formats. What a cut leaves is
what POSIX promises and no more: of each file, everything before its last sync; of every write after it, all, nothing,
or some of its 512-byte sectors; a new or deleted name only once its directory was synced.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import apsw

SECTOR = 512
_NAMED_WITH_DIRECTORY_SYNC = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL


class Operation(NamedTuple):
    """One change of the disk: open, write, truncate, sync (of a file), sync-names (of the directory) or delete."""

    kind: str
    name: str
    offset: int = 0
    data: bytes = b""


class _RecordedFile(apsw.VFSFile):
    def __init__(self, log: list[Operation], name: str | apsw.URIFilename, flags: list[int]) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._log, self._name = log, os.path.basename(path)
        fresh = not os.path.exists(path)
        super().__init__("", name, flags)
        self._unnamed = fresh and bool(flags[0] & _NAMED_WITH_DIRECTORY_SYNC)
        if fresh:
            log.append(Operation("open", self._name))

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802  the library's name
        super().xWrite(data, offset)
        self._log.append(Operation("write", self._name, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        self._log.append(Operation("truncate", self._name, newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802
        super().xSync(flags)
        self._log.append(Operation("sync", self._name))
        if self._unnamed:  # as SQLite's Unix layer does with the first sync of a journal
            self._log.append(Operation("sync-names", ""))
            self._unnamed = False


class RecordingVFS(apsw.VFS):
    """The operating system's own files, with every change written to `log`."""

    def __init__(self, name: str) -> None:
        self.log: list[Operation] = []
        self.name = name
        super().__init__(name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        """A recorded file; one without a name is SQLite's own scratch space, which nothing survives in."""
        return apsw.VFSFile("", name, flags) if name is None else _RecordedFile(self.log, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        """Delete, and sync the directory where SQLite asks for it."""
        super().xDelete(filename, syncdir)
        self.log.append(Operation("delete", os.path.basename(filename)))
        if syncdir:
            self.log.append(Operation("sync-names", ""))


class _Result:
    """All rows of a statement, as sqlite3's cursor gives them."""

    def __init__(self, cursor: apsw.Cursor, rows: list[Any], description: Any, rowcount: int) -> None:
        self._rows, self.description, self.rowcount = iter(rows), description, rowcount
        self.lastrowid = cursor.connection.last_insert_rowid()

    def __iter__(self) -> Any:
        return self._rows

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        return list(self._rows)


class RecordedConnection:
    """As much of sqlite3.Connection as the store and the migration library use, on a recorded disk.

    `rewrite` sees every statement before it runs: how mutants are planted.
    """

    def __init__(self, path: Path, vfs: str, rewrite: Callable[[str], Sequence[str]]) -> None:
        self._db = apsw.Connection(str(path), vfs=vfs)
        self._rewrite = rewrite

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def execute(self, statement: str, values: Any = ()) -> _Result:
        """Run, and fetch everything."""
        cursor, rows, before = self._db.cursor(), [], self._db.total_changes()
        columns: list[Any] = []  # told only while a statement starts
        cursor.exec_trace = lambda running, *_: columns.append(running.description) or True
        try:
            for text in self._rewrite(statement):
                rows = cursor.execute(text, values).fetchall()
        except apsw.Error as error:
            raise sqlite3.OperationalError(str(error)) from error
        return _Result(cursor, rows, columns[-1] if columns else None, self._db.total_changes() - before)

    def executemany(self, statement: str, values: Iterable[Any]) -> None:
        """Run for each."""
        try:
            self._db.cursor().executemany(statement, values)
        except apsw.Error as error:
            raise sqlite3.OperationalError(str(error)) from error

    def close(self) -> None:
        """Checkpoint and close, as the last connection does."""
        self._db.close()


@dataclass
class _File:
    """One file: what is durable of it, and the writes and truncations since its last sync."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Operation] = field(default_factory=list)

    def sync(self) -> None:
        for operation in self.pending:
            _apply(self.durable, operation)
        self.pending = []

    def after_cut(self, random: Random, share: float) -> bytes:
        """Each write since the last sync is kept with probability `share`; of the others, some are torn."""
        left = bytearray(self.durable)
        for operation in self.pending:
            if random.random() < share:
                _apply(left, operation)
            elif operation.kind == "write" and random.random() < 0.5:
                for start in range(0, len(operation.data), SECTOR):
                    if random.random() < 0.5:
                        piece = operation.data[start : start + SECTOR]
                        _apply(left, operation._replace(offset=operation.offset + start, data=piece))
        return bytes(left)


class Disk:
    """The state of a disk while a log is played to it."""

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        """`files`: what is there and durable from the start."""
        self._now = {name: _File(bytearray(data)) for name, data in (files or {}).items()}
        self._named = dict(self._now)
        self._unnamed: list[tuple[str, _File | None]] = []

    def play(self, operation: Operation) -> None:
        """One operation, in the order of the log."""
        kind, name = operation.kind, operation.name
        if kind == "open":
            self._now[name] = _File()
            self._unnamed.append((name, self._now[name]))
        elif kind == "delete":
            self._now.pop(name, None)
            self._unnamed.append((name, None))
        elif kind == "sync":
            self._now[name].sync()
        elif kind == "sync-names":
            self._named, self._unnamed = dict(self._now), []
        else:
            self._now[name].pending.append(operation)

    def after_cut(self, random: Random) -> dict[str, bytes]:
        """The files that may be found after a power cut now, one possibility of many."""
        share = random.choice((0.0, 0.5, 0.9, 1.0))
        names = dict(self._named)
        for name, file in self._unnamed:
            if random.random() < share:
                names[name] = file  # type: ignore[assignment]  a deleted one is left out below
        return {name: file.after_cut(random, share) for name, file in names.items() if file is not None}


def _apply(data: bytearray, operation: Operation) -> None:
    if operation.kind == "truncate":
        del data[operation.offset :]
        data.extend(bytes(operation.offset - len(data)))
        return
    end = operation.offset + len(operation.data)
    if len(data) < operation.offset:
        data.extend(bytes(operation.offset - len(data)))
    data[operation.offset : end] = operation.data
