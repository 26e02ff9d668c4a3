"""The audit: whatever is done to it outside of the program is found."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from appliance.audit import START, Checkpoint, read_head, verify_chain
from appliance.cli import main
from appliance.store import Store
from calibration.errors import InputError
from tests.appliance.stations import make_station

COLUMNS = ("id", "utc", "actor", "action", "old", "new", "hash")
VALUES = st.one_of(st.none(), st.integers(-5, 10), st.text(max_size=6), st.binary(max_size=6), st.floats(0, 9))
ENTRIES = 5


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with some entries, closed."""
    path = tmp_path_factory.mktemp("audit") / "station.db"
    store = Store(path)
    for number in range(ENTRIES):
        store.audit("Jana \u00fc\0", f"act {number}", "old", "new \ud800")
    store.close()
    return path


def tampered(original: Path, directory: Path, statements: list[tuple[str, tuple[Any, ...]]]) -> list[str] | None:
    """Problems found after the statements, which go around the triggers; None where they changed nothing."""
    path = directory / "copy.db"
    for suffix in ("-wal", "-shm"):
        (directory / f"copy.db{suffix}").unlink(missing_ok=True)
    shutil.copyfile(original, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("DROP TRIGGER audit_no_update")
        db.execute("DROP TRIGGER audit_no_delete")
        query = f"SELECT {', '.join(f'typeof({c}), CAST({c} AS BLOB)' for c in COLUMNS)} FROM audit"  # noqa: S608
        before = (db.execute(query).fetchall(), db.execute("SELECT * FROM audit_head").fetchall())
        try:
            for statement, values in statements:
                db.execute(statement, values)
        except sqlite3.IntegrityError:
            return None
        if (db.execute(query).fetchall(), db.execute("SELECT * FROM audit_head").fetchall()) == before:
            return None
        return verify_chain(db)


def test_an_untouched_audit_is_whole(original: Path) -> None:
    """No problem, and the head is the last entry's."""
    with closing(sqlite3.connect(original)) as db:
        assert verify_chain(db) == []
        assert read_head(db) == Checkpoint(*db.execute("SELECT id, hash FROM audit ORDER BY id DESC").fetchone())


@settings(max_examples=100, deadline=None)
@given(st.integers(1, ENTRIES), st.sampled_from(COLUMNS), VALUES)
@example(ENTRIES, "hash", b"x")
@example(2, "new", b"\xff")
def test_any_edit_of_any_field_is_found(
    original: Path, tmp_path_factory: pytest.TempPathFactory, number: int, column: str, value: object
) -> None:
    """Any column of any entry, set to anything else, of any type."""
    directory = tmp_path_factory.getbasetemp()
    statement = f"UPDATE audit SET {column} = ? WHERE id = ?"  # noqa: S608
    problems = tampered(original, directory, [(statement, (value, number))])
    assume(problems is not None)
    assert problems


@pytest.mark.parametrize("number", range(1, ENTRIES + 1))
def test_any_deleted_entry_is_found(original: Path, tmp_path: Path, number: int) -> None:
    """The last one too."""
    assert tampered(original, tmp_path, [("DELETE FROM audit WHERE id = ?", (number,))])


@pytest.mark.parametrize("kept", range(ENTRIES))
def test_a_tail_cut_off_is_found(original: Path, tmp_path: Path, kept: int) -> None:
    """However many entries are gone at the end, all of them included."""
    assert tampered(original, tmp_path, [("DELETE FROM audit WHERE id > ?", (kept,))])


@pytest.mark.parametrize(("one", "other"), [(a, b) for a in range(1, ENTRIES + 1) for b in range(1, a)])
def test_any_two_entries_exchanged_are_found(original: Path, tmp_path: Path, one: int, other: int) -> None:
    """Moved as they are, hashes included."""
    moves = [("UPDATE audit SET id = ? WHERE id = ?", pair) for pair in ((99, one), (one, other), (other, 99))]
    assert tampered(original, tmp_path, list(moves))


@pytest.mark.parametrize("place", [0, -1, ENTRIES + 1, ENTRIES + 7])
def test_any_inserted_entry_is_found(original: Path, tmp_path: Path, place: int) -> None:
    """A copy of another entry, before the first or after the last."""
    copy = "INSERT INTO audit SELECT ?, utc, actor, action, old, new, hash FROM audit WHERE id = 2"
    assert tampered(original, tmp_path, [(copy, (place,))])


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM audit_head",
        "UPDATE audit_head SET entries = entries - 1",
        "UPDATE audit_head SET hash = x'00'",
        "UPDATE audit_head SET hash = (SELECT hash FROM audit WHERE id = 1)",
    ],
)
def test_a_changed_head_is_found(original: Path, tmp_path: Path, statement: str) -> None:
    """The record of the last entry is part of what is verified."""
    assert tampered(original, tmp_path, [(statement, ())])


