"""`calibration`: judge recorded scores."""

from __future__ import annotations

import math
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from calibration.cli_support import Cli, completion_help, emit, example, json_option, progress, say
from calibration.errors import InputError
from calibration.metrics import Interval
from calibration.report import Figures, Report, make_report
from calibration.report_html import diagrams, render
from calibration.scores import Scores


@click.group(cls=Cli, epilog=completion_help("calibration"))
@click.version_option(package_name="lineguard")
def main() -> None:
    """Tell how good, and how honest, a model's recorded scores are."""


cli = main


@main.command("report", epilog=example("calibration report runs/solar/scores.test.csv --html report.html"))
@click.argument("scores", type=click.Path(path_type=Path))
@click.option(
    "--ok", "ok_class", metavar="CLASS", help="The class that means a good part, if the file does not mark it."
)
@click.option("--bins", default=15, show_default=True, type=click.IntRange(1, 1000), help="Bins of the ECE.")
@click.option("--html", type=click.Path(path_type=Path), help="Write the report with its diagrams to this file too.")
@json_option
def report_command(scores: Path, ok_class: str | None, bins: int, html: Path | None, as_json: bool) -> None:
    """Report on a SCORES file: accuracy, AUROC, NLL, Brier score, calibration error, escape against overkill.

    The figures after temperature scaling are cross-fitted: each fold of the groups is judged by the temperature of
    the others. Intervals are 95 % bootstrap intervals over groups.
    """
    recorded = Scores.read(scores, ok_class)
    with progress("bootstrap") as report:
        made = make_report(scores, recorded, bins, progress=report)
    if html is not None:
        _write_html(html, made, recorded)
    if as_json:
        emit(_json(made), as_json)
        return
    for table in (_summary(made), _operating_table(made)):
        emit(made, as_json, table)


def _json(report: Report) -> dict[str, object]:
    return {
        **{name: getattr(report, name) for name in Report.__dataclass_fields__},
        "escape_at_10": report.escape_at_10,
    }


def _summary(report: Report) -> Table:
    about = f"{report.parts} parts in {report.groups} groups, {report.defects} defects; good: {report.ok_class}"
    table = Table(title=Text(f"{report.file}: {about}"), title_justify="left")
    table.add_column("")
    table.add_column("as recorded")
    table.add_column(f"with temperature (all parts: {report.temperature:.3f})")
    names = {
        "accuracy": "accuracy",
        "auroc": "AUROC",
        "nll": "NLL",
        "brier": "Brier score",
        "ece": f"ECE ({report.bins} bins)",
        "ece_if_calibrated": "  if calibrated",
    }
    for name, label in names.items():
        table.add_row(label, _shown(report.before, name), "" if report.after is None else _shown(report.after, name))
    return table


def _shown(figures: Figures, name: str) -> str:
    value = getattr(figures, name)
    if isinstance(value, Interval):
        return "n/a" if math.isnan(value.value) else f"{value:.4f}"
    return f"{value:.4f}"


def _operating_table(report: Report) -> Table:
    table = Table(title="Escape against overkill (thresholds read off these parts)", title_justify="left")
    for column in ("overkill at most", "escape", "pass up to"):
        table.add_column(column, justify="right")
    for point in report.operating:
        escape = "n/a" if math.isnan(point.escape.value) else f"{point.escape:.2%}"
        threshold = "n/a" if math.isnan(point.threshold) else f"{point.threshold:.4f}"
        table.add_row(f"{point.overkill:.0%}", escape, threshold)
    return table


def _write_html(path: Path, report: Report, scores: Scores) -> None:
    page = render(report, diagrams(scores, report.bins))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; name a file that can be written with --html") from None
    say(f"written: {path}")
