"""The confidence histogram in block characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

from textual.content import Content

from appliance.tui.panels import Lines, View, rule
from appliance.tui.text import UNKNOWN, count

_EIGHTHS = " ▁▂▃▄▅▆▇█"


def fit_bins(counts: Sequence[int], width: int) -> list[int]:
    """Neighbouring bins added together until there are at most `width`, all of equal size but perhaps the last."""
    group = max(1, math.ceil(len(counts) / max(1, width)))
    return [sum(counts[i : i + group]) for i in range(0, len(counts), group)]


def bars(counts: Sequence[int], width: int, height: int) -> list[str]:
    """`height` rows of at most `width` cells, top row first; eighth blocks.

    Heights are logarithmic: most parts are clearly good, and the few in the middle are the ones to see. A bin that
    is not empty is never drawn empty.
    """
    bins = fit_bins(counts, width)
    top = max(bins, default=0)
    cells = max(1, width // max(1, len(bins)))
    steps = height * 8
    levels = [max(1, round(steps * math.log1p(n) / math.log1p(top))) if n else 0 for n in bins]
    rows = []
    for row in range(height - 1, -1, -1):
        rows.append("".join(_EIGHTHS[min(8, max(0, level - 8 * row))] * cells for level in levels))
    return rows


def histogram_lines(view: View, width: int, height: int) -> Lines:
    """Parts per bin of defect probability since the daemon started, and how far that is from its reference."""
    status = view.live
    counts = status.histogram if status else ()
    inner = max(1, width - 2)
    rows = max(1, height - 3)
    peak = max(counts, default=0)
    lines = [rule("Defect probability", width, f"log, peak {count(peak)}" if peak and width > 40 else "")]
    drawn = bars(counts, inner, rows) if peak else ["" for _ in range(rows)]
    used = max((len(row) for row in drawn), default=0) or inner
    lines += [Content(f" {row}").stylize("$bar") for row in drawn]
    half = used // 2
    axis = f"0{' ' * max(0, half - 3)}0.5{' ' * max(0, used - half - 3)}1"
    lines.append(Content(f" {axis}").stylize("$dim"))
    lines.append(_drift_line(view, width))
    return lines


def _drift_line(view: View, width: int) -> Content:
    if not view.running:
        return Content(f" drift {UNKNOWN}").stylize("$dim")
    watched = (view.running.drift, *view.running.light)
    drift = next((each for each in watched if each.drifting), view.running.drift)
    if not drift.parts:
        return Content(" drift: too few parts").stylize("$dim")
    word = "DRIFT" if drift.drifting else "drift"
    sign = ">" if drift.kl > drift.limit else "≤"
    style = "bold $text-warning" if drift.drifting else "$dim"
    if drift.camera:
        word = f"{word} {drift.name}"
    over = f" nats in {count(drift.parts)} parts" if width > 40 else ""
    return Content(f" {word} {drift.kl:.3f} {sign} {drift.limit:.3f}{over}").stylize(style)
