"""The database's schema, as migrations. Each is applied in one transaction together with the record of it."""

from __future__ import annotations

import sqlite3

from appliance.audit import START
from calibration.errors import InputError

MIGRATION_SET = "lineguard-station"
NAMES = ("0001_station", "0002_traceability", "0003_reevaluation")
"""All migrations, oldest first. Plain names, so that an up-to-date database is recognised without importing the
migration library (a third of a second at every start)."""

VERDICT_COLUMNS = {
    "seq": int,
    "camera": str,
    "trigger": int,
    "frame": str,
    "serial": str,
    "lot": str,
    "utc": str,
    "mono_ns": int,
    "boot_id": str,
    "decision": str,
    "verdict": str,
    "reason": str,
    "detail": str,
    "top_class": str,
    "defect_probability": float,
    "logits": bytes,
    "crc": int,
    "bundle": str,
    "read_us": int,
    "wait_us": int,
    "engine_us": int,
    "total_us": int,
    "batch": int,
    "position": int,
}
"""One row a trigger.

seq orders the rows (clocks may jump); trigger and frame are the source's own number and name for the frame; mono_ns
and boot_id are the trigger's time on the monotonic clock and the boot that clock belongs to; logits are float32,
little-endian; crc is the CRC-32 of the preprocessed tensor; latencies are microseconds: read (decode and preprocess),
wait (for a full batch and a free engine), engine, and total from trigger to verdict; batch and position say how many
parts the engine judged together and which of them this one was, from 0.
"""

_ADDED_LATER = ("batch", "position")

COUNTED_LATER = 1_000_000
"""The newest rows of an older database, which its migration counts by decision; a start shall not wait for all."""


def migrate(connection: sqlite3.Connection) -> list[str]:
    """Bring the database to the current schema; returns the names of the migrations applied now.

    Raises:
        InputError: it has migrations that this program does not know.
    """
    applied = _applied(connection)
    _refuse_newer(applied)
    pending = [name for name in NAMES if name not in applied]
    if not pending:
        return []
    from sqlite_utils import Database
    from sqlite_utils.migrations import Migrations

    migrations = Migrations(MIGRATION_SET)
    for name, step in zip(NAMES, (_station, _traceability, _reevaluation), strict=True):
        migrations(name=name)(step)
    migrations.apply(Database(connection))
    return pending


def check_current(connection: sqlite3.Connection) -> None:
    """For programs that only read. Raises InputError where the schema is another than this program's."""
    applied = _applied(connection)
    _refuse_newer(applied)
    if not applied.issuperset(NAMES):
        raise InputError("the database is of an older release")


def _refuse_newer(applied: set[str]) -> None:
    unknown = sorted(applied.difference(NAMES))
    if unknown:
        raise InputError(
            f"the database is of a newer release (it has {', '.join(unknown)}); install that release again, "
            "or set station.data to another directory"
        )


def _applied(connection: sqlite3.Connection) -> set[str]:
    try:
        rows = connection.execute("SELECT name FROM _sqlite_migrations WHERE migration_set = ?", (MIGRATION_SET,))
        return {name for (name,) in rows}
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return set()
        raise


def _station(db: object) -> None:
    from sqlite_utils import Database

    assert isinstance(db, Database)  # noqa: S101  narrows the type; the library calls this with nothing else
    columns = {name: kind for name, kind in VERDICT_COLUMNS.items() if name not in _ADDED_LATER}
    db.table("verdict").create(columns, pk="seq", not_null={"camera", "verdict", "reason", "bundle"})
    # Rejects are shown newest first, and are few; a partial index keeps every PASS from paying for it.
    db.execute("CREATE INDEX verdict_rejects ON verdict (seq) WHERE verdict = 'REJECT'")
    db.table("tally").create({"camera": str, "reason": str, "parts": int}, pk=("camera", "reason"))
    db.table("histogram").create(
        {"minute": str, "camera": str, "class": str, "bundle": str, "bin": int, "parts": int},
        pk=("minute", "camera", "class", "bundle", "bin"),
    )
    db.table("alert").create(
        {"id": int, "utc": str, "kind": str, "message": str, "acknowledged_by": str, "acknowledged_utc": str},
        pk="id",
        not_null={"utc", "kind", "message", "acknowledged_by", "acknowledged_utc"},
        defaults={"acknowledged_by": "", "acknowledged_utc": ""},
    )
    db.table("audit").create(
        {"id": int, "utc": str, "actor": str, "action": str, "old": str, "new": str, "hash": str}, pk="id"
    )
    for action in ("UPDATE", "DELETE"):
        db.execute(
            f"CREATE TRIGGER audit_no_{action.lower()} BEFORE {action} ON audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END"
        )
    db.table("review").create(
        {"id": int, "seq": int, "utc": str, "operator": str, "decision": str},
        pk="id",
        not_null={"seq", "utc", "operator", "decision"},
        foreign_keys=[("seq", "verdict", "seq")],
    )


def _traceability(db: object) -> None:
    """Parts are found by serial, verdicts can be repeated as they were, and the audit knows how long it is."""
    from sqlite_utils import Database

    assert isinstance(db, Database)  # noqa: S101  as above
    for column in _ADDED_LATER:
        db.execute(f"ALTER TABLE verdict ADD COLUMN {column} INTEGER")
    db.execute("CREATE INDEX verdict_serial ON verdict (serial)")
    db.execute(
        "CREATE TABLE audit_head (id INTEGER PRIMARY KEY CHECK (id = 1), entries INTEGER NOT NULL, hash TEXT NOT NULL)"
    )
    db.execute(
        "INSERT INTO audit_head SELECT 1, coalesce(max(id), 0), "
        "coalesce((SELECT hash FROM audit ORDER BY id DESC LIMIT 1), ?) FROM audit",
        (START,),
    )


def _reevaluation(db: object) -> None:
    """How many parts got which decision, and which of them were drawn for a person to judge.

    stratum: parts whose verdict was the model's decision, by the day of their trigger (UTC); expected is the sum of
    their defect probabilities. It stays when rows go. sample: numbers of rows drawn at random.
    """
    from sqlite_utils import Database

    assert isinstance(db, Database)  # noqa: S101  as above
    db.table("stratum").create(
        {"day": str, "bundle": str, "decision": str, "parts": int, "expected": float},
        pk=("day", "bundle", "decision"),
    )
    db.execute(
        "INSERT INTO stratum SELECT substr(utc, 1, 10), bundle, decision, count(*), sum(defect_probability) "
        "FROM verdict WHERE reason IN ('', 'DEFECT', 'UNSURE') AND seq > (SELECT max(seq) FROM verdict) - ? "
        "GROUP BY 1, 2, 3",
        (COUNTED_LATER,),
    )
    db.table("sample").create({"seq": int}, pk="seq")
