"""From a consensus to training labels: labels.csv, and a dataset that takes its labels from it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from trainer.data.fields import parse_soft
from trainer.data.manifest import Dataset
from trainer.data.names import listed
from trainer.labels.answers import GOLD_COLUMNS, read_rows

COLUMNS = ("item", "label", "soft", "confidence", "tie")
CERTAIN = 0.999
"""A posterior from here on is written without a soft label: nobody doubts."""


@dataclass(frozen=True)
class Relabelled:
    """A dataset with new labels.

    Attributes:
        dataset: as before, but for the labels and soft labels that were given.
        changed: paths whose label is another one now. kept: how many were given the label they had.
        unknown: items of the table that the dataset does not hold.
    """

    dataset: Dataset
    changed: tuple[str, ...]
    kept: int
    unknown: tuple[str, ...]


def write_labels(
    path: Path,
    items: Sequence[str],
    classes: Sequence[str],
    labels: NDArray[np.int64],
    posterior: NDArray[np.float64],
    ties: NDArray[np.bool_],
) -> None:
    """Write one row per item, the least certain first: what `relabelled` reads and a person can check.

    Args:
        items, labels, ties: (n,). posterior: float (n, classes), rows sum to one.
    """
    confidence = posterior[np.arange(len(labels)), labels]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in np.argsort(confidence, kind="stable").tolist():
            chances = [(name, p) for name, p in zip(classes, posterior[row].tolist(), strict=True) if p >= 5e-5]
            soft = ";".join(f"{name}:{p:.4f}" for name, p in chances) if confidence[row] < CERTAIN else ""
            tie = "yes" if ties[row] else ""
            writer.writerow([items[row], classes[labels[row]], soft, f"{confidence[row]:.4f}", tie])


def relabelled(dataset: Dataset, table: Path) -> Relabelled:
    """Give the images named in a table (columns item,label, or those of `write_labels`) their labels from it.

    An item is a path as in the dataset's manifest. Groups and splits stay as they are. A label that is given without a
    soft label leaves no doubt.

    Raises:
        InputError: an unreadable table, an unknown label, an item given twice, or no item that the dataset holds.
    """
    given = _read(table, dataset.classes)
    present = {item.path for item in dataset.items}
    unknown = tuple(sorted(given.keys() - present))
    if len(unknown) == len(given):
        raise InputError(
            f"{table}, item: none of its {len(given)} items is an image of {dataset.folder or dataset.name} (first: "
            f"{listed(list(unknown), 1)}); write paths as in its manifest.csv"
        )
    items = tuple(
        replace(item, label=given[item.path][0], soft=given[item.path][1]) if item.path in given else item
        for item in dataset.items
    )
    changed = tuple(old.path for old, new in zip(dataset.items, items, strict=True) if old.label != new.label)
    kept = len(given) - len(unknown) - len(changed)
    return Relabelled(replace(dataset, items=items), changed, kept, unknown)


def _read(table: Path, classes: tuple[str, ...]) -> dict[str, tuple[str, tuple[float, ...] | None]]:
    """Label and soft label by item."""
    found: dict[str, tuple[str, tuple[float, ...] | None]] = {}
    for where, row in read_rows(table, GOLD_COLUMNS, COLUMNS):
        item, label = row[0].strip(), row[1].strip()
        if label not in classes:
            raise InputError(f"{where}, label: {label!r} is none of the dataset's classes {list(classes)}; correct it")
        if item in found:
            raise InputError(f"{where}, item: {item!r} was given before; keep one of the rows")
        found[item] = (label, parse_soft(f"{where}, soft", row[2].strip(), classes) if len(row) > 2 else None)
    if not found:
        raise InputError(f"{table}: no rows below the header; nothing to relabel")
    return found
