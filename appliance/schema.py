"""The database's schema, as migrations. Each is applied in one transaction together with the record of it."""

from __future__ import annotations

import sqlite3

MIGRATION_SET = "lineguard-station"
NAMES = ("0001_station",)
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
}
"""One row a trigger.

seq orders the rows (clocks may jump); trigger and frame are the source's own number and name for the frame; mono_ns
and boot_id are the trigger's time on the monotonic clock and the boot that clock belongs to; logits are float32,
little-endian; crc is the CRC-32 of the preprocessed tensor; latencies are microseconds: read (decode and preprocess),
wait (for a full batch and a free engine), engine, and total from trigger to verdict.
"""


def migrate(connection: sqlite3.Connection) -> list[str]:
    """Bring the database to the current schema; returns the names of the migrations applied now."""
    pending = [name for name in NAMES if name not in _applied(connection)]
    if not pending:
        return []
    from sqlite_utils import Database
    from sqlite_utils.migrations import Migrations

    migrations = Migrations(MIGRATION_SET)
    migrations(name="0001_station")(_station)
    migrations.apply(Database(connection))
    return pending


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
    db.table("verdict").create(VERDICT_COLUMNS, pk="seq", not_null={"camera", "verdict", "reason", "bundle"})
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
