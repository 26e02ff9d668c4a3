"""What all four command lines share: one way to fail, one way to print, one way to show progress."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from calibration.errors import InputError
from calibration.text import one_line

Report = Callable[[int, int], None]
"""Progress callback: (done, total)."""


class Cli(click.Group):
    """A command group whose commands end in exit code 2 and one line on stderr when the input is unusable."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            click.echo(f"error: {one_line(str(error))}", err=True)
            ctx.exit(2)
        except BrokenPipeError:
            ctx.exit(0)


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")


def example(text: str) -> str:
    """Epilog of a command's help: an example that can be pasted (click keeps its line breaks)."""
    return "\b\nExample:\n  " + text.strip().replace("\n", "\n  ")


def completion_help(program: str) -> str:
    """Epilog of a program's help: how to switch on shell completion."""
    variable = f"_{program.upper()}_COMPLETE"
    return f'\b\nShell completion (bash): eval "$({variable}=bash_source {program})"'


def plain(value: Any) -> Any:
    """JSON-ready copy: dataclasses and pydantic models to dicts, paths to strings, NaN and infinities to null."""
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(mode="json"))
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def emit(result: Any, as_json: bool, text: str | Table | None = None) -> None:
    """Print a command's result: JSON with --json, else `text` (a rich table, or a string printed as it is)."""
    if as_json:
        click.echo(json.dumps(plain(result), indent=2, ensure_ascii=False))
    elif isinstance(text, Table):
        Console().print(text)
    elif text is not None:
        click.echo(text)


def warn(message: str) -> None:
    """One line on stderr: something the user should know but that does not stop the command."""
    click.echo(f"warning: {message}", err=True)


def say(message: str) -> None:
    """One line on stderr, so that standard output stays the result alone."""
    click.echo(message, err=True)


def key_values(title: str, rows: Mapping[str, object]) -> Table:
    """A two-column table."""
    table = Table(title=Text(title), title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in rows.items():
        table.add_row(Text(name), Text(str(value)))  # as it is: brackets in a class name are no markup
    return table


@contextmanager
def progress(label: str, enabled: bool = True) -> Iterator[Report]:
    """A progress bar on stderr; yields the callback that moves it. Silent when stderr is no terminal."""
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (enabled and console.is_terminal)) as bar:
        task = bar.add_task(label, total=None)

        def report(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield report
