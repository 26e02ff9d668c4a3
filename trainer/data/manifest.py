"""A dataset as the trainer sees it: one row per image, in a folder that holds no image itself.

DATA/manifest.csv has the columns path, label, group, split, soft; DATA/dataset.json says what they mean and where the
images lie. Both are plain text for a person to read and to edit; every mistake made in editing is named on reading.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from trainer.data.fields import check_header, parse_settings, parse_soft, soft_text
from trainer.data.names import is_safe, printable

VERSION = 1
SPLITS = ("train", "val", "test")
COLUMNS = ("path", "label", "group", "split", "soft")
MANIFEST, SETTINGS = "manifest.csv", "dataset.json"


@dataclass(frozen=True)
class Item:
    """One image.

    Attributes:
        path: POSIX path below the dataset's image root.
        label: name of its class.
        group: images of the same physical part, shot or lot; never cut by a split.
        split: "train", "val" or "test".
        soft: probability of each class in the order of the dataset's classes, summing to 1; None where nobody doubts.
    """

    path: str
    label: str
    group: str
    split: str
    soft: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Dataset:
    """Images with labels, groups and splits.

    Attributes:
        name: of the dataset, for reports.
        root: folder of the images.
        classes: names, at least two, in the order of the model's outputs.
        ok_class: the one that means a good part.
        ok_source: how that was decided, a sentence for reports.
        channels: 1 (grey) or 3 (colour).
        frame_heights, frame_widths: inclusive (least, most) of the frames in pixels.
        frame_aspects: inclusive (least, most) width / height of the frames.
        seed: of the split.
        licence: of the images, as far as known.
        items: in the order of the manifest.
        folder: the DATA folder it was read from; None when made in memory.
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    ok_class: str
    ok_source: str
    channels: int
    frame_heights: tuple[int, int]
    frame_widths: tuple[int, int]
    frame_aspects: tuple[float, float]
    seed: int
    licence: str
    items: tuple[Item, ...]
    folder: Path | None = field(default=None, compare=False)

    @property
    def ok_index(self) -> int:
        """Position of the OK class."""
        return self.classes.index(self.ok_class)

    def of(self, split: str) -> tuple[Item, ...]:
        """The items of one split."""
        return tuple(item for item in self.items if item.split == split)

    def labels(self, split: str | None = None) -> NDArray[np.int64]:
        """Class index of each item, int64 (n,): of one split, or of all."""
        index = {name: i for i, name in enumerate(self.classes)}
        return np.array([index[i.label] for i in self.items if split in (None, i.split)], dtype=np.int64)

    def counts(self) -> dict[str, dict[str, int]]:
        """Images per split and class."""
        table = {split: dict.fromkeys(self.classes, 0) for split in SPLITS}
        for item in self.items:
            table[item.split][item.label] += 1
        return table

    @cached_property
    def sha256(self) -> str:
        """Hash of everything training depends on: classes, every row, and the bytes of every image.

        The name, the place on disk and the licence take no part, so that a copy elsewhere has the same hash. The
        images are read whole (about a second per gigabyte on one core): a replaced image of equal size must not
        pass for the one that was trained on.

        Raises:
            InputError: an image is missing or unreadable.
        """
        whole = hashlib.sha256()
        head = [VERSION, self.classes, self.ok_class, self.channels, self.frame_heights, self.frame_widths]
        whole.update(json.dumps(head).encode())
        with ThreadPoolExecutor(2) as pool:
            for item, digest in zip(self.items, pool.map(self._image_sha256, self.items), strict=True):
                row = [item.path, item.label, item.group, item.split, item.soft, digest]
                whole.update(json.dumps(row).encode())
        return whole.hexdigest()

    def _image_sha256(self, item: Item) -> str:
        try:
            with (self.root / item.path).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            where = f"{self.folder / MANIFEST if self.folder else MANIFEST}, path {printable(item.path)}"
            raise InputError(f"{where}: {error.strerror or error}; restore the image or import again") from None


