"""What a station's database says, as values that can be compared."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import Any

TABLES = ("verdict", "tally", "histogram", "alert", "review", "audit", "audit_head")
State = dict[str, list[tuple[Any, ...]]]


def read_state(connection: sqlite3.Connection) -> State:
    """All rows of all tables; a table that is not there yet has none."""
    state: State = {table: [] for table in TABLES}
    for table in TABLES:
        with suppress(sqlite3.OperationalError):
            state[table] = [tuple(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2")]  # noqa: S608
    return state


def missing(found: State, allowed: list[State]) -> int:
    """Verdicts, alerts and audit entries that are not there, by their number, though every allowed state has them: all
    that were acknowledged, but for old ones that the operation under way removes."""
    lost = 0
    for table in ("verdict", "alert", "audit"):
        kept = set.intersection(*({row[0] for row in state[table]} for state in allowed))
        lost += len(kept - {row[0] for row in found.get(table, [])})
    return lost


def comparable(state: State) -> State:
    """While the schema is made, columns that no row uses may be missing, and the head of an audit without entries."""
    kept = {name: rows for name, rows in state.items() if name != "audit_head" or state["audit"]}
    return {**kept, "verdict": [tuple(value for value in row if value is not None) for row in state["verdict"]]}
