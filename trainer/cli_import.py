"""`trainer import`: images into a dataset. Needs no torch, and starts as fast as it can say what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.table import Table

from calibration.cli_support import Cli, emit, example, json_option, progress, warn
from trainer.data.importers import ImportResult, Options, import_elpv, import_folder
from trainer.data.manifest import summary
from trainer.data.splits import DEFAULT_FRACTIONS, SMALL, SMALL_FRACTIONS

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group("import", cls=Cli)
def import_group() -> None:
    """Turn images into a dataset: labels, groups and a split into train, val and test.

    The images stay where they are; DATA holds the table (manifest.csv) and what it means (dataset.json). Images of one
    group - the same part, shot or lot - never lie in different splits.
    """


def _shared(command: Command) -> Command:
    """The options every importer has."""
    for option in (
        json_option,
        click.option("--force", is_flag=True, help="Replace the dataset that --out holds."),
        click.option("--group-twins", is_flag=True, help="Keep images that look like the same part in one split."),
        click.option(
            "--fractions",
            nargs=3,
            type=click.FloatRange(0, 1),
            default=None,
            metavar="TRAIN VAL TEST",
            help=f"Shares of the splits; by default {DEFAULT_FRACTIONS}, below {SMALL} images {SMALL_FRACTIONS}.",
        ),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the split."),
        click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DATA", help="Dataset to write."),
    ):
        command = option(command)
    return command


@import_group.command("elpv", epilog=example("trainer import elpv --out data"))
@_shared
def elpv_command(
    out: Path, seed: int, fractions: tuple[float, float, float] | None, group_twins: bool, force: bool, as_json: bool
) -> None:
    """Import 2,624 solar cells from the installed package elpv-dataset (CC BY-NC-SA 4.0).

    Where its annotators doubted, the doubt is kept as a soft label.
    """
    with progress("reading images") as report:
        result = import_elpv(out, Options(seed, fractions, group_twins, force), report)
    _show(result, out, as_json)


@import_group.command("folder", epilog=example("trainer import folder images --out data --ok good"))
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@_shared
@click.option("--ok", metavar="CLASS", help="Class of the good parts. Default: the one whose name says so.")
@click.option(
    "--groups",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="path,group of each image. Default: DIR/groups.csv where it exists.",
)
@click.option("--name", help="Of the dataset, for reports. Default: the folder's.")
@click.option("--licence", default="unknown", show_default=True, help="Of the images, for reports.")
def folder_command(
    directory: Path,
    out: Path,
    seed: int,
    fractions: tuple[float, float, float] | None,
    group_twins: bool,
    force: bool,
    as_json: bool,
    ok: str | None,
    groups: Path | None,
    name: str | None,
    licence: str,
) -> None:
    """Import DIR, which has one subfolder per class with images at any depth (bmp, jpg, png, tif).

    DIR/groups.csv with the columns path,group says which images show the same part; without it each image is taken as
    a part of its own, and images that look like the same part are warned of.
    """
    options = Options(seed, fractions, group_twins, force)
    with progress("reading images") as report:
        result = import_folder(
            directory, out, options, ok=ok, groups=groups, name=name, licence=licence, progress=report
        )
    _show(result, out, as_json)


def _show(result: ImportResult, out: Path, as_json: bool) -> None:
    for sentence in result.warnings:
        warn(sentence)
    if result.ignored:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(result.ignored.items()))
        warn(f"files passed over that are no images: {kinds}")
    facts = {
        "data": out,
        **summary(result.dataset),
        "warnings": result.warnings,
        "skipped": result.skipped,
        "ignored": result.ignored,
        "twin_pairs": result.twin_pairs,
        "twin_test_images": result.twin_test_images,
    }
    emit(facts, as_json, _table(result, out))


def _table(result: ImportResult, out: Path) -> Table:
    """Images per class and split."""
    dataset = result.dataset
    counts = dataset.counts()
    kind = "grey" if dataset.channels == 1 else "colour"
    sizes = "x".join(
        str(most) if least == most else f"{least}..{most}"
        for least, most in (dataset.frame_widths, dataset.frame_heights)
    )
    groups = len({item.group for item in dataset.items})
    table = Table(
        title=f"{out}: {len(dataset.items)} {kind} images of {sizes} px in {groups} groups; "
        f"OK is {dataset.ok_class!r} ({dataset.ok_source})",
        title_justify="left",
        min_width=78,  # the title is wrapped at the table's width
    )
    for column in ("class", *counts, "all"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for name in dataset.classes:
        row = [counts[split][name] for split in counts]
        table.add_row(name, *map(str, row), str(sum(row)))
    return table
