"""`trainer distill`: a finished run teaches a smaller network."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from calibration.cli_support import emit, example, json_option
from calibration.errors import InputError
from trainer.cli_support import check_run, parse_size, stages
from trainer.data.manifest import read_dataset

if TYPE_CHECKING:
    from calibration.values import Interval
    from trainer.distill_report import Comparison


@click.command("distill", epilog=example("trainer distill run data --out student --backbone mobilenet-v3-small"))
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("data", metavar="DATA", type=click.Path(path_type=Path))
@click.option("--out", "student", required=True, type=click.Path(path_type=Path), metavar="STUDENT", help="Its run.")
@click.option(
    "--backbone",
    default="efficientnet-lite0",
    show_default=True,
    metavar="NAME",
    help="The student's. mobilenet-v3-small is the smallest; it starts from nothing, and learns from many images.",
)
@click.option(
    "--size",
    callback=parse_size,
    metavar="HEIGHTxWIDTH",
    help="The student's input in pixels. Default: half its teacher's.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0, min_open=True),
    default=4.0,
    show_default=True,
    help="Softens both answers: the higher, the more counts how the teacher ranks what it rejects.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.7,
    show_default=True,
    help="The teacher's share of the loss; the labels have the rest.",
)
@click.option("--epochs", type=click.IntRange(1), help="Passes over the images. Default: 16; mobilenet-v3-small 30.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of everything random.")
@click.option(
    "--alone/--no-alone",
    default=True,
    show_default=True,
    help="Train the same student without its teacher too: only the difference shows what distillation is worth.",
)
@click.option("--resume", is_flag=True, help="Go on with the interrupted distillation that STUDENT holds.")
@click.option("--force", is_flag=True, help="Delete the training that STUDENT holds and start anew.")
@json_option
def distill_command(
    run: Path,
    data: Path,
    student: Path,
    backbone: str,
    size: tuple[int, int] | None,
    temperature: float,
    alpha: float,
    epochs: int | None,
    seed: int,
    alone: bool,
    resume: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Teach a smaller, faster network what RUN knows, on the DATA that RUN was trained on.

    STUDENT becomes a run like any other, for `trainer export` and `trainer release`; STUDENT/alone is the same network
    trained without a teacher, and STUDENT/distill.json compares the three on the test split.
    """
    dataset = read_dataset(data)
    if student.resolve() == run.resolve():
        raise InputError(f"{student}: is the teacher itself; give another folder with --out")
    from trainer.distill import ALONE, Wish, distill
    from trainer.distill_report import REPORT
    from trainer.teacher import open_teacher

    open_teacher(run, dataset)  # before anything is deleted
    check_run(student, resume, force)
    if force:
        shutil.rmtree(student / ALONE, ignore_errors=True)
        (student / REPORT).unlink(missing_ok=True)
    wish = Wish(backbone, temperature, alpha, epochs, seed, size, alone)
    with stages() as progress:
        result = distill(dataset, run, student, wish, progress)
    emit(result, as_json, _table(result))


def _table(result: Comparison) -> Table:
    table = Table(title=Text(f"{result.taught.run}, taught by {result.teacher.run}"), title_justify="left")
    table.add_column("test split")
    columns = {"teacher": result.teacher, "student": result.taught}
    if result.alone:
        columns["student alone"] = result.alone
    for name in columns:
        table.add_column(name)
    figures = [line.figures for line in columns.values()]
    table.add_row("accuracy", *(_percent(found.accuracy_interval) for found in figures))
    table.add_row("AUROC of defects", *(f"{found.auroc_interval:.3f}" for found in figures))
    table.add_row("escape at 10 % overkill", *(_percent(found.escape_interval) for found in figures))
    table.add_row("ECE", *(f"{found.ece_interval:.3f}" for found in figures))
    table.add_row("images per CPU-second", *(f"{line.images_per_cpu_second:.1f}" for line in columns.values()))
    table.add_row("teacher's accuracy ahead by", "", _percent(result.below_teacher))
    if result.above_alone:
        table.add_row("ahead of the student alone by", "", _percent(result.above_alone))
    return table


def _percent(interval: Interval) -> str:
    return f"{interval:.1%}"
