"""What confident learning found: a ranked table, a page with pictures, and tasks for whoever labels again."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from calibration.preprocess import Frame
from calibration.report_html import STYLE
from trainer.labels.label_studio import Task
from trainer.report import MORE_STYLE, thumbnail

COLUMNS = ("rank", "item", "label", "suggested", "self_confidence", "suggested_probability", "group", "split")
SHOWN = 200
"""Pictures on the page at most; the table has all."""


@dataclass(frozen=True)
class Issue:
    """A label that is probably wrong.

    Attributes:
        item: path of the image. label: the one given. suggested: the class the others speak for.
        self_confidence: out-of-fold probability of the label given. suggested_probability: of the suggested one.
        group, split: of the image.
    """

    item: str
    label: str
    suggested: str
    self_confidence: float
    suggested_probability: float
    group: str
    split: str


def write_table(path: Path, issues: Sequence[Issue]) -> None:
    """Write all issues as CSV, in the order given: the worst first."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for rank, issue in enumerate(issues, start=1):
            probabilities = (f"{issue.self_confidence:.4f}", f"{issue.suggested_probability:.4f}")
            writer.writerow([rank, issue.item, issue.label, issue.suggested, *probabilities, issue.group, issue.split])


def tasks(issues: Sequence[Issue]) -> list[Task]:
    """A task for each issue, with the suggestion, and the label given as a note."""
    return [
        Task(issue.item, (issue.suggested, issue.suggested_probability), {"given": issue.label}) for issue in issues
    ]


def render(name: str, about: str, issues: Sequence[Issue], frame_of: Callable[[str], Frame]) -> str:
    """The whole page, in one file that needs nothing beside it.

    Args:
        name: of the dataset. about: how the issues were found, a paragraph.
        frame_of: the picture behind an item.
    """
    title = f"Doubtful labels: {name}"
    shown = issues[:SHOWN]
    counts: dict[tuple[str, str], int] = {}
    for issue in issues:
        counts[issue.label, issue.suggested] = counts.get((issue.label, issue.suggested), 0) + 1
    rows = "".join(
        f'<tr><td>{escape(given)}</td><td>{escape(suggested)}</td><td class="number">{count}</td></tr>'
        for (given, suggested), count in sorted(counts.items(), key=lambda entry: -entry[1])
    )
    table = f"<table><tr><th>labelled</th><th>suggested</th><th>images</th></tr>{rows}</table>" if issues else ""
    more = f" (the worst {SHOWN} of {len(issues)})" if len(issues) > SHOWN else ""
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        f"<style>{STYLE}{MORE_STYLE}</style></head><body><h1>{escape(title)}</h1><p>{escape(about)}</p>",
        f"<h2>{len(issues)} labels to look at{more}</h2>{table or '<p>None.</p>'}",
        f'<div class="pictures">{"".join(_figure(n, issue, frame_of) for n, issue in enumerate(shown, start=1))}</div>',
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _figure(rank: int, issue: Issue, frame_of: Callable[[str], Frame]) -> str:
    caption = (
        f"{rank}. {escape(issue.item)}<br>labelled <b>{escape(issue.label)}</b> ({issue.self_confidence:.1%}), looks "
        f"like <b>{escape(issue.suggested)}</b> ({issue.suggested_probability:.1%})"
    )
    picture = f'<img alt="{escape(issue.item)}" src="{thumbnail(frame_of(issue.item))}">'
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"
