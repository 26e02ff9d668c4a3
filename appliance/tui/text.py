"""Words and figures as the screen shows them; everything from outside passes `clean` first.

Textual hands text on to the terminal as it is, and a terminal obeys escape sequences: one in a class name could
write to the clipboard (OSC 52), retitle the window or turn the line round (bidi). Nothing here is parsed as markup.
"""

from __future__ import annotations

import math
import unicodedata
from datetime import datetime, timezone, tzinfo

from calibration.values import Interval

UNKNOWN = "–"
"""Shown wherever there is no live value."""

_REPLACED = ("Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp")
_SPACES = "\t\n\v\f\r\x85\u2028\u2029"


def clean(text: str, limit: int = 64) -> str:
    """Any text on one line, harmless to a terminal, at most `limit` characters.

    Line breaks and tabs become spaces; control, format, private-use and unassigned characters become U+FFFD, so that
    one sees that something was there. Longer text ends in an ellipsis.
    """
    shown = "".join(_harmless(c) for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _harmless(char: str) -> str:
    if char in _SPACES:
        return " "
    return "\ufffd" if unicodedata.category(char) in _REPLACED else char


def count(number: int, width: int = 99) -> str:
    """1234567 -> 1,234,567; without the commas where that does not fit into `width`."""
    grouped = f"{number:,}"
    return grouped if len(grouped) <= width else str(number)


def percent(share: float, unit: str = " %") -> str:
    """A share in 0..1 with two decimals, never rounded up to 100 or down to 0 when it is not."""
    if not math.isfinite(share):
        return UNKNOWN
    if 0 < share < 0.00005:
        return f"<0.01{unit}"
    if 0.99995 <= share < 1:
        return f">99.99{unit}"
    return f"{share * 100:.2f}{unit}"


def limits(interval: Interval) -> str:
    """The two ends of an interval of shares, in percent."""
    return f"{percent(interval.low, ''):>5} – {percent(interval.high, ''):>5}"


def milliseconds(value: float) -> str:
    """Three figures are enough to see a line slow down."""
    return f"{value:,.1f} ms" if value < 1000 else f"{value:,.0f} ms"


def per_second(rate: float) -> str:
    """Parts per second."""
    return f"{rate:,.1f} parts/s" if rate < 1000 else f"{rate:,.0f} parts/s"


def probability(value: float | None) -> str:
    """Defect probability with three decimals, never rounded to 0 or 1; a dash for parts that were not judged."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if 0 < value < 0.0005:
        return "<.001"
    if 0.9995 <= value < 1:
        return ">.999"
    return f"{value:.3f}"


def duration(seconds: float) -> str:
    """The two largest units: 12 s, 3 min 5 s, 3 h 12 min, 4 d 3 h."""
    if not math.isfinite(seconds):
        return UNKNOWN
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def parse_utc(text: str) -> datetime | None:
    """An ISO 8601 time as the daemon writes it (no zone means UTC); None when it is no such time."""
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def time_of_day(text: str, now: datetime, zone: tzinfo | None) -> str:
    """Local time of an ISO time in 8 characters; the date instead when it was not today."""
    moment = parse_utc(text)
    if moment is None:
        return clean(text, 8)
    local = moment.astimezone(zone)
    return f"{local:%H:%M:%S}" if local.date() == now.astimezone(zone).date() else f"{local:%d %b}"


def moment(text: str, zone: tzinfo | None) -> str:
    """Local date and time of an ISO time, in full."""
    parsed = parse_utc(text)
    return f"{parsed.astimezone(zone):%d %b %Y %H:%M:%S %Z}" if parsed else clean(text, 32)
