"""From images as they come to a dataset: ELPV from its package, or any folder with one subfolder per class.

Images stay where they are. An importer looks at every pixel once; what it cannot use it names and counts, what it had
to guess it says.
"""

from __future__ import annotations

import csv
import importlib.util
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.cli_support import Report
from calibration.errors import InputError
from trainer.data.classes import choose_ok, read_groups
from trainer.data.findings import TWINS, pixel_warnings, split_warnings, twin_warnings
from trainer.data.manifest import MANIFEST, SETTINGS, SPLITS, Dataset, Item, write_dataset
from trainer.data.names import class_name, is_safe, listed
from trainer.data.scan import list_images, look_at
from trainer.data.splits import default_fractions, grouped_split
from trainer.data.twins import Twins, find_twins, united

SPLIT_FOLDERS = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))


@dataclass(frozen=True)
class Options:
    """How to import, the same for every source.

    Attributes:
        seed: of the split.
        fractions: shares of train, val and test; None goes by the number of images (splits.default_fractions).
        group_twins: put near-twins into one group before splitting.
        force: replace a dataset that is there.
    """

    seed: int = 0
    fractions: tuple[float, float, float] | None = None
    group_twins: bool = False
    force: bool = False


@dataclass(frozen=True)
class ImportResult:
    """What an import made and what it found.

    Attributes:
        dataset: as written.
        warnings: sentences for the user.
        skipped: why an image was left out, by path.
        ignored: files that are no images, counted by kind.
        twin_pairs: near-twins that lie in different splits; all of them are in twins.csv.
        twin_test_images: test images with a near-twin in train or val.
    """

    dataset: Dataset
    warnings: tuple[str, ...]
    skipped: dict[str, str]
    ignored: dict[str, int]
    twin_pairs: int
    twin_test_images: int


@dataclass(frozen=True)
class _Found:
    """An image with its label, before it is looked at. `stratum`: what the split keeps in proportion."""

    path: str
    label: str
    group: str
    soft: tuple[float, ...] | None
    stratum: str


def import_elpv(out: Path, options: Options | None = None, progress: Report | None = None) -> ImportResult:
    """Import the solar cells of the installed package `elpv-dataset` (Buerhop-Lutz et al. 2018, Deitsch et al. 2019).

    Each cell's probability of a defect is 0, 1/3, 2/3 or 1. From 0.5 up its label is "defect"; the doubt in between is
    kept as a soft label. Stratified by that probability and by mono- or polycrystalline cells. Which cells are from
    one module is not published, so each is a group of its own: see the warning about twins.

    Raises:
        InputError: the package is missing or not as expected, or `out` holds something else.
    """
    options = options or Options()
    _check_out(out, options.force)
    spec = importlib.util.find_spec("elpv_dataset")  # not imported: it would read all images at once
    if spec is None or not spec.submodule_search_locations:
        raise InputError("the package elpv-dataset is not installed: pip install elpv-dataset")
    root = Path(next(iter(spec.submodule_search_locations))).resolve() / "data"
    try:
        lines = (root / "labels.csv").read_text(encoding="utf-8").split("\n")
        rows = [(path, float(p), kind) for path, p, kind in (line.split() for line in lines if line.strip())]
    except (OSError, ValueError) as error:
        raise InputError(f"{root / 'labels.csv'}: {error}; install elpv-dataset again (1.0.0.post1 is known)") from None
    found = [
        _Found(
            path=path,
            label="defect" if p >= 0.5 else "ok",
            group=Path(path).stem,
            soft=None if p in (0.0, 1.0) else (1 - p, p),
            stratum=f"{'defect' if p >= 0.5 else 'ok'} {p:.2f} {kind}",
        )
        for path, p, kind in sorted(rows)
    ]
    source = _Source(
        name="elpv",
        root=root,
        found=found,
        classes=("ok", "defect"),
        ok=("ok", "by the data set: probability of a defect below 0.5"),
        licence="CC BY-NC-SA 4.0 (no commercial use)",
    )
    return _import(source, out, options, progress)


