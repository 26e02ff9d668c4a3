"""A damaged database: moved aside whole, with a record, an alert and an audit entry; a sound one is left alone."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from appliance import quarantine
from appliance.audit import verify_chain
from appliance.messages import State
from appliance.paths import StationPaths
from appliance.quarantine import damage, open_store, set_aside
from appliance.store import DatabaseLostError, Store, VerdictRow
from calibration.errors import InputError
from tests.appliance.stations import Daemon, make_station, rows, run_json

PAGE = 4096


@pytest.fixture
def paths(tmp_path: Path) -> StationPaths:
    """A station with 600 rows and some evidence."""
    found = StationPaths.of(tmp_path)
    store = Store(found.database)
    add_rows(store, 600)
    store.audit("Jana", "looked")
    store.close()
    found.evidence.mkdir()
    (found.evidence / "1.png").write_bytes(b"a frame")
    return found


def add_rows(store: Store, n: int) -> None:
    """Commit some."""
    for seq in range(store.next_seq, store.next_seq + n):
        row = VerdictRow(seq, "top", seq, "f", str(seq), "", "", 0, "", "OK", "PASS", "", "", "ok", 0.1, b"x" * 200,
                         1, "b", 0, 0, 0, 0)  # fmt: skip
        store.add(row, 2)
    store.next_seq += n
    store.commit()


def zero_header(data: bytearray) -> None:
    """The first 100 bytes."""
    data[:100] = bytes(100)


def flip_pages(data: bytearray) -> None:
    """Every third page, from the second on, is noise."""
    for start in range(PAGE, len(data), 3 * PAGE):
        data[start : start + PAGE] = bytes((i * 7 + 3) % 256 for i in range(PAGE))


def cut_short(data: bytearray) -> None:
    """Half of it, and half a page."""
    del data[len(data) // 2 + 100 :]


def no_database(data: bytearray) -> None:
    """Something else altogether."""
    data[:] = b"this is no database" * 1000


@pytest.mark.parametrize("harm", [zero_header, flip_pages, cut_short, no_database])
def test_a_damaged_database_is_moved_aside(paths: StationPaths, harm: Callable[[bytearray], None]) -> None:
    """As it is, with its evidence; the new one works, and says what happened and where the old one lies."""
    data = bytearray(paths.database.read_bytes())
    harm(data)
    paths.database.write_bytes(data)
    assert damage(paths.database)
    store = open_store(paths)
    (place,) = paths.quarantine.iterdir()
    assert (place / "station.db").read_bytes() == bytes(data)
    assert (place / "evidence" / "1.png").read_bytes() == b"a frame"
    assert not paths.evidence.exists()
    record = json.loads((place / "record.json").read_text())
    assert record["reason"]
    assert record["files"]["station.db"] == len(data)
    (alert,) = store.open_alerts()
    assert alert.kind == "DATABASE"
    assert str(place) in alert.message
    entries = store.connection.execute("SELECT action, new FROM audit ORDER BY id").fetchall()
    assert entries[0] == ("database moved aside", str(place))
    assert verify_chain(store.connection) == []
    add_rows(store, 3)
    store.close()
    assert damage(paths.database) == ""
    again = open_store(paths)
    assert again.next_seq == 4
    again.close()
    assert len(list(paths.quarantine.iterdir())) == 1


def test_a_sound_database_stays(paths: StationPaths, tmp_path: Path) -> None:
    """Also one whose last transactions are still in its log, one of an older release, and none at all."""
    writer = Store(paths.database)
    add_rows(writer, 5)
    assert paths.database.with_name("station.db-wal").stat().st_size > 0
    assert damage(paths.database) == ""
    writer.close()
    store = open_store(paths)
    assert store.next_seq == 606
    store.close()
    assert not paths.quarantine.exists()
    assert damage(tmp_path / "none.db") == ""


def test_a_torn_log_is_recovered_as_far_as_it_goes(paths: StationPaths) -> None:
    """What a power cut leaves of the last transaction is no damage."""
    writer = Store(paths.database)
    add_rows(writer, 5)
    add_rows(writer, 5)
    log, shm = (paths.database.with_name(f"station.db{suffix}") for suffix in ("-wal", "-shm"))
    database, written = paths.database.read_bytes(), log.read_bytes()
    writer.close()
    paths.database.write_bytes(database)
    log.write_bytes(written[:-1000])
    shm.unlink(missing_ok=True)
    store = open_store(paths)
    assert store.next_seq == 606
    store.close()
    assert not paths.quarantine.exists()


def test_a_move_that_was_cut_short_is_finished(paths: StationPaths) -> None:
    """A log without its database would be deleted by SQLite: it is moved too."""
    log = paths.database.with_name("station.db-wal")
    log.write_bytes(b"all that is left")
    paths.database.unlink()
    open_store(paths).close()
    (place,) = paths.quarantine.iterdir()
    assert (place / log.name).read_bytes() == b"all that is left"


def test_several_moves_in_one_second_have_their_own_places(paths: StationPaths) -> None:
    """Nothing is overwritten."""
    places = []
    for number in range(3):
        paths.database.write_bytes(bytes([number]))
        places.append(set_aside(paths, "x"))
    assert [place.joinpath("station.db").read_bytes() for place in places] == [b"\0", b"\1", b"\2"]


def test_a_check_of_a_large_database_ends_in_time(paths: StationPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted: no damage found so far is no damage."""
    monkeypatch.setattr(quarantine, "CHECK_S", 0.0)
    assert damage(paths.database) == ""


