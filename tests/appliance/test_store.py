"""The database: group commit, what happens when it fails, alerts, audit."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from appliance import history
from appliance.audit import verify_chain
from appliance.batcher import Part
from appliance.judge import Judgement, PassToken, not_inspected
from appliance.ledger import GROUP_NS, GROUP_ROWS, Ledger
from appliance.lock import StationBusyError, station_lock
from appliance.messages import Reason, Verdict
from appliance.outputs import TallyOutput
from appliance.schema import NAMES
from appliance.store import Store, StoreError
from appliance.wire import MissNote
from calibration.decision import Decision
from calibration.errors import InputError

PASS = Judgement(Verdict.PASS, Reason.NONE, "", Decision.OK, "ok", 0.1, 2, b"\0" * 8)
DEFECT = Judgement(Verdict.REJECT, Reason.DEFECT, "", Decision.DEFECT, "dent", 0.95, 19, b"\0" * 8)


class WatchfulOutput(TallyOutput):
    """An output that looks the row up with a connection of its own before it lets a part pass."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.let_pass: list[int] = []

    def release(self, tokens: Sequence[PassToken], now_ns: int) -> None:
        """See Output.release."""
        with closing(sqlite3.connect(self.path)) as connection:
            for token in tokens:
                found = connection.execute("SELECT verdict, trigger FROM verdict WHERE seq = ?", (token.seq,))
                assert found.fetchone() == ("PASS", token.trigger)
                assert now_ns < token.deadline_ns
                self.let_pass.append(token.seq)
        super().release(tokens, now_ns)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database will be."""
    return tmp_path / "station.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """An open database."""
    opened = Store(path)
    yield opened
    opened.close()


def part(trigger: int, life_s: float = 60.0) -> Part:
    """A part whose deadline is `life_s` away."""
    now = time.monotonic_ns()
    return Part("top", trigger, f"{trigger}.png", 0, 1, now, now + 1000, now + int(life_s * 1e9))


def fill(ledger: Ledger, *judgements: Judgement, life_s: float = 60.0) -> None:
    """One part per judgement."""
    now = time.monotonic_ns()
    for trigger, judgement in enumerate(judgements):
        ledger.judged(part(trigger, life_s), judgement, (now, now + 5000), now)


def test_a_pass_leaves_only_after_its_row_is_durable(store: Store, path: Path) -> None:
    """Store, then pass: an output finds the row by a connection of its own."""
    output = WatchfulOutput(path)
    ledger = Ledger(store, "L1", "b" * 64, output)
    fill(ledger, PASS, DEFECT, PASS)
    assert output.let_pass == []
    assert ledger.commit(time.monotonic_ns())
    assert output.let_pass == [1, 3]
    assert ledger.counts().model_dump() == {"triggers": 3, "ok": 2, "defect": 1, "unsure": 0, "not_inspected": 0}
    with history.open_readonly(path) as reader:
        assert history.counts(history.tally(reader)) == ledger.counts()
        assert sum(history.histogram(reader)) == 3
        assert history.last_bundle(reader) == "b" * 64
        assert history.recent_rejects(reader)[0].top_class == "dent"
    assert ledger.rejects()[0].seq == 2


def test_a_pass_that_became_late_on_disk_is_revoked(store: Store, path: Path) -> None:
    """A deadline that comes between judgement and commit: no PASS, and the row says LATE."""
    output = WatchfulOutput(path)
    ledger = Ledger(store, "", "b" * 64, output)
    fill(ledger, PASS, DEFECT, life_s=0.001)
    time.sleep(0.002)
    assert ledger.commit(time.monotonic_ns())
    assert output.let_pass == []
    with closing(sqlite3.connect(path)) as reader:
        assert reader.execute("SELECT verdict, reason FROM verdict").fetchall() == [
            ("REJECT", "LATE"),
            ("REJECT", "DEFECT"),
        ]
        assert history.tally(reader)[("top", "LATE")] == 1
        assert history.counts(history.tally(reader)) == ledger.counts()


def test_while_the_database_is_locked_nothing_passes(store: Store, path: Path) -> None:
    """A failed commit turns queued PASS into REJECT(LOG); the rows are kept and written later."""
    output = WatchfulOutput(path)
    ledger = Ledger(store, "", "b" * 64, output)
    fill(ledger, PASS, DEFECT)
    store.wait_at_most(0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert not ledger.commit(time.monotonic_ns())
        assert "locked" in ledger.failure
        with pytest.raises(StoreError):
            store.alert("X", "y")
        with pytest.raises(StoreError):
            store.audit("me", "something")
        other.execute("ROLLBACK")
    assert ledger.due_ns() is not None
    assert ledger.commit(time.monotonic_ns())
    assert ledger.failure == ""
    assert output.let_pass == []
    assert ledger.rejects_by_reason() == {"LOG": 1, "DEFECT": 1}
    assert len(store.open_alerts()) == 0


def test_rows_are_due_in_groups(store: Store) -> None:
    """The first row after a pause is due at once, those that follow on a commit share the next one, and a full group
    is due at once."""
    ledger = Ledger(store, "", "b" * 64, TallyOutput())
    assert ledger.due_ns() is None
    fill(ledger, PASS)
    due, committed = ledger.due_ns(), time.monotonic_ns()
    assert due is not None
    assert due <= committed
    assert ledger.commit(committed)
    fill(ledger, PASS)
    assert ledger.due_ns() == committed + GROUP_NS
    fill(ledger, *[PASS] * GROUP_ROWS)
    due = ledger.due_ns()
    assert due is not None
    assert due <= time.monotonic_ns()
    assert ledger.queued == GROUP_ROWS + 1


def test_misses_have_rows_too(store: Store, path: Path) -> None:
    """A trigger without a frame is one row without scores; odd file names survive."""
    ledger = Ledger(store, "", "b" * 64, TallyOutput())
    name = "a'; DROP TABLE verdict; --\0ü%_"
    ledger.missed("top", MissNote(0, 5, Reason.NO_FRAME, name, "gone"), not_inspected(Reason.NO_FRAME, "gone"), 7)
    ledger.commit(time.monotonic_ns())
    with closing(sqlite3.connect(path)) as reader:
        assert reader.execute("SELECT frame, reason, decision, logits FROM verdict").fetchall() == [
            (name, "NO_FRAME", None, None)
        ]
        assert reader.execute("SELECT count(*) FROM histogram").fetchone() == (0,)


def test_numbers_go_on_after_a_restart(path: Path) -> None:
    """seq and counts continue where the last run ended."""
    for _ in range(2):
        opened = Store(path)
        ledger = Ledger(opened, "", "b" * 64, TallyOutput())
        fill(ledger, PASS, PASS)
        ledger.commit(time.monotonic_ns())
        assert ledger.run_counts()[0].ok == 2
        opened.close()
    with history.open_readonly(path) as reader:
        assert [seq for (seq,) in reader.execute("SELECT seq FROM verdict")] == [1, 2, 3, 4]
        assert history.counts(history.tally(reader)).ok == 4
        assert [name for (name,) in reader.execute("SELECT name FROM _sqlite_migrations")] == list(NAMES)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("DELETE FROM verdict")


def test_used_and_expired_tokens_are_refused() -> None:
    """The output itself refuses a PASS that comes twice or late."""
    output = TallyOutput()
    token = PassToken(5, "top", 1, 2, "b" * 64, deadline_ns=100)
    output.release([token], 99)
    output.release([token], 99)
    output.release([replace(token, seq=6)], 100)
    assert (output.passed, output.refused) == (1, 2)


def test_alerts_are_acknowledged_by_name_once(store: Store) -> None:
    """An alert stays open until somebody with a name takes it; twice is an error."""
    alert = store.alert("DRIFT", "it drifts")
    assert [a.id for a in store.open_alerts()] == [alert.id]
    with pytest.raises(InputError, match="name of the person"):
        store.acknowledge(alert.id, "  ")
    store.acknowledge(alert.id, "anna")
    assert store.open_alerts() == ()
    with pytest.raises(InputError, match="not open"):
        store.acknowledge(alert.id, "anna")


def test_the_audit_chain_finds_every_tampering(store: Store, path: Path) -> None:
    """Edits and deletions are refused by the table, and found where somebody went around it."""
    for i in range(4):
        store.audit("anna", f"act {i}", "old", "new")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        assert verify_chain(other) == []
        for statement in ("UPDATE audit SET actor = 'eve'", "DELETE FROM audit"):
            with pytest.raises(sqlite3.DatabaseError, match="append-only"):
                other.execute(statement)
        other.execute("DROP TRIGGER audit_no_update")
        other.execute("DROP TRIGGER audit_no_delete")
        other.execute("UPDATE audit SET actor = 'eve' WHERE id = 2")
        assert verify_chain(other) == ["entry 2 does not follow from the entry before it"]
        other.execute("UPDATE audit SET actor = 'anna' WHERE id = 2")
        assert verify_chain(other) == []
        other.execute("DELETE FROM audit WHERE id = 3")
        assert verify_chain(other) == ["entry 3 is missing", "entry 4 does not follow from the entry before it"]


def test_a_damaged_database_is_refused(path: Path) -> None:
    """A file that is no database: a message with the remedy, and the file stays as it is."""
    path.write_bytes(b"this is no database" * 1000)
    with pytest.raises(InputError, match="move the damaged database away"):
        Store(path)
    assert path.read_bytes().startswith(b"this is")


def test_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    """A database that cannot be made: a message with the remedy."""
    with pytest.raises(InputError, match=r"station\.data"):
        Store(tmp_path / "none" / "station.db")
    with pytest.raises(InputError, match="appliance run"):
        history.open_readonly(tmp_path / "none.db")


def test_the_lock_names_its_holder(tmp_path: Path) -> None:
    """Who holds the station is in the message; afterwards it is free."""
    lock = tmp_path / "station.lock"
    with station_lock(lock), pytest.raises(StationBusyError, match=f"pid {os.getpid()}"), station_lock(lock):
        pass
    with station_lock(lock):
        pass
    with pytest.raises(InputError, match=r"station\.data"), station_lock(tmp_path / "none" / "x"):
        pass
