"""A damaged database is moved aside, never deleted and never written to again; the station starts with a new one."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from appliance.evidence import write_durably
from appliance.paths import StationPaths
from appliance.store import DamagedError, Store, utc_now

CHECK_S = 1.0
"""A start looks for damage no longer than this; what is found later is a fault, and moved aside at the next start."""

SUFFIXES = ("", "-wal", "-shm", "-journal")


def open_store(paths: StationPaths, known: bool = False) -> Store:
    """The station's database, or a new one: with an open alert where the old one was damaged, or is gone from a station
    that has run before (`known`).

    Raises:
        InputError: locked, of a newer release, or not writable. StoreError: the alert could not be written.
    """
    try:
        reason = _left_over(paths) or damage(paths.database)
        if not reason:
            gone = known and not paths.database.exists()
            store = Store(paths.database)
            if gone:
                store.alert(
                    "DATABASE",
                    f"{paths.database} is gone and a new one begun; restore it from a backup if it is missed",
                )
            return store
    except DamagedError as error:
        reason = str(error)
    place = set_aside(paths, reason)
    store = Store(paths.database)
    store.audit("daemon", "database moved aside", reason, str(place))
    store.alert("DATABASE", f"the database was damaged and a new one begun; the old one lies in {place}: {reason}")
    return store


def damage(path: Path) -> str:
    """What is wrong with a database, as far as CHECK_S seconds show; "" where nothing is, or where there is none."""
    if not path.exists():
        return ""
    try:
        with closing(sqlite3.connect(path, timeout=1.0, isolation_level=None)) as connection:
            alarm = threading.Timer(CHECK_S, connection.interrupt)
            alarm.start()
            try:
                found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            finally:
                alarm.cancel()
                alarm.join()
    except sqlite3.OperationalError:
        return ""  # locked, unreadable or interrupted: opening it to write says more
    except sqlite3.DatabaseError as error:
        return str(error)
    return "" if found == "ok" else found


def set_aside(paths: StationPaths, reason: str) -> Path:
    """Move the database and the evidence that belongs to its rows to a directory of their own, with a record of why.

    Raises:
        OSError: it cannot be moved.
    """
    name = f"{paths.database.stem}-{utc_now()[:19].replace(':', '').replace('-', '')}Z"
    place = next(p for i in range(1000) if not (p := paths.quarantine / (f"{name}-{i}" if i else name)).exists())
    place.mkdir(mode=0o700, parents=True)
    files = [paths.database.with_name(paths.database.name + suffix) for suffix in SUFFIXES]
    there = [path for path in (*files, paths.evidence) if path.exists()]
    record = {"utc": utc_now(), "reason": reason, "files": {path.name: path.stat().st_size for path in there}}
    write_durably(place / "record.json", json.dumps(record, indent=2).encode())
    for path in there:
        path.rename(place / path.name)
    for directory in (place, paths.quarantine, paths.data):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return place


def _left_over(paths: StationPaths) -> str:
    """A log without its database: a power cut in the middle of moving them."""
    log = paths.database.with_name(paths.database.name + "-wal")
    return "its log was left behind" if log.exists() and not paths.database.exists() else ""