def write_dataset(dataset: Dataset, folder: Path) -> Dataset:
    """Write DATA; `read_dataset(folder)` gives an equal dataset back. Returns it with its folder set.

    Both files are written beside their place and renamed, dataset.json last: a folder with dataset.json is whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"version": VERSION, **{key: getattr(dataset, key) for key in _SETTING_FIELDS}}
    (folder / SETTINGS).unlink(missing_ok=True)
    table = folder / (MANIFEST + ".part")
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for item in dataset.items:
            writer.writerow([item.path, item.label, item.group, item.split, soft_text(item.soft, dataset.classes)])
    os.replace(table, folder / MANIFEST)
    part = folder / (SETTINGS + ".part")
    part.write_text(json.dumps(settings, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
    os.replace(part, folder / SETTINGS)
    return read_dataset(folder)


_SETTING_FIELDS = tuple(name for name in Dataset.__dataclass_fields__ if name not in ("items", "folder"))


def read_dataset(folder: Path) -> Dataset:
    """Read DATA.

    Raises:
        InputError: whatever is wrong, naming file, line, field and remedy: a missing or empty file, an unknown
            or missing column or field, another version, an unknown label or split, soft labels that are no
            probabilities, a path given twice, a group cut by a split, a missing image folder.
    """
    if not (folder / SETTINGS).is_file():
        raise InputError(f"{folder}: no dataset in it ({SETTINGS} is missing); make one with `trainer import`")
    settings = parse_settings(folder / SETTINGS, VERSION, _SETTING_FIELDS)
    root = Path(settings.pop("root"))
    root = root if root.is_absolute() else folder / root
    if not root.is_dir():
        raise InputError(
            f"{folder / SETTINGS}, root: the image folder {printable(str(root))} is missing; "
            "put it back, correct root, or import again"
        )
    items = _read_items(folder / MANIFEST, tuple(settings["classes"]))
    return Dataset(root=root, items=items, folder=folder.resolve(), **settings)


def _read_items(path: Path, classes: tuple[str, ...]) -> tuple[Item, ...]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file, strict=True))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; import the images again") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV in UTF-8 ({error}); import the images again") from None
    if not rows:
        raise InputError(f"{path}: the file is empty; import the images again")
    check_header(path, rows[0], COLUMNS)
    if len(rows) < 2:
        raise InputError(f"{path}: no rows below the header; import the images again")
    items = tuple(_item(f"{path}, line {n}", row, classes) for n, row in enumerate(rows[1:], start=2))
    _check_whole(path, items)
    return items


def _item(where: str, row: list[str], classes: tuple[str, ...]) -> Item:
    if len(row) != len(COLUMNS):
        raise InputError(f"{where}: {len(row)} fields; expected {len(COLUMNS)}: {','.join(COLUMNS)}")
    path, label, group, split, soft = row
    if not path or not is_safe(path) or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise InputError(f"{where}, path: {path!r} does not lie below the image root; give a relative path")
    if label not in classes:
        raise InputError(f"{where}, label: {label!r} is none of the classes {list(classes)} of {SETTINGS}")
    if not group or not is_safe(group):
        raise InputError(f"{where}, group: {group!r} is no name; give the part or lot the image shows")
    if split not in SPLITS:
        raise InputError(f"{where}, split: {split!r}; it must be one of {', '.join(SPLITS)}")
    return Item(path, label, group, split, parse_soft(f"{where}, soft", soft, classes))


def _check_whole(path: Path, items: tuple[Item, ...]) -> None:
    """What no row shows by itself: paths given twice and groups cut by a split."""
    first: dict[str, int] = {}
    home: dict[str, tuple[str, int]] = {}
    for line, item in enumerate(items, start=2):
        if item.path in first:
            raise InputError(
                f"{path}, line {line}, path: {item.path!r} was given in line {first[item.path]} already; "
                "delete one of the two rows"
            )
        first[item.path] = line
        split, earlier = home.setdefault(item.group, (item.split, line))
        if split != item.split:
            raise InputError(
                f"{path}, line {line}, split: group {item.group!r} is in {item.split!r} here and in "
                f"{split!r} in line {earlier}; a group must lie in one split whole"
            )


def class_groups(items: tuple[Item, ...]) -> dict[str, set[str]]:
    """The groups in which each class occurs."""
    found: dict[str, set[str]] = {}
    for item in items:
        found.setdefault(item.label, set()).add(item.group)
    return found


def summary(dataset: Dataset) -> dict[str, Any]:
    """What a command prints of a dataset: plain JSON values."""
    return {
        "name": dataset.name,
        "root": str(dataset.root),
        "images": len(dataset.items),
        "groups": len({item.group for item in dataset.items}),
        "classes": list(dataset.classes),
        "ok_class": dataset.ok_class,
        "ok_source": dataset.ok_source,
        "channels": dataset.channels,
        "frame_heights": list(dataset.frame_heights),
        "frame_widths": list(dataset.frame_widths),
        "counts": dataset.counts(),
    }
