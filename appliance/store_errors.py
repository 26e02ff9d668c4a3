"""What can be wrong with the station's database, by what its user does about it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from calibration.errors import InputError


class StoreError(RuntimeError):
    """The database does not take rows at the moment: no PASS may leave; try again."""


class DatabaseLostError(StoreError):
    """The database is damaged, or its file is gone: it will never take rows again."""


class DamagedError(InputError):
    """The file is no database, or a damaged one."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is bad: SQLITE_CORRUPT and SQLITE_NOTADB, which alone have no exception of their own."""
    return type(error) is sqlite3.DatabaseError


def explained(path: Path, error: sqlite3.Error) -> InputError:
    """What a database that cannot be opened needs."""
    text = str(error)
    if "locked" in text:
        return InputError(
            f"{path}: the database is locked by another process; stop the program that holds it and start again"
        )
    if is_damage(error):
        return DamagedError(f"{path}: {text}; move the damaged database away and start again (a new one is made)")
    return InputError(f"{path}: {text}; set station.data to a directory that this user may write, with free space")
