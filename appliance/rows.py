"""Rows of the station's database as the daemon makes them, and how a group of them is written with its sums."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from appliance.words import JUDGED


class VerdictRow(NamedTuple):
    """One row of table verdict; the columns are explained in `appliance.schema`."""

    seq: int
    camera: str
    trigger: int
    frame: str
    serial: str
    lot: str
    utc: str
    mono_ns: int
    boot_id: str
    decision: str | None
    verdict: str
    reason: str
    detail: str
    top_class: str
    defect_probability: float | None
    logits: bytes | None
    crc: int | None
    bundle: str
    read_us: int
    wait_us: int
    engine_us: int
    total_us: int
    batch: int | None = None
    position: int | None = None


_INSERT = f"INSERT INTO verdict VALUES ({','.join('?' * len(VerdictRow._fields))})"  # noqa: S608  a count, no input
_TALLY = "INSERT INTO tally VALUES (?, ?, ?) ON CONFLICT (camera, reason) DO UPDATE SET parts = parts + excluded.parts"
_HISTOGRAM = (
    "INSERT INTO histogram VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (minute, camera, class, bundle, bin) DO UPDATE SET parts = parts + excluded.parts"
)
_STRATUM = (
    "INSERT INTO stratum VALUES (?, ?, ?, ?, ?) ON CONFLICT (day, bundle, decision) "
    "DO UPDATE SET parts = parts + excluded.parts, expected = expected + excluded.expected"
)
_DECIDED = frozenset(reason.value for reason in JUDGED)


@dataclass
class Sums:
    """What a group of rows adds to the tables that count.

    Attributes:
        tally: parts by (camera, reason). histogram: by (minute, camera, class, bundle, bin of defect probability).
        strata: parts and their summed defect probability by (day, bundle, decision), where that was the verdict too.
    """

    tally: dict[tuple[str, str], int] = field(default_factory=dict)
    histogram: dict[tuple[str, str, str, str, int], int] = field(default_factory=dict)
    strata: dict[tuple[str, str, str | None], tuple[int, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Sequence[VerdictRow], bins: Sequence[int | None]) -> Sums:
        """`bins`: of each row's defect probability; None where the part was not judged."""
        sums = cls()
        for row, bin_ in zip(rows, bins, strict=True):
            key = (row.camera, row.reason)
            sums.tally[key] = sums.tally.get(key, 0) + 1
            if bin_ is not None:
                cell = (row.utc[:16], row.camera, row.top_class, row.bundle, bin_)
                sums.histogram[cell] = sums.histogram.get(cell, 0) + 1
            if row.reason in _DECIDED:
                stratum = (row.utc[:10], row.bundle, row.decision)
                parts, expected = sums.strata.get(stratum, (0, 0.0))
                sums.strata[stratum] = (parts + 1, expected + (row.defect_probability or 0.0))
        return sums


def write(db: sqlite3.Connection, rows: Sequence[VerdictRow], sums: Sums, drawn: Sequence[int]) -> None:
    """Write a group, within a transaction. `drawn`: numbers of the rows that a person shall judge."""
    db.executemany(_INSERT, rows)
    write_tally(db, sums.tally)
    db.executemany(_HISTOGRAM, [(*key, parts) for key, parts in sums.histogram.items()])
    db.executemany(_STRATUM, [(*key, *stratum) for key, stratum in sums.strata.items()])
    db.executemany("INSERT INTO sample VALUES (?)", [(seq,) for seq in drawn])


def write_tally(db: sqlite3.Connection, parts: Mapping[tuple[str, str], int]) -> None:
    """Add to the tally, or take away from it, within a transaction."""
    db.executemany(_TALLY, [(*key, n) for key, n in parts.items()])
