"""Answers of annotators on the command line: a CSV, or a Label Studio project."""

from __future__ import annotations

from pathlib import Path

import click

from calibration.cli_support import warn
from calibration.errors import InputError
from trainer.data.names import class_name
from trainer.labels.answers import Answers, collect, read_answers_csv, read_gold_csv
from trainer.labels.label_studio import read_export

answers_argument = click.argument("answers", metavar="ANSWERS", type=click.Path(path_type=Path))
classes_option = click.option("--classes", metavar="A,B,...", help="Allowed classes. Default: those that occur.")
gold_option = click.option(
    "--gold", type=click.Path(path_type=Path), metavar="CSV", help="item,label of what is known for certain."
)


def read_answers(path: Path, classes: str | None, gold: Path | None = None) -> Answers:
    """The answers of a file, and what is known of their items. Raises InputError with file and remedy."""
    allowed = [class_name(name, "--classes") for name in classes.split(",")] if classes else None
    if allowed and len(set(allowed)) < max(2, len(allowed)):
        raise InputError(f"--classes {classes}: give two or more different names")
    truths = read_gold_csv(gold) if gold else []
    if path.suffix.lower() != ".json":
        return collect(path, read_answers_csv(path), allowed, truths)
    export = read_export(path)
    if export.passed_over:
        warn(f"{path}: {export.passed_over} annotation(s) without a choice, or skipped, were passed over")
    return collect(path, export.answers, allowed, (*export.gold, *truths))
