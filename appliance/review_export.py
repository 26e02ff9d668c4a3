"""Parts that people have judged, as a folder for `trainer import folder`: what the line teaches the next model."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from appliance.evidence import EvidenceError, frame_of
from calibration.cli_support import Report
from calibration.errors import InputError

FIELDS = ("seq", "utc", "serial", "lot", "camera", "person", "operator", "decision", "top_class", "defect_probability")
"""Columns of parts.csv behind the path: whose part it is, who said what, and what the model had said."""


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        folder: with OK/ and DEFECT/, groups.csv (a group a serial number) and parts.csv.
        written: pictures by a person's decision. missing: why a part has no picture, by the number of its row.
    """

    folder: Path
    written: dict[str, int]
    missing: dict[int, str]


def export_reviews(rows: Sequence[dict[str, Any]], evidence: Path, out: Path, station: str, report: Report) -> Export:
    """Write the frames of rows that people have judged, without loss, by what they said.

    Args:
        rows: as history.judged_by_people gives them. evidence: where the station's evidence lies.
        out: a folder that is empty or not there. station: its name, so that parts of several may lie in one folder.
        report: called with (done, total).

    Raises:
        InputError: `out` holds something, or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is not an empty folder; give a new one with --out")
    written, missing, parts = {"OK": 0, "DEFECT": 0}, {}, []
    try:
        for folder in written:
            (out / folder).mkdir(parents=True, exist_ok=True)
        for done, row in enumerate(rows, 1):
            try:
                frame = frame_of(evidence, row)
            except EvidenceError as error:
                missing[row["seq"]] = str(error)
            else:
                path = f"{row['person']}/{station}-{row['seq']}.png"
                (out / path).write_bytes(cv2.imencode(".png", frame)[1].tobytes())
                written[row["person"]] += 1
                parts.append((path, row))
            report(done, len(rows))
        _write(out / "groups.csv", ("path", "group"), [(path, f"{station}-{row['serial']}") for path, row in parts])
        _write(out / "parts.csv", ("path", *FIELDS), [(path, *(row[name] for name in FIELDS)) for path, row in parts])
    except OSError as error:
        raise InputError(f"{error.filename or out}: {error.strerror}; give another folder with --out") from None
    return Export(out, written, missing)


def _write(path: Path, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *rows])
