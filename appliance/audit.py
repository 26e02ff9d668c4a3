"""The audit's hash chain: an entry that is edited, removed, inserted or moved is found."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from typing import NamedTuple

START = "0" * 64
"""What the first entry's hash is chained to."""


class AuditEntry(NamedTuple):
    """Who did what, and what it changed. `old` and `new` are free text, empty where there is none."""

    utc: str
    actor: str
    action: str
    old: str
    new: str


def chained(previous: str, entry: AuditEntry) -> str:
    """SHA-256, hex, over the hash before it and the entry's fields."""
    return hashlib.sha256((previous + json.dumps(entry, ensure_ascii=True)).encode()).hexdigest()


def verify_chain(connection: sqlite3.Connection) -> list[str]:
    """Problems of the audit table, one line each; empty when every entry follows from the one before.

    Entries cut off at the end leave a whole, shorter chain: compare the last hash with one noted elsewhere.
    """
    problems, previous, expected = [], START, 1
    for number, digest, *fields in connection.execute(
        "SELECT id, hash, utc, actor, action, old, new FROM audit ORDER BY id"
    ):
        if number != expected:
            problems.append(f"entry {expected} is missing")
        if digest != chained(previous, AuditEntry(*fields)):
            problems.append(f"entry {number} does not follow from the entry before it")
        previous, expected = digest, number + 1
    return problems
