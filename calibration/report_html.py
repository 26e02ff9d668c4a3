"""The calibration report as one HTML file that needs nothing beside it: no scripts, no fonts, no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from calibration import charts
from calibration.crossfit import cross_fitted, cross_fitted_vector
from calibration.histogram import confidence_histogram
from calibration.metrics import confusion, reliability_bins, softmax
from calibration.report import Figures, LeastCost, Report, defect_probability
from calibration.risk import Costs, cost_curve, escape_overkill_curve
from calibration.scores import Scores
from calibration.values import Interval

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1d2430; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse } th, td { border: 1px solid #c9d1dc; padding: .3rem .7rem; text-align: left }
th { background: #eef2f7 } td.number { text-align: right; font-variant-numeric: tabular-nums }
p.note { color: #5a6575; max-width: 46rem } figure { margin: 1rem 0 } svg { max-width: 100%; height: auto }
"""

ROWS = {
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "nll": "NLL (nats)",
    "brier": "Brier score",
    "ece": "ECE, equal-width bins",
    "ece_if_calibrated": "the same of a calibrated model at this size",
    "ece_equal_mass": "ECE, equal-mass bins",
    "ece_debiased": "ECE, debiased (root mean square)",
    "ece_classwise": "ECE, class-wise",
}


def render(report: Report, pictures: Sequence[tuple[str, str]] = ()) -> str:
    """The whole page.

    Args:
        report: what to tell.
        pictures: (title, SVG) each, put in as they are.
    """
    about = (
        f"{report.parts} parts in {report.groups} groups, {report.defects} of them defects; classes "
        f"{', '.join(report.classes)} (good: {report.ok_class})."
    )
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>Calibration of {escape(report.file.name)}</title>',
        f"<style>{STYLE}</style></head><body>",
        f"<h1>Calibration of {escape(report.file.name)}</h1><p>{escape(about)}</p>",
        _figures(report),
        _operating(report),
        _cost(report.least_cost),
        *(f"<h2>{escape(title)}</h2><figure>{svg}</figure>" for title, svg in pictures),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def diagrams(
    scores: Scores, bins: int = 15, costs: Costs | None = None, prevalence: float | None = None
) -> list[tuple[str, str]]:
    """The diagrams of a report as (title, SVG): reliability, confidence histogram, confusion, escape, overkill, cost.

    Arguments as of `make_report`.

    Raises:
        InputError: matplotlib is not installed.
    """
    recorded, crossed = softmax(scores.logits), cross_fitted(scores)[1]
    curves = [("as recorded", reliability_bins(recorded, scores.labels, bins))]
    if crossed is not None:
        curves.append(("with temperature, cross-fitted", reliability_bins(crossed, scores.labels, bins)))
    if (vector := cross_fitted_vector(scores)) is not None:
        curves.append(("with vector scaling, cross-fitted", reliability_bins(vector, scores.labels, bins)))
    defect = defect_probability(recorded, scores.ok_index)
    good, bad = confidence_histogram(defect[~scores.is_defect]), confidence_histogram(defect[scores.is_defect])
    matrix = confusion(scores.logits.argmax(axis=1), scores.labels, len(scores.classes))
    made = [
        ("Reliability", charts.reliability_diagram(curves)),
        ("Defect probability as recorded", charts.confidence_histogram_chart(good, bad)),
        ("Confusion matrix", charts.confusion_chart(matrix, scores.classes)),
    ]
    if 0 < scores.is_defect.sum() < len(scores.labels):
        curve = escape_overkill_curve(defect, scores.is_defect)
        made.append(("Escape against overkill, all thresholds", charts.escape_overkill_chart(curve)))
        cost = cost_curve(defect, scores.is_defect, costs or Costs(), prevalence)
        made.append(("Cost of escape and overkill, all thresholds", charts.cost_chart(cost)))
    return made


def _figures(report: Report) -> str:
    columns = (report.before, report.after, report.vector)
    rows = [[label, *(_after(figures, name) for figures in columns)] for name, label in ROWS.items()]
    folds = ", ".join(f"{t:.3f}" for t in report.fold_temperatures)
    note = (
        f"Brackets hold 95 % bootstrap intervals over groups; the ECEs have {report.bins} bins, and "
        "their intervals lie high, since a resample adds noise of its own. "
        f"The temperature fitted on all parts is {report.temperature:.4f}. "
    )
    note += (
        "The figures with temperature are cross-fitted: each fold of the groups is judged by the temperature fitted "
        f"on the others ({folds}), so none is judged by one that has seen it. So is vector scaling, which is shown "
        "for comparison and part of no bundle."
        if report.after
        else "There is one group only, so no figures with temperature can be given without flattering them."
    )
    table = _table(["", "as recorded", "with temperature", "with vector scaling"], rows)
    return f'<h2>Figures</h2>{table}<p class="note">{escape(note)}</p>'


def _operating(report: Report) -> str:
    rows = [
        [f"{point.overkill:.0%}", _shown(point.escape, ".2%"), _shown(point.threshold)] for point in report.operating
    ]
    table = _table(["overkill at most", "escape", "passed up to a defect probability of"], rows)
    note = "Thresholds are read off these parts, like points on a ROC curve; a bundle has its own thresholds."
    return f'<h2>Escape against overkill</h2>{table}<p class="note">{note}</p>'


def _cost(least: LeastCost | None) -> str:
    if least is None:
        return ""
    told = (
        f"With {least.costs.escape:g} for an escape, {least.costs.overkill:g} for overkill and {least.prevalence:.2%} "
        f"defects on the line, the cheapest single threshold costs {least.cost:.4g} per part: it passes parts up to a "
        f"defect probability of {least.threshold:.4f}, with {least.escape:.2%} escape and {least.overkill:.2%} "
        f"overkill. Rejecting every part costs {least.cost_of_rejecting_all:.4g}."
    )
    return f'<h2>Cost of escape against overkill</h2><p>{told}</p><p class="note">Read off these parts.</p>'


def _after(figures: Figures | None, name: str) -> str:
    return "" if figures is None else _shown(getattr(figures, name))


def _shown(value: Interval | float, spec: str = ".4f") -> str:
    number = value.value if isinstance(value, Interval) else value
    return "n/a" if math.isnan(number) else f"{value:{spec}}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr><td>{escape(row[0])}</td>" + "".join(f'<td class="number">{escape(c)}</td>' for c in row[1:]) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