def import_folder(
    directory: Path,
    out: Path,
    options: Options | None = None,
    *,
    ok: str | None = None,
    groups: Path | None = None,
    name: str | None = None,
    licence: str = "unknown",
    progress: Report | None = None,
) -> ImportResult:
    """Import a folder that has one subfolder per class, with images at any depth below it.

    Args:
        directory: the folder.
        out: DATA, the dataset folder to write.
        ok: the class of the good parts; None to choose it by name, or else by size.
        groups: CSV with path,group; None to take `groups.csv` in the folder where there is one. Images it leaves out,
            or all without one, are groups of their own.
        name: of the dataset; None for the folder's.
        progress: called with (images done, images in all).

    Raises:
        InputError: nothing usable: missing or empty folder, fewer than two classes, no readable image, unusable
            groups.csv, too few groups to split, or `out` holds something else.
    """
    options = options or Options()
    root = directory.resolve()
    if not root.is_dir():
        raise InputError(f"{directory}: no such folder; give the folder that holds one subfolder per class")
    if out.resolve() == root or root in out.resolve().parents:
        raise InputError(f"{out}: lies inside the image folder {directory}; put the dataset elsewhere with --out")
    _check_out(out, options.force)
    for what, text in (("DIR", str(root)), ("--name", name or ""), ("--licence", licence)):
        if not is_safe(text):
            raise InputError(f"{what} {text!r}: holds control characters; choose another")
    table = groups or (root / "groups.csv" if (root / "groups.csv").is_file() else None)
    listing = list_images(root, table)
    labels, notes = _labels(directory, listing.images)
    grouping: dict[str, str] = {}
    if table is not None:
        grouping, about = read_groups(table, listing.images)
        notes += about
    clash = set(grouping.values())
    found = [
        _Found(path, label, grouping.get(path) or (path if path not in clash else f"{path} alone"), None, label)
        for path, label in labels.items()
    ]
    if listing.ignored.get("unprintable name"):
        notes.append(f"{listing.ignored['unprintable name']} image(s) have names that cannot be written; rename them")
    source = _Source(name or root.name, root, found, None, ok, licence, tuple(notes), listing.ignored)
    return _import(source, out, options, progress)


@dataclass(frozen=True)
class _Source:
    """What an importer hands over. `classes` None: those that have readable images, by name. `ok`: the class and how it
    was chosen; or the name a user gave, or None, to choose it by."""

    name: str
    root: Path
    found: Sequence[_Found]
    classes: tuple[str, ...] | None
    ok: tuple[str, str] | str | None
    licence: str
    warnings: tuple[str, ...] = ()
    ignored: dict[str, int] | None = None


