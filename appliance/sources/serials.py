"""Which physical part a frame shows: serial and lot of a trigger, where its source can tell."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from appliance.sources.protocol import Shot, Source
from calibration.errors import InputError
from calibration.images import IMAGE_SUFFIXES

LONGEST = 64


class Identity(NamedTuple):
    """Serial and lot of a part; an empty serial is replaced by the row's number, an empty lot by the station's."""

    serial: str
    lot: str = ""


class Identified:
    """A source whose shots carry the identity that their frame's name stands for."""

    def __init__(self, source: Source, identify: Callable[[str], Identity]) -> None:
        self.fps, self.live = source.fps, source.live
        self._source, self._identify = source, identify

    def shoot(self) -> Shot | None:
        """See Source.shoot."""
        shot = self._source.shoot()
        if shot is None:
            return None
        serial, lot = self._identify(shot.name)
        return replace(shot, serial=serial, lot=lot)


def checked_code(text: str) -> str:
    """A serial or lot as it came from a reader, a file or a message, if it is one.

    Raises:
        ValueError: empty, longer than 64 characters, or with characters that cannot be printed or with outer spaces.
    """
    if not 0 < len(text) <= LONGEST or not text.isprintable() or text != text.strip():
        raise ValueError(f"{text[:80]!r} is no serial or lot; use 1 to {LONGEST} printable characters")
    return text


def serials_of_names(names: Sequence[str], what: str) -> dict[str, Identity]:
    """Each frame's file name without folders and suffix as the serial. Raises InputError naming `what`."""
    found = {}
    for name in names:
        stem = name.rpartition("/")[2]
        for suffix in IMAGE_SUFFIXES:
            stem = stem[: -len(suffix)] if stem.lower().endswith(suffix) else stem
        try:
            found[name] = Identity(checked_code(stem))
        except ValueError as error:
            raise InputError(f"{what}: frame {name}: {error}; rename it, or give a CSV file of serials") from None
    return found


def serials_of_csv(path: Path, names: Sequence[str]) -> dict[str, Identity]:
    """Identities from a CSV file with columns frame, serial and, if need be, lot; every frame needs its line.

    Raises:
        InputError: unreadable, a column or frame missing, a frame twice, or no usable serial; names the line.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.DictReader(file)
            if not {"frame", "serial"} <= set(lines.fieldnames or ()):
                raise InputError(f"{path}: the first line must name the columns frame, serial and, if need be, lot")
            found: dict[str, Identity] = {}
            for number, line in enumerate(lines, 2):
                if line["frame"] in found:
                    raise InputError(f"{path}: line {number}: frame {line['frame']} a second time; remove one")
                found[line["frame"]] = _identity(line, f"{path}: line {number}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: {error}; give a CSV file, UTF-8, with columns frame, serial, lot") from None
    missing = next((name for name in names if name not in found), None)
    if missing is not None:
        raise InputError(f"{path}: no line for frame {missing}; add one")
    return found


def _identity(line: Mapping[str, str | None], where: str) -> Identity:
    lot = line.get("lot") or ""
    try:
        return Identity(checked_code(line["serial"] or ""), checked_code(lot) if lot else "")
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
