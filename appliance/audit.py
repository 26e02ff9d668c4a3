"""The audit's hash chain: an entry that is edited, removed, inserted or moved is found.

Every entry's hash covers the one before it, and the table `audit_head` holds the number of entries and the last hash,
so entries cut off at the end are missed as well. Somebody who may write to the database and computes all later hashes
and the head anew leaves no trace in it: against that, note a `Checkpoint` somewhere else and verify with it.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from calibration.errors import InputError

START = "0" * 64
"""What the first entry's hash is chained to."""

_CHECKPOINT = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")
_COLUMNS = ("utc", "actor", "action", "old", "new", "hash")
_ENTRIES = (
    f"SELECT id, {' AND '.join(f'typeof({c}) = {chr(39)}text{chr(39)}' for c in _COLUMNS)}, "  # noqa: S608
    f"{', '.join(f'CAST({c} AS BLOB)' for c in _COLUMNS)} FROM audit ORDER BY id"
)


class AuditEntry(NamedTuple):
    """Who did what, and what it changed. `old` and `new` are free text, empty where there is none."""

    utc: str
    actor: str
    action: str
    old: str
    new: str


class Checkpoint(NamedTuple):
    """How far the audit had come at some time. Written as ENTRIES:HASH."""

    entries: int
    hash: str

    def __str__(self) -> str:
        return f"{self.entries}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Inverse of str. Raises InputError."""
        match = _CHECKPOINT.fullmatch(text.strip())
        if match is None:
            raise InputError(f"checkpoint {text!r}: give it as `audit verify` prints it, ENTRIES:HASH")
        return cls(int(match[1]), match[2])


def chained(previous: str, entry: AuditEntry) -> str:
    """SHA-256, hex, over the hash before it and the entry's fields."""
    return hashlib.sha256((previous + json.dumps(entry, ensure_ascii=True)).encode()).hexdigest()


def read_head(connection: sqlite3.Connection) -> Checkpoint | None:
    """What the database says of its own audit; None where it says nothing usable."""
    rows = connection.execute("SELECT entries, typeof(hash), CAST(hash AS BLOB) FROM audit_head").fetchall()
    if len(rows) != 1 or not isinstance(rows[0][0], int) or rows[0][1] != "text":
        return None
    return Checkpoint(rows[0][0], rows[0][2].decode("utf-8", "replace"))


def verify_chain(connection: sqlite3.Connection, noted: Checkpoint | None = None) -> list[str]:
    """Problems of the audit table, one line each; empty when every entry follows from the one before.

    Args:
        connection: of the database, in no transaction.
        noted: a checkpoint kept elsewhere, which the audit must still pass through.
    """
    problems, previous, expected = [], START, 1
    through = noted is None or noted == Checkpoint(0, START)
    with _snapshot(connection):
        head = read_head(connection)
        for number, texts, *fields in connection.execute(_ENTRIES):
            if number > expected:
                until = "" if number == expected + 1 else f" (and all up to {number - 1})"
                problems.append(f"entry {expected} is missing{until}")
            elif number < expected:
                problems.append(f"entry {number} is one too many")
            digest = _follows(previous, texts, fields)
            if digest is None:
                problems.append(f"entry {number} does not follow from the entry before it")
            previous = digest or bytes(fields[-1] or b"").decode("utf-8", "replace")
            expected = number + 1
            through = through or noted == Checkpoint(number, previous)
    if head is None:
        problems.append("the record of the last entry is missing or damaged")
    elif head != Checkpoint(expected - 1, previous):
        problems.append(f"the last entry recorded is {head.entries}, the last one found is {expected - 1}, or another")
    if not through:
        problems.append(f"the checkpoint after entry {noted.entries if noted else 0} is not part of this audit")
    return problems


def _follows(previous: str, texts: int, fields: list[Any]) -> str | None:
    """The entry's hash, where it is the one that its fields and the hash before it give."""
    try:
        *values, digest = [bytes(field).decode() for field in fields] if texts else [""] * len(fields)
    except UnicodeDecodeError:
        return None
    return digest if texts and digest == chained(previous, AuditEntry(*values)) else None


@contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """One state of the database for several queries."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
