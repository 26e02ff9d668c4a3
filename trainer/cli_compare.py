"""`trainer compare`: which recipe helps on this data, and which only seems to."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table
from rich.text import Text

from calibration.cli_support import emit, example, json_option, say
from trainer.cli_support import device_option, stages
from trainer.data.manifest import read_dataset

if TYPE_CHECKING:
    from trainer.compare.run import Comparison
    from trainer.compare.run import Table as Lines

FEWEST_FOLDS, MOST_FOLDS = 3, 20


@click.command("compare", epilog=example("trainer compare data --out comparison --recipes focal,smote,fine-tuned"))
@click.argument("data", metavar="DATA", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder to write.")
@click.option(
    "--recipes",
    metavar="A,B,...",
    help="Recipes beside the baseline. Default: all that suit the size of the frames; the ones in which every stage "
    "learns (whole, committee) take hours on a CPU.",
)
@click.option(
    "--folds", type=click.IntRange(FEWEST_FOLDS, MOST_FOLDS), default=5, show_default=True, help="Folds a seed."
)
@click.option(
    "--seeds", type=click.IntRange(1, 100), default=2, show_default=True, help="Repetitions, other folds each."
)
@click.option(
    "--overkill",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.1,
    show_default=True,
    help="Share of good parts rejected at which escapes are counted.",
)
@click.option(
    "--against",
    metavar="RECIPE",
    help="Recipe that the others are told apart from, compared as well. Default: the baseline.",
)
@click.option("--random-split", is_flag=True, help="Add folds that cut groups: shows what leakage would pretend.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Trainings side by side, one thread and some 3 GB of memory each; figures do not depend on it. Default: as "
    "many as there are cores and memory for, on a GPU one.",
)
@device_option
@json_option
def compare_command(
    data: Path,
    out: Path,
    recipes: str | None,
    folds: int,
    seeds: int,
    overkill: float,
    against: str | None,
    random_split: bool,
    jobs: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Train a declared set of recipes on grouped folds of DATA and tell which differ from the baseline.

    DATA's own split plays no part. Every finished training is kept in DIR: stopped and started again, the command goes
    on where it was, and more recipes or seeds can be added later. The result is DIR/compare.html.
    """
    dataset = read_dataset(data)
    from trainer.compare.folds import PROTOCOLS
    from trainer.compare.recipes import BASELINE, affordable, pick
    from trainer.compare.report import render
    from trainer.compare.run import CHOSEN, compare
    from trainer.compare.workers import usual_jobs
    from trainer.device import device_named

    names = None if recipes is None else [name.strip() for name in recipes.split(",") if name.strip()]
    candidates = pick(names)
    if against is not None:
        pick([against], "--against")
        candidates = pick(names if names is None else [*names, against])
    if names is None:
        candidates = affordable(candidates, dataset.frame_heights, dataset.frame_widths)
    protocols = PROTOCOLS if random_split else PROTOCOLS[:1]
    with stages() as progress:
        result = compare(
            dataset,
            out,
            candidates,
            folds,
            seeds,
            overkill,
            protocols,
            progress,
            jobs=jobs or (1 if device == "cuda" else usual_jobs()),
            device=device_named(device),
            against=against or BASELINE,
        )
    page = out / "compare.html"
    page.write_text(render(result), encoding="utf-8")
    if as_json:
        emit(_facts(result, page), as_json)
        return
    for lines in result.tables:
        emit(None, as_json, _table(result, lines))
    best = next(iter(next(row for row in result.tables[0].rows if row.name == CHOSEN).chosen))
    say(f"{page}: intervals, differences and diagrams")
    say(f"chosen most often: trainer train {data} --out run --recipe {best}")


def _facts(result: Comparison, page: Path) -> dict[str, Any]:
    truth = result.truth
    facts = {
        "out": result.out,
        "report": page,
        "data": result.data,
        "images": len(truth.labels),
        "groups": len(set(truth.groups)),
        "classes": truth.classes,
        "ok_class": truth.classes[truth.ok_index],
        "folds": result.folds,
        "seeds": result.seeds,
        "overkill": result.overkill,
        "cells": result.cells,
        "computed": result.computed,
        "against": result.tables[0].against,
        "learned_in": result.learned_in,
    }
    return {**facts, **{lines.protocol: [asdict(row) for row in lines.rows] for lines in result.tables}}


def _table(result: Comparison, lines: Lines) -> Table:
    """The table on a terminal: levels, with a mark where the difference is beyond chance."""
    from trainer.compare.report import DECISIVE, FIGURES, the

    marks = {None: "~", True: "+", False: "-"}
    table = Table(
        title=f"{result.data}: {result.folds} {lines.protocol} folds, {result.seeds} seed(s); escape at "
        f"{result.overkill:.0%} overkill; 95 % intervals\n"
        f"+ better, - worse than {the(lines.against)}, ~ not distinguishable",
        title_justify="left",
        min_width=78,
    )
    for column in ("recipe", *(FIGURES[name] for name in DECISIVE), "macro-F1", "AUROC", "ECE", "CPU s"):
        table.add_column(column, justify="left" if column == "recipe" else "right")
    for row in lines.rows:
        cells = [
            f"{row.figures[name]:.0%} {marks[row.differences[name].better] if row.differences else ' '}"
            for name in DECISIVE
        ]
        rest = (f"{row.figures[name].value:.3f}" for name in ("macro_f1", "auroc", "ece"))
        table.add_row(*map(Text, (row.name, *cells, *rest, f"{row.seconds:.0f}")))
    return table
