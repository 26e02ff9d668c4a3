"""Rows of the station's database as the daemon makes them."""

from __future__ import annotations

from typing import NamedTuple


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