def _labels(directory: Path, images: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Class of each image from its topmost folder, and warnings. Raises InputError where that gives no two classes."""
    beside = [p.name for p in directory.iterdir() if p.is_dir() and p.name[0] != "." and p.name != "__MACOSX"]
    for folder in beside:
        class_name(folder, str(directory))  # none may vanish because its name cannot be written
    folders = sorted({path.split("/", 1)[0] for path in images if "/" in path})
    loose = [path for path in images if "/" not in path]
    if not folders:
        what = f"{len(loose)} image(s) but no subfolders" if loose else "no images in it (bmp, jpg, png, tif)"
        raise InputError(f"{directory}: {what}; put the images of each class into a subfolder named after it")
    if SPLIT_FOLDERS.issuperset(folder.casefold() for folder in folders):
        raise InputError(
            f"{directory}: its subfolders {', '.join(folders)} are splits, not classes; give a folder with one "
            "subfolder per class. Lineguard makes its own split, which keeps the images of one part together"
        )
    names: dict[str, str] = {}
    for folder in folders:
        name = class_name(folder, str(directory))
        if name in names.values():
            raise InputError(f"{directory}: two folders both give the class name {name!r}; rename one")
        names[folder] = name
    notes = [f"folder {a!r} became class {b!r}" for a, b in names.items() if a != b]
    empty = sorted(set(beside) - set(names))
    if empty:
        notes.append(f"no image in folder(s) {listed(empty)}: no class is made of them")
    if loose:
        notes.append(f"{len(loose)} image(s) lie beside the class folders and are left out: {listed(loose)}")
    return {path: names[path.split("/", 1)[0]] for path in images if "/" in path}, notes


def _import(source: _Source, out: Path, options: Options, progress: Report | None) -> ImportResult:
    """Look at the images, split, search for twins, write."""
    look = look_at(source.root, [f.path for f in source.found], progress)
    found = [f for f, readable in zip(source.found, look.readable, strict=True) if readable]
    counts = Counter(f.label for f in found)
    if len(counts) < 2:
        raise InputError(
            f"{source.root}: only one class, {next(iter(counts))!r}, has readable images; "
            "good and defective parts are both needed, each in a folder of its own"
        )
    classes = source.classes or tuple(sorted(counts))
    warnings = [*source.warnings, *pixel_warnings(look, len(source.found))]
    if isinstance(source.ok, tuple):
        ok_class, ok_source = source.ok
    else:
        ok_class, ok_source, guess = choose_ok(counts, source.ok)
        warnings += [guess] if guess else []

    groups: Sequence[str] = [f.group for f in found]
    if options.group_twins:
        before, groups = len(set(groups)), united(groups, find_twins(look.thumbnails).pairs)
        warnings.append(f"near-twins were put together: {before} groups became {len(set(groups))}")
    strata = sorted({f.stratum for f in found})
    fractions = options.fractions or default_fractions(len(found))
    split = grouped_split([strata.index(f.stratum) for f in found], groups, options.seed, fractions)
    items = tuple(
        Item(f.path, f.label, group, SPLITS[part], f.soft) for f, group, part in zip(found, groups, split, strict=True)
    )
    warnings += split_warnings(items, classes, ok_class, fractions)
    twins = find_twins(look.thumbnails, split)
    test_twins = len(set(twins.pairs[split[twins.pairs] == 2].tolist()) if len(twins.pairs) else ())
    warnings += twin_warnings(twins, items, test_twins)

    dataset = Dataset(
        name=source.name,
        root=source.root,
        classes=classes,
        ok_class=ok_class,
        ok_source=ok_source,
        channels=look.channels,
        frame_heights=look.heights,
        frame_widths=look.widths,
        frame_aspects=look.aspects,
        seed=options.seed,
        licence=source.licence,
        items=items,
    )
    dataset = write_dataset(dataset, out)
    _write_twins(out / TWINS, twins, items)
    return ImportResult(dataset, tuple(warnings), look.reasons, source.ignored or {}, len(twins.pairs), test_twins)


def _check_out(out: Path, force: bool) -> None:
    """Refuse to write over anything but a dataset, and over that without force."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out}: is a file; give a folder with --out")
    if (out / MANIFEST).exists() or (out / SETTINGS).exists():
        if not force:
            raise InputError(f"{out}: holds a dataset already; give another --out, or --force to replace it")
    elif any(out.iterdir()):
        raise InputError(f"{out}: holds other files; give an empty or new folder with --out")


def _write_twins(path: Path, twins: Twins, items: Sequence[Item]) -> None:
    order: NDArray[np.int64] = np.argsort(-twins.similarity, kind="stable")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["first", "first_split", "second", "second_split", "similarity"])
        for (i, j), similarity in zip(twins.pairs[order].tolist(), twins.similarity[order].tolist(), strict=True):
            a, b = items[i], items[j]
            writer.writerow([a.path, a.split, b.path, b.split, f"{similarity:.3f}"])
