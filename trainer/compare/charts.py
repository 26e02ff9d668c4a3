"""The diagrams of a comparison as inline SVG: differences with intervals, recall by class, escape against overkill."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from calibration.charts import BAD, GOOD, INK, MUTED, drawing, plain, svg
from calibration.risk import Curve
from trainer.compare.statistics import Difference

LINE = 0.28
"""Height of a line of text in a diagram, in inches."""


def difference_chart(title: str, rows: Sequence[tuple[str, Difference]]) -> str:
    """One line for each (name, difference) in points of percent, with its interval; grey where zero is inside."""
    with drawing(6.4, 1.0 + LINE * len(rows)) as (figure, axes):
        for at, (_, found) in enumerate(rows):
            colour = {None: MUTED, True: GOOD, False: BAD}[found.better]
            axes.plot([100 * found.low, 100 * found.high], [at, at], color=colour, linewidth=1.4)
            axes.plot(100 * found.value, at, color=colour, marker="o", markersize=4)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(rows)), [plain(name) for name, _ in rows], fontsize=8)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set(xlabel=title)
        axes.grid(axis="x", color="#e6eaf0", linewidth=0.6)
        return svg(figure, title)


def recall_chart(names: Sequence[str], classes: Sequence[str], recall: ArrayLike) -> str:
    """Heat map of the recall of each class (columns), float (names, classes) in 0..1, by each recipe (rows)."""
    shares = np.asarray(recall, dtype=np.float64)
    with drawing(2.4 + 0.75 * len(classes), 1.2 + LINE * len(names)) as (figure, axes):
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for row, column in np.ndindex(shares.shape):
            value = shares[row, column]
            text = "-" if math.isnan(value) else f"{100 * value:.0f}"
            colour = "white" if value > 0.55 else INK
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
        axes.set_xticks(range(len(classes)), [plain(name) for name in classes], rotation=45, ha="right", fontsize=8)
        axes.set_yticks(range(len(names)), [plain(name) for name in names], fontsize=8)
        axes.set(xlabel="recall, %")
        return svg(figure, "recall by class")


def escape_chart(curves: Sequence[tuple[str, Curve]], overkill: float) -> str:
    """Escape against overkill, one line for each (name, curve); the overkill of the table is marked."""
    with drawing(6.0, 4.0) as (figure, axes):
        for (name, curve), colour in zip(curves, (MUTED, GOOD, BAD, INK), strict=False):
            axes.step(100 * curve.overkill, 100 * curve.escape, where="post", linewidth=1.4, color=colour, label=name)
        axes.axvline(100 * overkill, color=INK, linewidth=0.8, linestyle=":")
        axes.set_xscale("symlog", linthresh=1)
        axes.set(xlabel="overkill (% of good parts)", ylabel="escape (% of defects)", xlim=(0, 100), ylim=(-1, 101))
        axes.grid(color="#e6eaf0", linewidth=0.6)
        axes.legend(frameon=False, fontsize=8)
        return svg(figure, "escape against overkill")
