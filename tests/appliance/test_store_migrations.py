"""A database of every release opens, of a newer one never, and a migration is whole or not there."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from appliance import history, schema
from appliance.audit import verify_chain
from appliance.schema import NAMES
from appliance.store import Store
from calibration.errors import InputError

SCHEMAS = Path(__file__).with_name("schemas")


def old_database(path: Path, name: str) -> Path:
    """What a station of that release left: 12 parts, two alerts, one of them open."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript((SCHEMAS / f"{name}.sql").read_text(encoding="utf-8"))
    return path


def test_parts_judged_before_are_counted_by_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest of them, so that a start stays short whatever the database holds."""
    monkeypatch.setattr(schema, "COUNTED_LATER", 5)
    store = Store(old_database(tmp_path / "station.db", "0002_traceability"))
    found = store.connection.execute("SELECT day, decision, parts, expected FROM stratum ORDER BY decision").fetchall()
    assert found == [("2026-01-01", "DEFECT", 2, pytest.approx(1.8)), ("2026-01-01", "OK", 3, pytest.approx(0.3))]
    store.close()


@pytest.mark.parametrize("name", NAMES[:-1])
def test_a_database_of_an_earlier_release_opens(name: str, tmp_path: Path) -> None:
    """All its rows are there, its audit verifies, and new rows go on behind them."""
    path = old_database(tmp_path / "station.db", name)
    with pytest.raises(InputError, match=r"older release.*appliance run"):
        history.open_readonly(path)
    store = Store(path)
    assert store.next_seq == 13
    assert [alert.kind for alert in store.open_alerts()] == ["DRIFT"]
    store.audit("Jana", "looked")
    store.close()
    with history.open_readonly(path) as connection:
        assert verify_chain(connection) == []
        assert history.counts(history.tally(connection)).model_dump()["ok"] == 9
        assert [row["serial"] for row in history.verdicts(connection, 100)] == [str(i) for i in range(1, 13)]
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert {name for (name,) in connection.execute("SELECT name FROM _sqlite_migrations")} == set(NAMES)


def test_every_release_but_the_last_is_kept_for_this() -> None:
    """A new migration needs the database before it in tests/appliance/schemas."""
    assert sorted(file.stem for file in SCHEMAS.glob("*.sql")) == sorted(NAMES[:-1])


def test_a_database_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    """To write and to read: with the remedy, and nothing in it is changed."""
    path = tmp_path / "station.db"
    Store(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        record = "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, '0099_later', '')"
        connection.execute(record, (schema.MIGRATION_SET,))
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"station\.db.*newer release.*0099_later.*install that release"):
        Store(path)
    with pytest.raises(InputError, match="newer release"):
        history.open_readonly(path)
    assert path.read_bytes() == before


def test_a_migration_that_fails_leaves_the_database_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither half a schema nor a record of it; the next start does it."""
    path = old_database(tmp_path / "station.db", NAMES[0])
    with monkeypatch.context() as patch:
        patch.setattr(schema, "START", object())  # no value that SQLite can store: the last statement fails
        with pytest.raises(InputError):
            Store(path)
    with closing(sqlite3.connect(path)) as connection:
        assert [name for (name,) in connection.execute("SELECT name FROM _sqlite_migrations")] == [NAMES[0]]
        assert "batch" not in {row[1] for row in connection.execute("PRAGMA table_info(verdict)")}
        assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'audit_head'").fetchall() == []
    Store(path).close()
    with history.open_readonly(path) as connection:
        assert verify_chain(connection) == []
