"""Answers of annotators by name, read from and written to CSV (item, annotator, label) or Label Studio's JSON."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from trainer.data.fields import check_header
from trainer.data.names import class_name, is_safe

COLUMNS = ("item", "annotator", "label")
GOLD_COLUMNS = ("item", "label")


@dataclass(frozen=True)
class Answer:
    """One label that one annotator gave to one item. `where`: its place in the file, for messages."""

    item: str
    annotator: str
    label: str
    where: str = field(compare=False, default="")


@dataclass(frozen=True)
class Answers:
    """Answers as numbers, with the names behind them.

    Attributes:
        items, annotators: names, sorted. classes: names, at least two.
        rows: int64 (n, 3): item, annotator, label, as `dawid_skene` takes them.
        gold: known true class of some items, by item number.
    """

    items: tuple[str, ...]
    annotators: tuple[str, ...]
    classes: tuple[str, ...]
    rows: NDArray[np.int64]
    gold: dict[int, int]

    def named(self) -> list[Answer]:
        """The answers by name, in the order of `rows`."""
        return [Answer(self.items[i], self.annotators[a], self.classes[k]) for i, a, k in self.rows.tolist()]

    def alone(self) -> tuple[str, ...]:
        """Annotators none of whose items anybody else answered or is gold: nothing shows how reliable they are."""
        pairs = np.unique(self.rows[:, :2], axis=0)
        shared = np.bincount(pairs[:, 0], minlength=len(self.items)) > 1
        shared[list(self.gold)] = True
        meets = np.isin(np.arange(len(self.annotators)), pairs[shared[pairs[:, 0]], 1])
        return tuple(name for name, met in zip(self.annotators, meets, strict=True) if not met)


def collect(
    path: Path, answers: Sequence[Answer], classes: Sequence[str] | None = None, gold: Iterable[Answer] = ()
) -> Answers:
    """Number the answers of a file.

    Args:
        path: where they came from, for messages.
        classes: the only ones allowed, in this order; None for those that occur, sorted.
        gold: known labels; those of items without answers are left out.

    Raises:
        InputError: no answers, a label that is none of the classes, fewer than two classes, or two gold labels for one
            item.
    """
    if not answers:
        raise InputError(f"{path}: no answers in it; let the annotators label the items first")
    known = tuple(classes) if classes is not None else tuple(sorted({answer.label for answer in answers}))
    items = tuple(sorted({answer.item for answer in answers}))
    annotators = tuple(sorted({answer.annotator for answer in answers}))
    number = {name: i for i, name in enumerate(items)}
    who = {name: i for i, name in enumerate(annotators)}
    what = {name: i for i, name in enumerate(known)}
    fixed: dict[int, int] = {}
    for answer in (*answers, *(truths := list(gold))):
        if answer.label not in what:
            raise InputError(
                f"{answer.where or path}: the label {answer.label!r} is none of the classes {list(known)}; "
                "correct it, or add it to the classes"
            )
    if len(known) < 2:
        raise InputError(f"{path}: every answer is {known[0]!r}; nothing to estimate: add items of other classes")
    for truth in truths:
        if truth.item in number and fixed.setdefault(number[truth.item], what[truth.label]) != what[truth.label]:
            raise InputError(f"{truth.where}: {truth.item!r} has two gold labels; keep one")
    rows = [(number[a.item], who[a.annotator], what[a.label]) for a in answers]
    return Answers(items, annotators, known, np.array(rows, dtype=np.int64), fixed)


def read_answers_csv(path: Path) -> list[Answer]:
    """Rows of a CSV with the columns item,annotator,label. Raises InputError with the line and the remedy."""
    return [
        Answer(_name(item, where, "item"), _name(who, where, "annotator"), class_name(label, f"{where}, label"), where)
        for where, (item, who, label) in read_rows(path, COLUMNS)
    ]


def read_gold_csv(path: Path) -> list[Answer]:
    """Rows of a CSV with the columns item,label: what is known for certain. Raises InputError."""
    return [
        Answer(_name(item, where, "item"), "", class_name(label, f"{where}, label"), where)
        for where, (item, label) in read_rows(path, GOLD_COLUMNS)
    ]


def write_answers_csv(path: Path, answers: Iterable[Answer]) -> None:
    """Write the columns item,annotator,label; `read_answers_csv` gives equal answers back."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows((answer.item, answer.annotator, answer.label) for answer in answers)


def read_rows(path: Path, *layouts: tuple[str, ...]) -> list[tuple[str, list[str]]]:
    """(place, fields) of every row of a CSV with the columns of one of the layouts; blank lines are passed over.

    Raises:
        InputError: an unreadable file, another header, or a row of another length, with line and remedy.
    """
    wanted = f"give a CSV in UTF-8 with the columns {' or '.join(','.join(columns) for columns in layouts)}"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, row) for row in reader if row]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; {wanted}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not such a table ({error}); {wanted}") from None
    if not rows:
        raise InputError(f"{path}: the file is empty; {wanted}")
    header = tuple(rows[0][1])
    if header not in layouts:
        check_header(path, rows[0][1], layouts[0])
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise InputError(f"{path}, line {line}: {len(row)} fields; {wanted}")
    return [(f"{path}, line {line}", row) for line, row in rows[1:]]


def _name(text: str, where: str, column: str) -> str:
    name = text.strip()
    if not name or not is_safe(name):
        raise InputError(f"{where}, {column}: {text!r} is no name; write who or what it is")
    return name