def test_a_locked_database_is_not_moved(paths: StationPaths) -> None:
    """It is somebody's, and sound."""
    with closing(sqlite3.connect(paths.database, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InputError, match="locked"):
            open_store(paths)
    assert not paths.quarantine.exists()


@pytest.mark.parametrize("loss", ["deleted", "replaced"])
def test_rows_are_never_committed_to_a_file_that_is_gone(paths: StationPaths, loss: str) -> None:
    """Deleted or replaced under the writer: the rows count as not written."""
    store = Store(paths.database)
    paths.database.unlink()
    if loss == "replaced":
        paths.database.write_bytes(b"")
    with pytest.raises(DatabaseLostError):
        add_rows(store, 1)
    assert len(store.pending) == 1
    store.close()


def test_the_daemon_starts_on_a_damaged_database(tmp_path: Path) -> None:
    """It judges, with an open alert."""
    config = make_station(tmp_path, 5)
    run_json(config)
    database = tmp_path / "data" / "station.db"
    data = bytearray(database.read_bytes())
    flip_pages(data)
    database.write_bytes(data)
    summary = run_json(config)
    assert summary["rows"] == summary["total"]["triggers"] == 5
    assert rows(config, "SELECT kind FROM alert WHERE acknowledged_by = ''") == [("DATABASE",)]


def test_a_database_taken_away_is_a_fault(tmp_path: Path) -> None:
    """While parts are judged: FAULT, nothing passes any more, exit code 1."""
    config = make_station(tmp_path, 10, "loop = true\nfps = 100.0")
    with Daemon(config) as daemon:
        daemon.until(lambda s: s.state is State.RUN and s.counts.ok > 10)
        (tmp_path / "data" / "station.db").rename(tmp_path / "elsewhere.db")
        out, err = daemon.process.communicate(timeout=15)
    assert daemon.process.returncode == 1
    summary = json.loads(out)
    assert (summary["state"], summary["ended_by"]) == ("FAULT", "database")
    assert "taken away" in summary["state_reason"]
    assert "Traceback" not in err
    for path in (tmp_path / "data").glob("station.db*"):
        path.unlink()
    config.write_text(config.read_text().replace("loop = true", "count = 3"))
    run_json(config)
    ((kind, message),) = rows(config, "SELECT kind, message FROM alert")
    assert kind == "DATABASE"
    assert "is gone" in message
