"""Faults of the disk under the database, each injected into SQLite's own file operations or by another process."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import uuid
from contextlib import closing
from pathlib import Path
from typing import cast

import apsw
import pytest

from appliance import upkeep
from appliance.audit import verify_chain
from appliance.config import load_station
from appliance.health import Health
from appliance.messages import State
from appliance.store import Store, StoreError, VerdictRow
from appliance.upkeep import Upkeep
from tests.appliance.stations import make_station
from tests.faults.disk import RecordedConnection

ROOT = Path(__file__).resolve().parents[2]


class FailingVFS(apsw.VFS):
    """The operating system's files, of which the n-th write or sync fails."""

    def __init__(self, name: str, fails_at: int) -> None:
        self.name, self.fails_at, self.done = name, fails_at, 0
        super().__init__(name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        """A file that counts."""
        return FailingFile(self, name, flags)

    def count(self) -> None:
        """Fail when it is time."""
        self.done += 1
        if self.done == self.fails_at:
            raise apsw.IOError("injected")


class FailingFile(apsw.VFSFile):
    """See FailingVFS."""

    def __init__(self, vfs: FailingVFS, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._vfs = vfs
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._vfs.count()
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._vfs.count()
        super().xSync(flags)


def row(seq: int) -> VerdictRow:
    """One that passes."""
    return VerdictRow(seq, "top", seq, "f", str(seq), "", "", 0, "", "OK", "PASS", "", "", "ok", 0.1, b"x" * 200,
                      1, "b", 0, 0, 0, 0)  # fmt: skip


@pytest.mark.parametrize("nth", range(1, 60, 4))
def test_an_io_error_at_any_write_or_sync_loses_no_row(tmp_path: Path, nth: int) -> None:
    """The commit that it hits fails and succeeds when tried again; afterwards all rows are there once."""
    vfs = FailingVFS(f"failing-{uuid.uuid4()}", 0)
    path = tmp_path / "station.db"

    def connect(path: Path) -> sqlite3.Connection:
        connection = RecordedConnection(path, vfs.name, lambda statement: (statement,))
        connection.execute("PRAGMA wal_autocheckpoint = 4")
        return cast(sqlite3.Connection, connection)

    store = Store(path, connect)
    vfs.fails_at, failures = vfs.done + nth, 0
    for group in range(12):
        for seq in range(1 + 4 * group, 5 + 4 * group):
            store.add(row(seq), 2)
        while store.pending:
            try:
                store.commit()
            except StoreError:
                failures += 1
                assert failures < 5
    store.close()
    assert vfs.done >= vfs.fails_at, "the fault was never reached"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert [seq for (seq,) in connection.execute("SELECT seq FROM verdict ORDER BY seq")] == list(range(1, 49))
        assert connection.execute("SELECT sum(parts) FROM tally").fetchone() == (48,)
        assert verify_chain(connection) == []


def test_a_limit_on_the_size_of_files_is_survived(tmp_path: Path) -> None:
    """RLIMIT_FSIZE (an I/O error, not a full disk): rows stay queued, and are written when there is room."""
    script = """
import resource, sys
from pathlib import Path
from appliance.store import Store, StoreError
from tests.faults.test_database_faults import row
store, seq, failed = Store(Path(sys.argv[1])), 0, False
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
while not failed:
    seq += 1
    store.add(row(seq), 2)
    try:
        store.commit()
    except StoreError as error:
        failed = True
assert len(store.pending) == 1 and seq < 5000, seq
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.commit()
assert store.connection.execute("SELECT count(*) FROM verdict").fetchone()[0] == seq
"""
    command = [sys.executable, "-c", script, str(tmp_path / "station.db")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 200_000


def test_a_read_only_database_takes_nothing_and_says_so(tmp_path: Path) -> None:
    """query_only is how SQLite itself refuses: a StoreError, rows kept."""
    store = Store(tmp_path / "station.db")
    store.connection.execute("PRAGMA query_only = ON")
    store.add(row(1), 2)
    with pytest.raises(StoreError, match="readonly"):
        store.commit()
    store.connection.execute("PRAGMA query_only = OFF")
    assert len(store.commit()) == 1
    store.close()


def test_a_reader_that_never_lets_go_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its snapshot keeps the log growing: one alert, DEGRADED; when it lets go the log is cut back and all is well."""
    monkeypatch.setattr(upkeep, "LOG_MAX", 300_000)
    config = make_station(tmp_path, 1)
    (tmp_path / "data").mkdir()
    store = Store(tmp_path / "data" / "station.db")
    store.connection.execute("PRAGMA journal_size_limit = 100000")
    health = Health(store)
    for phase in (State.VERIFY, State.SELFTEST, State.READY, State.RUN):
        health.enter(phase)
    care = Upkeep(load_station(config), store, health)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM verdict").fetchone()
        seconds = 0
        while health.condition.state is State.RUN and seconds < 200:
            for _ in range(40):
                store.next_seq += 1
                store.add(row(store.next_seq), 2)
                store.commit()
            care.tick(seconds * 10**9)
            seconds += 1
        assert health.condition.state is State.DEGRADED
        assert "log has grown" in health.condition.reason
        care.tick(seconds * 10**9)
        reader.execute("ROLLBACK")
    store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    care.tick((seconds + 1) * 10**9)
    assert health.condition.state is State.RUN
    assert [alert.kind for alert in store.open_alerts()] == ["DATABASE"]
    store.close()
    assert os.path.getsize(store.path) > 0
