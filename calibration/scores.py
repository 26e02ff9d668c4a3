"""Recorded scores of a model: a CSV of path, group, label and one `logit:CLASS` column per class.

The text form is exact: floats are written with as many digits as float32 needs to be read back bit for bit. Models
that give probabilities alone may be recorded in `probability:CLASS` columns instead; their logarithms serve as logits.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.metrics import SUM_TOLERANCE

PREFIX = "logit:"
PROBABILITY = "probability:"
LEAST_PROBABILITY = 1e-12
FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Scores:
    """Logits of one model on one set of parts.

    Attributes:
        classes: names in the order of the logits' columns.
        ok_class: which of them means a good part.
        paths, groups: str per row.
        labels: int64 (n,).
        logits: float32 (n, classes), finite.
    """

    classes: tuple[str, ...]
    ok_class: str
    paths: tuple[str, ...]
    groups: tuple[str, ...]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]

    @property
    def ok_index(self) -> int:
        """Position of the OK class."""
        return self.classes.index(self.ok_class)

    @property
    def is_defect(self) -> NDArray[np.bool_]:
        """Whether each part's label is not the OK class: bool (n,)."""
        return np.asarray(self.labels != self.ok_index)

    def write(self, path: Path) -> None:
        """Write the CSV; `read` gives equal scores back. Raises ValueError for a class name that ends in `*`."""
        if any(name.endswith("*") for name in self.classes):
            raise ValueError(f"a class name of {list(self.classes)} ends in '*', the mark of the OK class")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            marks = [PREFIX + name + ("*" if name == self.ok_class else "") for name in self.classes]
            writer.writerow(["path", "group", "label", *marks])
            for name, group, label, row in zip(self.paths, self.groups, self.labels, self.logits, strict=True):
                writer.writerow([name, group, self.classes[label], *(repr(float(v)) for v in row)])

    @classmethod
    def read(cls, path: Path, ok_class: str | None = None) -> Scores:
        """Read a scores file.

        Args:
            path: the CSV. The OK class is the column whose name ends in `*`, unless `ok_class` names it.

        Raises:
            InputError: missing or empty file, unknown columns, unknown label, a value that is no finite number,
                probabilities outside 0..1 or of a row that do not sum to one.
        """
        try:
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.reader(file)
                rows = [(reader.line_num, row) for row in reader if row]
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}; give a scores file made by trainer") from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path}: not a scores CSV ({error})") from None
        if len(rows) < 2:
            raise InputError(f"{path}: no scores in it; expected a header and at least one row")
        prefix, classes, ok_class = _header(path, rows[0][1], ok_class)
        labels = np.empty(len(rows) - 1, np.int64)
        logits = np.empty((len(rows) - 1, len(classes)), np.float32)
        for i, (line, row) in enumerate(rows[1:]):
            labels[i], logits[i] = _row(f"{path}, line {line}", row, prefix, classes)
        paths, groups = tuple(row[0] for _, row in rows[1:]), tuple(row[1] for _, row in rows[1:])
        return cls(classes, ok_class, paths, groups, labels, logits)


def _row(where: str, row: list[str], prefix: str, classes: tuple[str, ...]) -> tuple[int, list[float]]:
    if len(row) != 3 + len(classes):
        raise InputError(f"{where}: {len(row)} fields; expected {3 + len(classes)}")
    if row[2] not in classes:
        raise InputError(f"{where}, column label: {row[2]!r} is none of the classes {list(classes)}")
    values = [_number(text, f"{where}, column {prefix}{name}") for name, text in zip(classes, row[3:], strict=True)]
    if prefix == PROBABILITY:
        values = _logarithms(where, values, classes)
    return classes.index(row[2]), values


def _logarithms(where: str, values: list[float], classes: tuple[str, ...]) -> list[float]:
    for name, value in zip(classes, values, strict=True):
        if not 0 <= value <= 1:
            raise InputError(f"{where}, column {PROBABILITY}{name}: {value:g} is no probability; expected 0 to 1")
    if abs(sum(values) - 1) > SUM_TOLERANCE:
        raise InputError(
            f"{where}: the probabilities sum to {sum(values):.6g}, not to one; record them after the softmax, "
            f"or the values before it in {PREFIX}CLASS columns"
        )
    return [math.log(max(value, LEAST_PROBABILITY)) for value in values]


def _header(path: Path, header: list[str], ok_class: str | None) -> tuple[str, tuple[str, ...], str]:
    """Prefix of the score columns, classes, OK class."""
    if header[:3] != ["path", "group", "label"]:
        raise InputError(f"{path}: the header is {header[:3]}; expected path,group,label, then one logit:CLASS each")
    prefix = PROBABILITY if header[3:] and header[3].startswith(PROBABILITY) else PREFIX
    for name in header[3:]:
        if not name.startswith(prefix):
            raise InputError(f"{path}: unknown column {name!r}; expected {prefix}CLASS")
    marked = [name.removeprefix(prefix) for name in header[3:]]
    classes = tuple(name.removesuffix("*") for name in marked)
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise InputError(f"{path}: classes {list(classes)}; at least two different ones are needed")
    stars = [name.removesuffix("*") for name in marked if name.endswith("*")]
    ok = ok_class or (stars[0] if len(stars) == 1 else None)
    if ok is None:
        raise InputError(f"{path}: which class is OK is not marked (logit:CLASS*); name it with --ok CLASS")
    if ok not in classes:
        raise InputError(f"{path}: the OK class {ok!r} is none of {list(classes)}")
    return prefix, classes, ok


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{where}: {text!r} is not a number") from None
    if not abs(value) <= FLOAT32_MAX:  # false for NaN too
        raise InputError(f"{where}: the value is {text}; scores must be finite. Export the model again or drop the row")
    return value
