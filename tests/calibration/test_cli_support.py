"""What all command lines share: exit codes, JSON, tables, progress."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from calibration.cli_support import (
    Cli,
    completion_help,
    emit,
    example,
    json_option,
    key_values,
    plain,
    progress,
    say,
    warn,
)
from calibration.decision import Decision
from calibration.errors import InputError
from calibration.text import one_line


@click.group(cls=Cli, epilog=completion_help("demo"))
def main() -> None:
    """A program."""


@main.command(epilog=example("demo show\n  --json"))
@json_option
def show(as_json: bool) -> None:
    """Print a result."""
    say("working")
    warn("careful")
    emit({"n": 3, "nan": math.nan}, as_json, key_values("Result", {"class": "[red]ok[/red]", "n": 3}))


@main.command()
def text() -> None:
    """Print a text."""
    emit({}, False, "plain text")
    emit({}, False)


@main.command()
@click.argument("what")
def fail(what: str) -> None:
    """Fail."""
    if what == "input":
        raise InputError("a.csv: line 3\nis \x1b[31mbad\x9b2J")
    if what == "pipe":
        raise BrokenPipeError
    raise RuntimeError(what)


def test_unusable_input_is_one_clean_line_and_exit_code_2() -> None:
    """No traceback, no line breaks, no escape sequences."""
    result = CliRunner().invoke(main, ["fail", "input"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: a.csv: line 3 is [31mbad 2J\n"


def test_a_reader_that_went_away_is_no_error() -> None:
    """`| head`."""
    assert CliRunner().invoke(main, ["fail", "pipe"]).exit_code == 0


def test_a_fault_of_ours_is_not_hidden() -> None:
    """It is no bad input."""
    assert isinstance(CliRunner().invoke(main, ["fail", "bug"]).exception, RuntimeError)


def test_json_is_alone_on_standard_output() -> None:
    """Messages go to stderr; NaN is null."""
    result = CliRunner().invoke(main, ["show", "--json"])
    assert json.loads(result.stdout) == {"n": 3, "nan": None}
    assert result.stderr == "working\nwarning: careful\n"


def test_tables_show_text_and_not_markup() -> None:
    """Brackets in a class name."""
    assert "[red]ok[/red]" in CliRunner().invoke(main, ["show"]).stdout
    assert CliRunner().invoke(main, ["text"]).stdout == "plain text\n"


def test_help_has_the_example_on_its_own_lines() -> None:
    """And the program's help says how to complete."""
    result = CliRunner().invoke(main, ["show", "--help"])
    assert "Example:\n    demo show\n      --json" in result.stdout
    assert "_DEMO_COMPLETE=bash_source demo" in CliRunner().invoke(main, ["--help"]).stdout


@dataclass
class Value:
    """A dataclass with everything in it."""

    path: Path
    decision: Decision
    items: tuple[float, ...]


class Model(BaseModel):
    """A model."""

    path: Path
    limit: float


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Value(Path("/a"), Decision.OK, (1.0, math.inf)), {"path": "/a", "decision": "OK", "items": [1.0, None]}),
        (Model(path=Path("b"), limit=math.nan), {"path": "b", "limit": None}),
        (np.array([[1, 2]]), [[1, 2]]),
        (np.float32(math.nan), None),
        (np.int64(3), 3),
        ({1: Path("x"), "y": (None, True)}, {"1": "x", "y": [None, True]}),
        ("text", "text"),
    ],
)
def test_results_become_plain_json(value: object, expected: object) -> None:
    """Dataclasses, models, arrays, paths, infinities."""
    assert json.loads(json.dumps(plain(value))) == expected


def test_one_line_keeps_what_can_be_seen() -> None:
    """Letters of any script; no controls, no runs of blanks."""
    assert one_line(" Lötstelle\t検査\r\n\x00[x]\u202e ") == "Lötstelle 検査 [x]"


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Logs are not to fill with bars."""
    with progress("copying") as report:
        report(1, 2)
        report(2, 2)
    assert capsys.readouterr() == ("", "")
