"""The station's database, as its only writer sees it: rows are gathered and committed in groups.

SQLite in WAL mode with synchronous=FULL: a committed row survives a power cut. `commit` returns only then, and only
rows it has committed may become a PASS.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from appliance import history
from appliance.audit import START, AuditEntry, Checkpoint, chained, read_head
from appliance.counting import SEEN, CountNote
from appliance.messages import AlertRow, Reason, RejectRow
from appliance.rows import Sums, VerdictRow, write, write_tally
from appliance.schema import migrate
from appliance.store_errors import DamagedError, DatabaseLostError, StoreError, explained, is_damage
from calibration.errors import InputError

__all__ = ["DamagedError", "DatabaseLostError", "Store", "StoreError", "VerdictRow", "utc_now", "utc_text"]

BUSY_S = 2.0
"""How long to wait for another process's transaction before giving up."""


PRAGMAS = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA journal_size_limit = 67108864")
"""A commit returns when its rows survive a power cut, and readers never stop the writer; a log that a reader has made
long is cut back to 64 MiB when it lets go."""


class Store:
    """Writer of one station's database.

    Attributes:
        connection: the only one that writes.
        tally: parts by (camera, reason) since the database was made: durable rows only.
        pending: rows added since the last commit, in order.
    """

    def __init__(self, path: Path, connect: Callable[[Path], sqlite3.Connection] | None = None) -> None:
        """Open, migrate and prove writable. `connect` makes the connection, in autocommit mode.

        Raises:
            InputError: locked by another process, damaged, of a newer release, or not writable.
        """
        self.path = path
        try:
            self.connection = (connect or _connect)(path)
            for pragma in PRAGMAS:
                self.connection.execute(pragma)
            migrate(self.connection)
            self.connection.execute(
                "BEGIN IMMEDIATE"
            )  # proves that this process may write, before any part depends on it
            self.connection.execute("COMMIT")
            self.tally: Counter[tuple[str, str]] = history.tally(self.connection)
            last = self.connection.execute("SELECT max(seq) FROM verdict").fetchone()[0]
            head = read_head(self.connection)
            self._name = os.fspath(path)
            self._inode = os.stat(self._name).st_ino
        except sqlite3.Error as error:
            raise explained(path, error) from None
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        self.next_seq: int = (last or 0) + 1
        self._head = head or Checkpoint(0, START)  # a damaged one is not repaired: `audit verify` shall find it
        self.pending: list[VerdictRow] = []
        self._bins: list[int | None] = []
        self._drawn: list[int] = []

    def add(self, row: VerdictRow, bin_: int | None) -> None:
        """Queue one row, with the bin of its defect probability where the part was judged."""
        self.pending.append(row)
        self._bins.append(bin_)

    def draw(self, seq: int) -> None:
        """A queued row becomes one of those that a person shall judge."""
        self._drawn.append(seq)

    def commit(self) -> list[VerdictRow]:
        """Make all queued rows durable, in one transaction; returns them.

        Raises:
            StoreError: nothing was written; the rows stay queued.
        """
        rows = self.pending
        if not rows:
            return []
        sums = Sums.of(rows, self._bins)
        try:
            with self.transaction() as db:
                write(db, rows, sums, self._drawn)
        except DatabaseLostError:
            raise
        except StoreError:
            if not self._holds(rows[-1].seq):
                raise
        self.pending, self._bins, self._drawn = [], [], []
        for key, parts in sums.tally.items():
            self.tally[key] += parts
        return rows

    def counted(self) -> Counter[tuple[str, str]]:
        """The tally with the queued rows, which belong to parts that have had their verdict."""
        return self.tally + Counter((row.camera, row.reason) for row in self.pending)

    def withhold(self, reason: Reason) -> None:
        """Turn every queued PASS into a REJECT: their commit failed, so no PASS may ever leave for them."""
        self.pending = [_rejected(row, reason) if row.verdict == "PASS" else row for row in self.pending]

    def revoke(self, rows: Sequence[VerdictRow], reason: Reason) -> None:
        """Committed rows whose PASS came too late to be given become REJECT(reason). Raises StoreError."""
        rejected = [_rejected(row, reason) for row in rows]
        moves = Counter((row.camera, row.reason) for row in rejected)
        moves.subtract(Counter((row.camera, row.reason) for row in rows))
        with self.transaction() as db:
            db.executemany(
                "UPDATE verdict SET verdict = ?, reason = ? WHERE seq = ?",
                [(row.verdict, row.reason, row.seq) for row in rejected],
            )
            write_tally(db, moves)
        self.tally.update(moves)

    def alert(self, kind: str, message: str) -> AlertRow:
        """Write an alert, at once. Raises StoreError."""
        now = utc_now()
        with self.transaction() as db:
            number = db.execute(
                "INSERT INTO alert (utc, kind, message) VALUES (?, ?, ?) RETURNING id", (now, kind, message)
            ).fetchone()[0]
            self.append_audit("daemon", f"alert {number} {kind}", "", message, now)
        return AlertRow(id=number, utc=now, kind=kind, message=message)

    def acknowledge(self, alert: int, operator: str) -> None:
        """An operator has seen an alert.

        Raises:
            InputError: no such open alert, or no name given.
            StoreError: not written.
        """
        if not operator.strip():
            raise InputError("operator: give the name of the person who acknowledges the alert")
        now = utc_now()
        with self.transaction() as db:
            changed = db.execute(
                "UPDATE alert SET acknowledged_by = ?, acknowledged_utc = ? WHERE id = ? AND acknowledged_by = ''",
                (_storable(operator), now, alert),
            ).rowcount
            if changed != 1:
                raise InputError(f"alert {alert}: not open; refresh the list of alerts")
            self.append_audit(operator, f"acknowledge alert {alert}", "open", "acknowledged", now)

    def review(self, seq: int, decision: str, operator: str) -> None:
        """A person's verdict on a row, OK or DEFECT; the machine's stays as it is.

        Raises:
            InputError: no such row, no name given, or another decision.
            StoreError: not written.
        """
        if not operator.strip():
            raise InputError("operator: give the name of the person who judges")
        if decision not in ("OK", "DEFECT"):
            raise InputError(f"decision {decision!r}: a person says OK or DEFECT")
        with self.transaction() as db:
            row = db.execute("SELECT decision, reason FROM verdict WHERE seq = ?", (seq,)).fetchone()
            if row is None:
                raise InputError(f"row {seq}: no such verdict; `appliance review list` shows the open ones")
            now = utc_now()
            values = (seq, now, _storable(operator), decision)
            db.execute("INSERT INTO review (seq, utc, operator, decision) VALUES (?, ?, ?, ?)", values)
            self.append_audit(operator, f"review of row {seq}", row[0] or row[1], decision, now)

    def audit(self, actor: str, action: str, old: str = "", new: str = "") -> None:
        """Append to the audit, at once. Raises StoreError."""
        with self.transaction():
            self.append_audit(actor, action, old, new)

    def audit_configuration(self, actor: str, values: str) -> None:
        """Put the station's configuration on record where it is not the one recorded last. Raises StoreError."""
        query = "SELECT new FROM audit WHERE action = 'configuration' ORDER BY id DESC LIMIT 1"
        last = self.connection.execute(query).fetchone()
        if last is None or last[0] != values:
            self.audit(actor, "configuration", last[0] if last else "", values)

    def open_alerts(self) -> tuple[AlertRow, ...]:
        """Alerts that nobody has acknowledged, newest first."""
        return history.open_alerts(self.connection)

    def where_left(self, camera: str) -> tuple[CountNote | None, tuple[int, ...], list[int]]:
        """See history.line_count, and the checksums of the last frames. Raises StoreError."""
        try:
            return *history.line_count(self.connection, camera), history.last_checksums(self.connection, camera, SEEN)
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from error

    def wait_at_most(self, seconds: float) -> None:
        """How long to wait for another process's transaction from now on."""
        self.connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")

    def recent_rejects(self, limit: int) -> tuple[RejectRow, ...]:
        """The last rejected parts, newest first, as far as they are durable."""
        return history.recent_rejects(self.connection, limit)

    def close(self) -> None:
        """Close the database; queued rows that were not committed are lost, so commit first."""
        self.connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """BEGIN IMMEDIATE ... COMMIT, or nothing at all; the audit's head moves only with the commit.

        Raises:
            StoreError: nothing was written.
        """
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            yield self.connection
            self.connection.execute("COMMIT")
            self._check_place()
        except BaseException as error:
            with suppress(sqlite3.Error):  # the disk may have done so already
                self.connection.execute("ROLLBACK")
            with suppress(sqlite3.Error):
                self._head = read_head(self.connection) or self._head
            if isinstance(error, sqlite3.Error):
                raise (DatabaseLostError if is_damage(error) else StoreError)(f"{self.path}: {error}") from error
            raise

    def _holds(self, seq: int) -> bool:
        """Whether a row is there. An error may come after the commit itself, from what is tidied up then: the rows are
        there, all of them, and must not be written again."""
        try:
            found = self.connection.execute("SELECT 1 FROM verdict WHERE seq = ?", (seq,)).fetchone()
        except sqlite3.Error:
            return False
        return found is not None

    def _check_place(self) -> None:
        """What was committed lies in the file that the next start will open."""
        try:
            found = os.stat(self._name).st_ino
        except OSError as error:
            raise DatabaseLostError(f"{self.path}: {error.strerror}: the file was taken away") from None
        if found != self._inode:
            raise DatabaseLostError(f"{self.path}: another file was put in its place")

    def append_audit(self, actor: str, action: str, old: str, new: str, utc: str = "") -> None:
        """Append to the audit, within a transaction."""
        entry = AuditEntry(*map(_storable, (utc or utc_now(), actor, action, old, new)))
        self._head = Checkpoint(self._head.entries + 1, chained(self._head.hash, entry))
        fields = (*entry, self._head.hash)
        self.connection.execute("INSERT INTO audit (utc, actor, action, old, new, hash) VALUES (?,?,?,?,?,?)", fields)
        self.connection.execute("UPDATE audit_head SET entries = ?, hash = ?", self._head)


def _rejected(row: VerdictRow, reason: Reason) -> VerdictRow:
    return row._replace(verdict="REJECT", reason=reason.value)


def _storable(text: str) -> str:
    """Without the halves of characters that a command line or a message may hold."""
    return text.encode("utf-8", "replace").decode()


def utc_now() -> str:
    """ISO 8601 with microseconds and Z."""
    return utc_text(datetime.now(timezone.utc).timestamp())


def utc_text(seconds: float) -> str:
    """ISO 8601, UTC, microseconds, of seconds since 1970."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
