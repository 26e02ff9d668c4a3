"""Old verdict rows go, a few at a time, so that the database stays within its size and its age."""

from __future__ import annotations

from itertools import takewhile

from appliance.store import Store, utc_text

ROWS = 256
"""Rows in one step: one short transaction."""

DAY_S = 86_400
NOTED_S = 3600
"""The audit hears of removed rows at most so often."""


class Retention:
    """The oldest rows beyond the limits. The audit, open alerts, tallies and rows that a person has judged stay.

    Space is used again for new rows; the file does not shrink.
    """

    def __init__(self, store: Store, days: int, max_bytes: int) -> None:
        """Rows older than `days` go (by the wall clock), and the oldest while more than `max_bytes` are in use; 0: no
        such limit."""
        self._store, self._days, self._max_bytes = store, days, max_bytes
        self._examined = 0  # rows up to here that are still there stay
        self._removed, self._noted = 0, 0.0

    def step(self, now: float) -> int:
        """Remove at most ROWS rows at `now`, seconds since 1970; how many. Raises StoreError."""
        due = self._due(now)
        if due:
            self._remove(due, now)
        return len(due)

    def _due(self, now: float) -> list[int]:
        """Numbers of the oldest rows beyond a limit; never the last row, which numbers go on from."""
        over = bool(self._max_bytes) and self._used() > self._max_bytes
        if not over and not self._days:
            return []
        oldest = self._store.connection.execute(
            "SELECT seq, utc FROM verdict WHERE seq > ? AND seq < (SELECT max(seq) FROM verdict) ORDER BY seq LIMIT ?",
            (self._examined, ROWS),
        )
        before = utc_text(now - self._days * DAY_S) if self._days else ""
        return [seq for seq, _ in takewhile(lambda row: over or row[1] < before, oldest.fetchall())]

    def _remove(self, due: list[int], now: float) -> None:
        """In one transaction, with the audit's entry where one is due."""
        with self._store.transaction() as db:
            query = "SELECT seq FROM review WHERE seq BETWEEN ? AND ?"
            judged = {seq for (seq,) in db.execute(query, (due[0], due[-1]))}
            gone = [(seq,) for seq in due if seq not in judged]
            db.executemany("DELETE FROM verdict WHERE seq = ?", gone)
            db.executemany("DELETE FROM sample WHERE seq = ?", gone)
            oldest = db.execute("SELECT utc FROM verdict WHERE seq > ? ORDER BY seq LIMIT 1", (due[-1],)).fetchone()[0]
            db.execute(
                "DELETE FROM histogram WHERE rowid IN (SELECT rowid FROM histogram WHERE minute < ? LIMIT ?)",
                (oldest[:16], ROWS),
            )
            db.execute("DELETE FROM alert WHERE acknowledged_by <> '' AND utc < ?", (oldest,))
            removed, note = self._removed + len(gone), now >= self._noted + NOTED_S
            if note:
                self._store.append_audit("daemon", "retention", "", f"{removed} rows removed, up to {due[-1]}")
        self._examined, self._removed = due[-1], 0 if note else removed
        self._noted = now if note else self._noted

    def _used(self) -> int:
        """Bytes of the database that hold something."""
        pages, free, size = (
            self._store.connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)