def test_a_chain_computed_anew_is_found_by_a_checkpoint_alone(original: Path, tmp_path: Path) -> None:
    """Whoever rewrites history consistently is betrayed only by what was noted elsewhere."""
    with closing(sqlite3.connect(original)) as db:
        noted = read_head(db)
        assert noted is not None
        assert verify_chain(db, noted) == []
        assert verify_chain(db, Checkpoint(2, db.execute("SELECT hash FROM audit WHERE id = 2").fetchone()[0])) == []
    store = Store(tmp_path / "forged.db")
    for _ in range(ENTRIES + 1):
        store.audit("eve", "nothing happened")
    store.close()
    with closing(sqlite3.connect(tmp_path / "forged.db")) as db:
        assert verify_chain(db) == []
        assert verify_chain(db, noted) == [f"the checkpoint after entry {ENTRIES} is not part of this audit"]
        assert verify_chain(db, Checkpoint(0, START)) == []


def test_the_commands_list_and_verify(tmp_path: Path) -> None:
    """`audit list` shows who and what; `audit verify` ends with 0, 1 or 2, and its checkpoint can be given back."""
    config = make_station(tmp_path, 2)
    (tmp_path / "data").mkdir()
    store = Store(tmp_path / "data" / "station.db")
    store.audit("Jana", "threshold", "0.3", "0.4")
    store.close()
    words = ["--config", str(config)]
    listed = CliRunner().invoke(main, ["audit", "list", *words])
    assert "Jana threshold 0.3 -> 0.4" in listed.stdout
    assert json.loads(CliRunner().invoke(main, ["audit", "list", *words, "--json"]).stdout)[0]["new"] == "0.4"
    good = CliRunner().invoke(main, ["audit", "verify", *words, "--json"])
    assert good.exit_code == 0
    checkpoint = json.loads(good.stdout)["checkpoint"]
    assert CliRunner().invoke(main, ["audit", "verify", *words, "--checkpoint", checkpoint]).exit_code == 0
    other = CliRunner().invoke(main, ["audit", "verify", *words, "--checkpoint", "1:" + "a" * 64])
    assert other.exit_code == 1
    assert "not part of this audit" in other.stdout
    assert CliRunner().invoke(main, ["audit", "verify", *words, "--checkpoint", "x"]).exit_code == 2
    with closing(sqlite3.connect(tmp_path / "data" / "station.db", isolation_level=None)) as db:
        db.execute("UPDATE audit_head SET entries = 7")
    assert CliRunner().invoke(main, ["audit", "verify", *words]).exit_code == 1


def test_a_changed_configuration_is_on_record(tmp_path: Path) -> None:
    """Who, the old and the new values; the same configuration again is no entry."""
    store = Store(tmp_path / "station.db")
    for values in ("{1}", "{1}", "{2}"):
        store.audit_configuration("Jana", values)
    store.close()
    with closing(sqlite3.connect(tmp_path / "station.db")) as db:
        entries = db.execute("SELECT actor, action, old, new FROM audit").fetchall()
    assert entries == [("Jana", "configuration", "", "{1}"), ("Jana", "configuration", "{1}", "{2}")]


def test_a_checkpoint_survives_being_written_down() -> None:
    """str and parse are inverse; anything else is refused with the form."""
    noted = Checkpoint(12, "ab" * 32)
    assert Checkpoint.parse(f" {noted}\n") == noted
    for text in ("", "12", "12:zz", "-1:" + "a" * 64, "1:" + "A" * 64):
        with pytest.raises(InputError, match="ENTRIES:HASH"):
            Checkpoint.parse(text)
