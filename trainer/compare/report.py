"""compare.html: the table, what can be told apart and what cannot. One file that needs nothing beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from calibration.report_html import STYLE
from calibration.risk import escape_overkill_curve
from calibration.values import Interval
from trainer.compare import charts
from trainer.compare.folds import INNER, Protocol
from trainer.compare.recipes import BASELINE
from trainer.compare.run import CHOSEN, HIGHEST, NESTED, Comparison, Row, Table
from trainer.compare.statistics import Difference, aligned

FIGURES = {
    "macro_f1": "macro-F1",
    "balanced_accuracy": "balanced accuracy",
    "balanced_likeliest": "balanced accuracy of the likeliest class",
    "escape": "escape",
    "auroc": "AUROC of defects",
    "ece_before": "ECE before temperature",
    "ece": "ECE",
    "nll_before": "NLL before temperature",
    "nll": "NLL",
}
DECISIVE = ("balanced_accuracy", "escape")
"""What a recipe is chosen by, and so what the differences are shown for."""

PERCENT = ("macro_f1", "balanced_accuracy", "balanced_likeliest", "escape")
TITLES: dict[Protocol, str] = {
    "grouped": "Grouped folds: no part on both sides",
    "random": "Random folds: what leakage is worth",
}
MORE_STYLE = """
body { max-width: 90rem } td.better { color: #2b6cb0 } td.worse { color: #c53030 } td.same { color: #8a94a3 }
.wide { overflow-x: auto } .charts { display: flex; flex-wrap: wrap; gap: 1.5rem } .charts figure { margin: 0 }
"""


def render(comparison: Comparison) -> str:
    """The whole page."""
    truth, title = comparison.truth, f"Comparison of recipes on {comparison.data}"
    defects = int((truth.labels != truth.ok_index).sum())
    about = (
        f"{len(truth.labels)} images of {len(set(truth.groups))} parts or lots, {defects} of them defects; classes "
        f"{', '.join(truth.classes)} (good: {truth.classes[truth.ok_index]}). {comparison.folds} folds, "
        f"{comparison.seeds} seed(s), {comparison.cells} trainings, networks in {comparison.learned_in}."
    )
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        f"<style>{STYLE}{MORE_STYLE}</style></head><body><h1>{escape(title)}</h1><p>{escape(about)}</p>",
        *(_section(comparison, table) for table in comparison.tables),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _section(comparison: Comparison, table: Table) -> str:
    parts = [
        f"<h2>{TITLES[table.protocol]}</h2>",
        *(f"<p>{escape(sentence)}</p>" for sentence in findings(table)),
        _levels(table, comparison.overkill),
        _note(
            "Figures are of out-of-fold predictions: each image is judged once a seed, by a model that learned from no "
            f"image of its {'group' if table.protocol == 'grouped' else 'own, though from its near-twins'}; mean over "
            "seeds, brackets hold 95 % bootstrap intervals over groups. Escape is the share of defects passed at "
            f"{comparison.overkill:.0%} overkill, its threshold read off these parts like a point on a ROC curve. "
            "Macro-F1, balanced accuracy and recall are of the class called: the likeliest, once the good one has "
            "gained or lost what makes it as frequent as it is, with all classes counted alike. That offset, "
            "temperatures, penalties and the number of epochs come from a validation fold "
            f"({INNER:.0%}) inside each training part. Seconds: CPU time of one training on shared features; images "
            "per second: float32 in PyTorch on one CPU, to compare recipes by."
        ),
        f"<h3>Less {the(table.against)}</h3>",
        _differences(table),
        _note(
            "Mean over the paired differences of all cells (fold and seed), in points of percent for shares. 95 % "
            "intervals of the corrected resampled t-test (Nadeau and Bengio 2003), which allows for folds that share "
            f"training images. Grey: cannot be told apart from {the(table.against)}. Of twenty recipes that are no "
            "better, one is marked all the same."
        ),
        _charts(comparison, table),
    ]
    return "\n".join(parts)


def findings(table: Table) -> list[str]:
    """What the table says, in sentences."""
    by_name = {row.name: row for row in table.rows}
    chosen, highest = by_name[CHOSEN], by_name[HIGHEST]
    picked = ", ".join(f"{name} ({count})" for name, count in chosen.chosen.items())
    sentences = [
        f"Chosen by validation alone: balanced accuracy {chosen.figures['balanced_accuracy']:.1%}, escape "
        f"{chosen.figures['escape']:.1%}. This is what to expect of the whole procedure; the best line of the table "
        f"was picked by looking at it, and flatters. Recipes chosen (cells): {picked}. A recipe counts as the better "
        "one by more than a standard error only; among those that are within it the one declared last is taken, which "
        f"learns most. The highest score alone: {highest.figures['balanced_accuracy']:.1%}, "
        f"{highest.figures['escape']:.1%}."
    ]
    others = [row for row in table.rows if row.name not in (table.against, *NESTED)]
    for name in DECISIVE:
        groups = (
            ("better than", [row.name for row in others if row.differences[name].better is True]),
            ("worse than", [row.name for row in others if row.differences[name].better is False]),
            ("not distinguishable from", [row.name for row in others if row.differences[name].better is None]),
        )
        sentences += [
            f"By {FIGURES[name]}, {word} {the(table.against)}: {', '.join(found)}." for word, found in groups if found
        ]
    return sentences


def the(recipe: str) -> str:
    """A recipe in a sentence."""
    return f"the {recipe}" if recipe == BASELINE else recipe


def _levels(table: Table, overkill: float) -> str:
    titles = [f"escape at {overkill:.0%} overkill" if name == "escape" else FIGURES[name] for name in FIGURES]
    head = ["recipe", "what", "input", *titles, "s", "images/s"]
    rows = []
    for row in table.rows:
        cells = [level(name, row.figures[name]) for name in FIGURES]
        speed = [f"{row.seconds:.1f}", f"{row.images_per_second:.0f}"]
        rows.append([row.name, row.about, size(row), *cells, *speed])
    return _table(head, [[(cell, "") for cell in row] for row in rows])


def size(row: Row) -> str:
    """Input size, width x height."""
    return "" if row.input is None else f"{row.input[1]}x{row.input[0]}"


def level(name: str, value: Interval) -> str:
    """A figure with its interval."""
    if math.isnan(value.value):
        return "n/a"
    return f"{value:.1%}" if name in PERCENT else f"{value:.3f}"


def change(name: str, found: Difference) -> str:
    """A difference with its interval: points of percent for shares."""
    if math.isnan(found.value):
        return "n/a"
    factor, digits = (100, 1) if name in PERCENT else (1, 3)
    value, low, high = (f"{factor * number:+.{digits}f}" for number in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def _differences(table: Table) -> str:
    style = {None: "same", True: "better", False: "worse"}
    rows = [
        [
            (row.name, ""),
            *((change(name, row.differences[name]), style[row.differences[name].better]) for name in FIGURES),
        ]
        for row in table.rows
        if row.differences
    ]
    return _table(["recipe", *FIGURES.values()], rows)


def _charts(comparison: Comparison, table: Table) -> str:
    truth, made = comparison.truth, []
    compared = [row for row in table.rows if row.differences]
    for name in DECISIVE:
        title = f"{FIGURES[name]} less {table.against}'s, points of percent"
        made.append(charts.difference_chart(title, [(row.name, row.differences[name]) for row in compared]))
    names = [row.name for row in table.rows]
    recall = [[row.recall[label].value for label in truth.classes] for row in table.rows]
    made.append(charts.recall_chart(names, truth.classes, recall))
    is_defect, best = truth.labels != truth.ok_index, _best(table.rows)
    curves = []
    for name in dict.fromkeys((table.against, best, CHOSEN)):
        said = table.pooled[name].seeds[0]
        scores = aligned(1 - said.after[:, truth.ok_index], is_defect, said.cells)
        curves.append((f"{name} (first seed)", escape_overkill_curve(scores, is_defect)))
    made.append(charts.escape_chart(curves, comparison.overkill))
    return '<div class="charts">' + "".join(f"<figure>{svg}</figure>" for svg in made) + "</div>"


def _best(rows: Sequence[Row]) -> str:
    """The recipe of least escape in the table, NaN last."""
    candidates = [row for row in rows if row.name not in NESTED]
    return min(candidates, key=lambda row: (math.isnan(row.figures["escape"].value), row.figures["escape"].value)).name


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _table(head: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]]) -> str:
    """Rows of (text, style)."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr><th>{escape(row[0][0])}</th>"
        + "".join(f'<td class="number {style}">{escape(text)}</td>' for text, style in row[1:])
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
