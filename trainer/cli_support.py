"""What several commands of `trainer` share: input sizes, progress bars by stage, and care with run folders."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from calibration.errors import InputError

if TYPE_CHECKING:
    from trainer.features import Progress as Stages


def parse_size(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """(height, width) of HEIGHTxWIDTH in pixels, or of one number for a square."""
    if value is None:
        return None
    numbers = value.lower().split("x")
    if len(numbers) > 2 or not all(number.isascii() and number.isdigit() for number in numbers):
        raise click.BadParameter(f"{value!r} is not HEIGHTxWIDTH, e.g. 224x320", ctx, param)
    height, width = int(numbers[0]), int(numbers[-1])
    if not (16 <= height <= 4096 and 16 <= width <= 4096):
        raise click.BadParameter(f"{value!r}: height and width must be 16 to 4096 pixels", ctx, param)
    return height, width


def recipe_names() -> list[str]:
    """Recipes of `trainer train`, then those that `trainer compare` declares; PyTorch comes along with them."""
    from trainer.compare.recipes import BY_NAME
    from trainer.recipes import RECIPES

    return [*RECIPES, *BY_NAME]


def parse_recipe(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """A name that there is."""
    if value not in (names := recipe_names()):
        raise click.BadParameter(f"{value!r} is unknown; choose among {', '.join(names)}", ctx, param)
    return value


def complete_recipe(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """For the shell: names that begin so."""
    return [name for name in recipe_names() if name.startswith(incomplete)]


device_option = click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where upper stages of the network learn; everything else is done on the CPU.",
)


@contextmanager
def stages() -> Iterator[Stages]:
    """Progress bars on stderr, one per stage of the work; yields the callback (what, done, total) that moves them."""
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report


def check_run(run: Path, resume: bool, force: bool) -> None:
    """Refuse to touch what is no run, and a run that is there without being told how."""
    if resume and force:
        raise InputError("--resume goes on with the run and --force deletes it; give one of them")
    if run.exists() and not run.is_dir():
        raise InputError(f"{run}: is a file; give a folder with --out")
    if not run.exists() or not any(run.iterdir()):
        return
    if not (run / "run.json").exists():
        raise InputError(f"{run}: holds other files than a training run; give an empty or new folder with --out")
    if force:
        for name in ("checkpoint", "export"):
            shutil.rmtree(run / name, ignore_errors=True)
        for pattern in ("run.json", "model.safetensors", "log.jsonl", "scores.*.csv", "release.json", "report.html"):
            for path in run.glob(pattern):
                path.unlink()
    elif not resume:
        raise InputError(
            f"{run}: holds a training run already; --resume goes on with it, --force starts anew, "
            "or give another folder with --out"
        )
