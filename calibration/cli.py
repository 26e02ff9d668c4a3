"""`calibration`: judge recorded scores."""

from __future__ import annotations

import math
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from calibration.bound import BoundReport, bound_report
from calibration.cli_support import Cli, completion_help, emit, example, json_option, key_values, progress, say
from calibration.errors import InputError
from calibration.report import Figures, LeastCost, Report, make_report
from calibration.report_html import diagrams, render
from calibration.risk import Costs
from calibration.scores import Scores
from calibration.values import Interval


@click.group(cls=Cli, epilog=completion_help("calibration"))
@click.version_option(package_name="lineguard")
def main() -> None:
    """Tell how good, and how honest, a model's recorded scores are."""


cli = main


cost = click.FloatRange(min=0, min_open=True)
scores_argument = click.argument("scores", type=click.Path(path_type=Path))
ok_option = click.option(
    "--ok", "ok_class", metavar="CLASS", help="The class that means a good part, if the file does not mark it."
)


@main.command("report", epilog=example("calibration report runs/solar/scores.test.csv --html report.html"))
@scores_argument
@ok_option
@click.option("--bins", default=15, show_default=True, type=click.IntRange(1, 1000), help="Bins of the ECEs.")
@click.option("--html", type=click.Path(path_type=Path), help="Write the report with its diagrams to this file too.")
@click.option("--cost-escape", type=cost, default=Costs.escape, show_default=True, help="Of a defect that is passed.")
@click.option(
    "--cost-overkill", type=cost, default=Costs.overkill, show_default=True, help="Of a good part that is rejected."
)
@click.option(
    "--prevalence",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of defects on the line, for the cost. Default: that of the file.",
)
@json_option
def report_command(
    scores: Path,
    ok_class: str | None,
    bins: int,
    html: Path | None,
    cost_escape: float,
    cost_overkill: float,
    prevalence: float | None,
    as_json: bool,
) -> None:
    """Report on a SCORES file: accuracy, AUROC, NLL, Brier score, calibration errors, escape against overkill, cost.

    The figures after temperature and vector scaling are cross-fitted: each fold of the groups is judged by what was
    fitted on the others. Intervals are 95 % bootstrap intervals over groups.
    """
    recorded = Scores.read(scores, ok_class)
    costs = Costs(escape=cost_escape, overkill=cost_overkill)
    with progress("bootstrap") as report:
        made = make_report(scores, recorded, bins, progress=report, costs=costs, prevalence=prevalence)
    if html is not None:
        _write_html(html, made, diagrams(recorded, bins, costs, prevalence))
    if as_json:
        emit(_json(made), as_json)
        return
    for table in (_summary(made), _operating_table(made)):
        emit(made, as_json, table)
    if made.least_cost:
        emit(made, as_json, _cost_table(made.least_cost))


@main.command("bound", epilog=example("calibration bound runs/solar/scores.test.csv --alpha 0.01"))
@scores_argument
@ok_option
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    required=True,
    help="Bound on the escape rate, e.g. 0.01 for 1 %.",
)
@json_option
def bound_command(scores: Path, ok_class: str | None, alpha: float, as_json: bool) -> None:
    """Threshold on the defect probability that keeps the escape rate of SCORES at or below ALPHA, and its overkill.

    In mean, by conformal risk control, and with 95 % confidence, by Clopper-Pearson. Refused with the number of
    defects needed when there are too few. The next defects must be such as these; images of one group count as one
    part, which escapes when any of them would pass.
    """
    recorded = Scores.read(scores, ok_class)
    try:
        found = bound_report(scores, recorded, alpha)
    except ValueError as error:
        raise InputError(f"{scores}: {error}; add defects, or state a larger --alpha") from None
    emit(found, as_json, _bound_table(found))


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
    table.add_column("with vector scaling")
    names = {
        "accuracy": "accuracy",
        "auroc": "AUROC",
        "nll": "NLL",
        "brier": "Brier score",
        "ece": f"ECE ({report.bins} bins)",
        "ece_if_calibrated": "  if calibrated",
        "ece_equal_mass": "  equal-mass",
        "ece_debiased": "  debiased, RMS",
        "ece_classwise": "  class-wise",
    }
    for name, label in names.items():
        table.add_row(label, *(_shown(figures, name) for figures in (report.before, report.after, report.vector)))
    return table


def _shown(figures: Figures | None, name: str) -> str:
    if figures is None:
        return ""
    value: Interval = getattr(figures, name)
    return "n/a" if math.isnan(value.value) else f"{value:.4f}"


def _operating_table(report: Report) -> Table:
    table = Table(title="Escape against overkill (thresholds read off these parts)", title_justify="left")
    for column in ("overkill at most", "escape", "pass up to"):
        table.add_column(column, justify="right")
    for point in report.operating:
        escape = "n/a" if math.isnan(point.escape.value) else f"{point.escape:.2%}"
        threshold = "n/a" if math.isnan(point.threshold) else f"{point.threshold:.4f}"
        table.add_row(f"{point.overkill:.0%}", escape, threshold)
    return table


def _cost_table(least: LeastCost) -> Table:
    title = (
        f"Cost with {least.costs.escape:g} per escape, {least.costs.overkill:g} per overkill and "
        f"{least.prevalence:.2%} defects (one threshold, read off these parts)"
    )
    rows = {
        "least cost per part": f"{least.cost:.4g}",
        "pass up to": f"{least.threshold:.4f}",
        "escape, overkill there": f"{least.escape:.2%}, {least.overkill:.2%}",
        "rejecting every part": f"{least.cost_of_rejecting_all:.4g}",
    }
    return key_values(title, rows)


def _bound_table(found: BoundReport) -> Table:
    about = f"escape at most {found.alpha:.4g}, from {found.defects} defects among {found.parts} parts"
    table = Table(title=Text(f"{found.file}: {about}"), title_justify="left")
    for column in ("", "pass up to", "defects passed here", "overkill here"):
        table.add_column(column, justify="right" if column else "left")
    kinds = {
        "in mean (conformal risk control)": found.expected,
        "95 % confidence (Clopper-Pearson)": found.confident,
    }
    for label, limit in kinds.items():
        if limit is None:
            table.add_row(label, f"needs {found.needed_confidently} defects", "-", "-")
            continue
        overkill = "n/a" if math.isnan(limit.overkill.value) else f"{limit.overkill:.2%}"
        passed = f"{limit.passed} of {limit.bound.defects}"
        table.add_row(label, f"{limit.bound.threshold:.6g}", passed, overkill)
    return table


def _write_html(path: Path, report: Report, pictures: list[tuple[str, str]]) -> None:
    page = render(report, pictures)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; name a file that can be written with --html") from None
    say(f"written: {path}")
