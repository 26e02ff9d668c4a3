"""Diagrams as inline SVG: reliability, confidence histogram, confusion matrix, escape against overkill, cost.

matplotlib is imported when a diagram is drawn, so that judging parts never needs it. Equal data give equal text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from calibration.errors import InputError
from calibration.metrics import ReliabilityBins
from calibration.risk import CostCurve, Curve
from calibration.values import Interval

INK, MUTED, GOOD, BAD, WARN = "#1d2430", "#8a94a3", "#2b6cb0", "#c53030", "#b7791f"

Figure = Any
Axes = Any


def reliability_diagram(curves: Sequence[tuple[str, ReliabilityBins]]) -> str:
    """Accuracy against confidence, one line per (name, bins); the size of a mark grows with the bin's count."""
    with drawing(4.4, 4.0) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--", label="perfectly calibrated")
        for (name, bins), colour in zip(curves, (WARN, GOOD, INK, BAD), strict=False):
            used = bins.count > 0
            size = 12 + 160 * bins.count[used] / max(1, int(bins.count.max()))
            axes.plot(bins.confidence[used], bins.accuracy[used], color=colour, linewidth=1.2, label=name)
            axes.scatter(bins.confidence[used], bins.accuracy[used], s=size, color=colour, alpha=0.55, linewidths=0)
        axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
        axes.legend(frameon=False, fontsize=8, loc="upper left")
        return svg(figure, "reliability diagram")


def confidence_histogram_chart(
    good: ArrayLike, defects: ArrayLike, ok_below: float | None = None, defect_above: float | None = None
) -> str:
    """Histogram of the defect probability of good parts and of defects (counts, log scale), with the thresholds.

    Args:
        good, defects: counts per equal-width bin over [0, 1], of equal length.
    """
    low, high = np.asarray(good), np.asarray(defects)
    edges = np.linspace(0, 1, len(low) + 1)
    with drawing(6.0, 3.2) as (figure, axes):
        width = edges[1] - edges[0]
        axes.bar(edges[:-1], low, width, align="edge", color=GOOD, alpha=0.75, label="good parts")
        axes.bar(edges[:-1], high, width, align="edge", color=BAD, alpha=0.6, label="defects")
        for threshold, name in ((ok_below, "OK up to"), (defect_above, "DEFECT from")):
            if threshold is not None:
                axes.axvline(threshold, color=INK, linewidth=1, linestyle=":")
                axes.annotate(
                    f"{name} {threshold:.3f}", (threshold, 1.0), xycoords=("data", "axes fraction"), rotation=90,
                    va="top", ha="right", fontsize=7, color=INK,
                )  # fmt: skip
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(bottom=0)
        axes.set(xlabel="defect probability", ylabel="parts", xlim=(0, 1))
        axes.legend(frameon=False, fontsize=8)
        return svg(figure, "confidence histogram")


def confusion_chart(matrix: ArrayLike, classes: Sequence[str]) -> str:
    """Confusion matrix: rows are labels, columns what the model said; shaded by share of the row."""
    counts = np.asarray(matrix)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 1.6 + 0.55 * len(classes)
    with drawing(side + 0.8, side) as (figure, axes):
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for row in range(len(classes)):
            for column in range(len(classes)):
                dark = share[row, column] > 0.55
                axes.text(
                    column, row, int(counts[row, column]), ha="center", va="center", fontsize=8,
                    color="white" if dark else INK,
                )  # fmt: skip
        ticks, names = range(len(classes)), [plain(name) for name in classes]
        axes.set_xticks(ticks, names, rotation=45, ha="right", fontsize=8)
        axes.set_yticks(ticks, names, fontsize=8)
        axes.set(xlabel="said", ylabel="is")
        for spine in axes.spines.values():
            spine.set_visible(False)
        return svg(figure, "confusion matrix")


def escape_overkill_chart(curve: Curve, chosen: tuple[Interval, Interval] | None = None) -> str:
    """Escape against overkill over all thresholds.

    Args:
        chosen: (escape, overkill) at the thresholds in use, drawn as a cross with its intervals.
    """
    with drawing(4.8, 3.6) as (figure, axes):
        axes.step(100 * curve.overkill, 100 * curve.escape, where="post", color=GOOD, linewidth=1.4)
        if chosen is not None and np.isfinite([chosen[0].value, chosen[1].value]).all():
            escape, overkill = chosen
            axes.errorbar(
                100 * overkill.value, 100 * escape.value,
                xerr=[[100 * (overkill.value - overkill.low)], [100 * (overkill.high - overkill.value)]],
                yerr=[[100 * (escape.value - escape.low)], [100 * (escape.high - escape.value)]],
                color=BAD, marker="x", capsize=2, linewidth=1, label="at the bundle's threshold (95 %)",
            )  # fmt: skip
            axes.legend(frameon=False, fontsize=8)
        axes.set_xscale("symlog", linthresh=1)
        axes.set(xlabel="overkill (% of good parts)", ylabel="escape (% of defects)", xlim=(0, 100), ylim=(-1, 101))
        axes.grid(color="#e6eaf0", linewidth=0.6)
        return svg(figure, "escape against overkill")


def cost_chart(curve: CostCurve) -> str:
    """Expected cost per part against the threshold, with its least; the line where nothing passes to compare with."""
    at = curve.cheapest
    threshold = np.concatenate([[0.0], curve.threshold[1:], [1.0]])  # pass nothing is drawn at 0
    cost = np.concatenate([curve.cost, curve.cost[-1:]])
    with drawing(6.0, 3.2) as (figure, axes):
        axes.step(threshold, cost, where="post", color=GOOD, linewidth=1.4, label="expected cost")
        axes.axhline(curve.cost[0], color=MUTED, linewidth=1, linestyle="--", label="when every part is rejected")
        axes.plot(threshold[at], cost[at], color=BAD, marker="x", linestyle="none", label=f"least: {cost[at]:.4g}")
        axes.set(xlabel="passed up to a defect probability of", ylabel="cost per part", xlim=(-0.01, 1))
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=8)
        return svg(figure, "expected cost per part")


@contextmanager
def drawing(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of this size in inches in the style of all diagrams; InputError where matplotlib is missing."""
    try:
        import matplotlib
        from matplotlib.figure import Figure as DrawnFigure
    except ImportError:
        raise InputError("diagrams need matplotlib; install it with: pip install matplotlib") from None
    style: dict[Any, Any] = {
        "svg.hashsalt": "lineguard",  # or element names would be random
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.edgecolor": MUTED,
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    with matplotlib.rc_context(style):
        figure = DrawnFigure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def svg(figure: Figure, title: str) -> str:
    """The figure as an SVG element for an HTML page; equal figures give equal text."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Title": title}, transparent=True)
    # inside HTML neither the XML declaration nor the document type belongs there
    return re.sub(r"^.*?(?=<svg)", "", text.getvalue(), count=1, flags=re.DOTALL)


def plain(name: str) -> str:
    """A class name without matplotlib's mathematics: a dollar sign is a dollar sign."""
    return name.replace("$", r"\$")
