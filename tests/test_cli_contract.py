"""What all four programs promise: every command explains itself with an example and can answer in JSON."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

PROGRAMS = ("calibration", "trainer", "deploy", "appliance")

EXPECTED = {
    "calibration": {"report", "bound"},
    "trainer": {
        *("import elpv", "import folder", "compare", "train", "distill", "export", "release", "evaluate"),
        *("labels consensus", "labels issues", "labels queries", "labels apply", "labels convert"),
    },
    "deploy": {
        *("push", "status", "rollback", "inspect", "sign", "enrol", "list", "inventory", "pack", "install", "serve"),
        *("triton", "bootstrap"),
        *("keys init", "keys rotate", "keys revoke", "keys show"),
    },
    "appliance": {
        *("keys", "relay", "trigger"),
        "run",
        "status",
        "tui",
        "doctor",
        "hold",
        "resume",
        "reset",
        "drift show",
        "drift accept",
        "audit verify",
        "audit list",
        "replay",
        "review judge",
    },
}


def group(program: str) -> click.Group:
    """The root group of a program."""
    found = importlib.import_module(f"{program}.cli").main
    assert isinstance(found, click.Group)
    return found


def leaves(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below a group, with the words that call it."""
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from leaves(child, (*words, name))
    else:
        yield words, command


ALL = [(program, words, command) for program in PROGRAMS for words, command in leaves(group(program))]


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_promised_commands_exist(program: str) -> None:
    """The names are a contract."""
    assert EXPECTED[program] <= {" ".join(words) for words, _ in leaves(group(program))}


@pytest.mark.parametrize(("program", "words", "command"), ALL, ids=lambda value: str(value))
def test_help_shows_an_example_and_json_is_offered(
    program: str, words: tuple[str, ...], command: click.Command
) -> None:
    """--help of every command has an example that starts with the program's name, and --json is an option."""
    result = CliRunner().invoke(group(program), [*words, "--help"])
    assert result.exit_code == 0
    assert f"{program} {' '.join(words)}" in result.output.split("Example", 1)[-1]
    assert any("--json" in parameter.opts for parameter in command.params)
