"""Every section of the screen as a pure function: what is known, and a size in cells, to lines of styled text."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, tzinfo

from textual.content import Content

from appliance.messages import Counts, State, Status
from appliance.tui.feed import Feed
from appliance.tui.text import (
    UNKNOWN,
    clean,
    count,
    duration,
    limits,
    milliseconds,
    per_second,
    percent,
    probability,
    time_of_day,
)
from calibration.risk import wilson

Lines = list[Content]

OK, DEFECT, UNSURE, MISSED = "●", "■", "▲", "○"
"""Signs of the four outcomes. Shapes, not colours, tell them apart; all are in the console's own font."""

REASON_SIGNS = {"DEFECT": DEFECT, "UNSURE": UNSURE}


@dataclass(frozen=True)
class View:
    """All that a section may draw from."""

    feed: Feed
    now: datetime
    zone: tzinfo | None = None
    selected: int | None = None  # id of the selected alert
    operator: str = ""
    notice: str = ""

    @property
    def live(self) -> Status | None:
        """The status if it is true now."""
        return self.feed.live

    @property
    def running(self) -> Status | None:
        """The status if a daemon gave it. What comes from the database of a stopped one has counts, but no pace."""
        return self.live if self.live and self.live.uptime_s > 0 else None


@dataclass(frozen=True)
class StateText:
    """How a state is shown. `tone` is the CSS class of the banner."""

    sign: str
    tone: str
    meaning: str


STATES = {
    State.BOOT: StateText("◌", "waiting", "starting; every part is rejected"),
    State.VERIFY: StateText("◌", "waiting", "checking the bundle; every part is rejected"),
    State.SELFTEST: StateText("◌", "waiting", "judging the golden images; every part is rejected"),
    State.READY: StateText("◌", "waiting", "ready; waiting for the line"),
    State.RUN: StateText(OK, "good", "parts are being judged"),
    State.DEGRADED: StateText(UNSURE, "warning", "parts are being judged; look at the alerts"),
    State.SWITCH: StateText(UNSURE, "warning", "parts are being judged; a new bundle is tried"),
    State.HOLD: StateText(DEFECT, "bad", "every part is rejected"),
    State.FAULT: StateText(DEFECT, "bad", "every part is rejected until the fault is repaired"),
    State.STOPPED: StateText(MISSED, "waiting", "no part gets a PASS"),
}


def cell(text: str, width: int, style: str = "", right: bool = False) -> Content:
    """Text in exactly `width` terminal cells, cut with an ellipsis."""
    content = Content(text).truncate(max(0, width), ellipsis=True)
    gap = max(0, width - content.cell_length)
    padded = content.pad_left(gap) if right else content.pad_right(gap)
    return padded.stylize(style) if style else padded


def rule(title: str, width: int, aside: str = "", tone: str = "$dim") -> Content:
    """A section's heading: its title on a line, and perhaps a word on the right."""
    head = f"─ {title} "
    room = width - len(head) - 1
    tail = ""
    if aside and room > 8:
        short = Content(aside).truncate(room - 3, ellipsis=True).plain
        tail = f" {short} ─"
    fill = max(0, width - Content(head).cell_length - Content(tail).cell_length)
    return Content.assemble(
        ("─ ", "$rule"), (title, "bold"), (" " + "─" * fill, "$rule"), (tail[:-1], tone), (tail[-1:], "$rule")
    )


def title_lines(view: View, width: int, height: int) -> Lines:
    """Product, station, bundle, clock."""
    status = view.feed.last
    station = clean(status.station, 24) if status else ""
    bundle = f"{clean(status.bundle_name, 32)} {clean(status.bundle_sha256)[:8]}".strip() if status else ""
    clock = f"{view.now.astimezone(view.zone):%H:%M:%S %Z}"
    left = Content.assemble((" Lineguard", "bold $primary"), "  ", (station, "bold"))
    room = max(0, width - left.cell_length - len(clock) - 6)
    middle = cell(bundle, room, "$dim", right=True)
    return [Content.assemble(left, "  ", middle, "   ", clock, " ")]


def banner_tone(view: View) -> str:
    """The banner's CSS class."""
    if view.live:
        return STATES[view.live.state].tone
    return "bad" if view.feed.trouble else "waiting"


def banner_lines(view: View, width: int, height: int) -> Lines:
    """State in one word, what it means for the parts, and why."""
    status = view.live
    if status is None:
        return _silent_lines(view, width)
    state = STATES[status.state]
    reason = clean(status.state_reason, 400)
    cameras = "  ".join(f"{clean(name, 16)}: {clean(said, 24)}" for name, said in sorted(status.cameras.items()))
    detail = f"why: {reason}" if reason else (f"camera {cameras}" if cameras else f"engine {clean(status.engine)}")
    aside = f"up {duration(status.uptime_s)}" if status.uptime_s else "counts from the database"
    return [
        _banner_head(f"{state.sign} {status.state.value}", state.meaning, aside, width),
        *_indented(detail, width),
    ]


def _silent_lines(view: View, width: int) -> Lines:
    feed = view.feed
    if not feed.trouble:
        return [_banner_head("◌ CONNECTING", "asking the daemon", "", width), Content("")]
    since = feed.silent_since
    ago = (view.now - since).total_seconds()
    since_text = since.astimezone(view.zone).strftime("%H:%M:%S" if ago < 86_400 else "%d %b %H:%M")
    silence = f"since {since_text} ({duration(ago)})"
    last = feed.last
    past = f"; its last word was {last.state.value} after {count(last.counts.triggers)} triggers" if last else ""
    return [
        _banner_head(f"{DEFECT} NO CONNECTION", silence, "whether parts are judged is unknown", width),
        *_indented(f"why: {clean(feed.trouble, 300)}{past}", width),
    ]


def _banner_head(word: str, meaning: str, aside: str, width: int) -> Content:
    left = Content.assemble((f" {word}", "bold"), "   ", meaning)
    room = max(0, width - left.cell_length - 1)
    return left + cell(aside if room > len(aside) else "", room, right=True) + " "


def _indented(text: str, width: int) -> Lines:
    """At most two lines, under the state's word."""
    lines = Content(text).wrap(max(10, width - 4))
    if len(lines) > 2:
        lines = [lines[0], cell(lines[1].plain + "…", width - 4)]
    return [Content("   ") + line for line in lines]


def figure_lines(view: View, width: int, height: int) -> Lines:
    """The five figures one looks for first: a row of labels, a row of values."""
    values = [UNKNOWN] * 5
    if view.live:
        c = view.live.counts
        inspected = c.triggers - c.not_inspected
        values[:2] = [percent(wilson(c.ok, inspected).value), percent(wilson(inspected, c.triggers).value)]
    if view.running:
        values[2] = per_second(view.running.rate)
    if view.running and view.running.counts.triggers:
        values[3:] = [milliseconds(view.running.latency.p50), milliseconds(view.running.latency.p99)]
    labels = ["Yield", "Availability", "Throughput", "Latency p50", "Latency p99"]
    column = max(13, (width - 2) // 5)
    return [
        Content("  ") + Content("").join(cell(label, column, "$dim") for label in labels),
        Content("  ") + Content("").join(cell(value, column, "bold") for value in values),
    ]


def count_lines(view: View, width: int, height: int) -> Lines:
    """Every trigger ends in exactly one row here. Judgements are shares of the inspected parts, never of all."""
    known = view.live is not None
    c = view.live.counts if view.live else Counts()
    inspected = c.triggers - c.not_inspected
    return [
        rule("Parts", width),
        Content(f"{'parts':>28}{'share':>10}  95 % interval").stylize("$dim"),
        _outcome(OK, "OK", c.ok, inspected, "$text-success", known),
        _outcome(DEFECT, "DEFECT", c.defect, inspected, "$text-error", known),
        _outcome(UNSURE, "UNSURE", c.unsure, inspected, "$text-warning", known),
        _outcome(" ", "of inspected", inspected, c.triggers, "$dim", known),
        _outcome(MISSED, "NOT INSPECTED", c.not_inspected, c.triggers, "$text-accent", known),
        Content.assemble(
            ("   of triggers   ", "$dim"), cell(count(c.triggers, 11) if known else UNKNOWN, 11, right=True)
        ),
    ]


def _outcome(sign: str, name: str, number: int, of: int, style: str, known: bool) -> Content:
    interval = wilson(number, of)
    return Content.assemble(
        (f" {sign} ", style),
        cell(name, 14, style),
        cell(count(number, 11) if known else UNKNOWN, 11, "bold" if sign.strip() else "", right=True),
        cell(percent(interval.value) if known else UNKNOWN, 10, right=True),
        "  ",
        cell(limits(interval) if known and of else UNKNOWN, 14, "$dim"),
    )


def reject_lines(view: View, width: int, height: int) -> Lines:
    """The last rejected parts, newest first, as many as there is room for."""
    # the serial and the class take what the fixed columns leave
    room = max(16, width - 35)
    serial, label = room // 2, room - room // 2
    names = (("time", 9), ("serial", serial), ("camera", 8), ("reason", 12), ("class", label), ("prob.", 5))
    head = Content(" ") + Content("").join(cell(name, size) for name, size in names)
    lines = [rule("Last rejects", width), head.stylize("$dim")]
    rows = sorted(view.live.rejects, key=lambda row: -row.seq) if view.live else []
    for row in rows[: max(0, height - 2)]:
        sign = REASON_SIGNS.get(row.reason.value, MISSED)
        lines.append(
            Content.assemble(
                " ",
                cell(time_of_day(row.utc, view.now, view.zone), 9, "$dim"),
                cell(clean(row.serial), serial - 1),
                " ",
                cell(clean(row.camera), 7),
                " ",
                cell(f"{sign} {row.reason.value}", 12),
                cell(clean(row.top_class) if row.defect_probability is not None else UNKNOWN, label - 1),
                " ",
                cell(probability(row.defect_probability), 5),
            )
        )
    if not rows:
        lines.append(Content(f"  {'no part was rejected' if view.live else UNKNOWN}").stylize("$dim"))
    return lines


def reason_lines(view: View, width: int, height: int) -> Lines:
    """How often each reason was given; the rest is summed up when there is no room."""
    lines = [rule("By reason", width)]
    reasons = view.live.rejects_by_reason if view.live else {}
    rows = sorted(((n, clean(name, 16)) for name, n in reasons.items() if n), key=lambda row: (-row[0], row[1]))
    room = max(1, height - 1)
    if len(rows) > room:
        rest = rows[room - 1 :]
        rows = [*rows[: room - 1], (sum(n for n, _ in rest), f"{len(rest)} more")]
    for number, name in rows:
        sign = REASON_SIGNS.get(name, MISSED)
        lines.append(
            Content.assemble(f" {sign} ", cell(name, width - 13), cell(count(number, 9), 9, "bold", right=True))
        )
    if not rows:
        lines.append(Content(f"   {'none' if view.live else UNKNOWN}").stylize("$dim"))
    return lines


def alert_lines(view: View, width: int, height: int) -> Lines:
    """Open alerts, newest first; the window follows the selected one."""
    alerts = view.feed.open_alerts
    room = max(1, height - 1)
    chosen = next((i for i, alert in enumerate(alerts) if alert.id == view.selected), 0)
    first = max(0, min(chosen - room // 2, len(alerts) - room))
    shown = alerts[first : first + room]
    title = f"Alerts: {len(alerts)} open" if view.live else "Alerts"
    if len(alerts) > len(shown):
        title += f", {first + 1} to {first + len(shown)} shown"
    aside = view.notice or (f"operator: {view.operator}" if view.operator else "")
    lines = [rule(title, width, aside, "$text-primary")]
    for alert in shown:
        mark = "►" if alert.id == view.selected else " "
        line = Content.assemble(
            f" {mark} ",
            cell(time_of_day(alert.utc, view.now, view.zone), 9, "$dim"),
            cell(clean(alert.kind), 13, "bold $text-warning"),
            cell(clean(alert.message, 400), width - 25),
        )
        lines.append(line.stylize("on $selected") if alert.id == view.selected else line)
    if not alerts:
        lines.append(Content(f"   {'no alert waits for you' if view.live else UNKNOWN}").stylize("$dim"))
    return lines


def key_lines(view: View, width: int, height: int) -> Lines:
    """The keys, always visible."""
    keys = [("↑↓", "select"), ("a", "acknowledge"), ("c", "cases"), ("o", "operator"), ("?", "help"), ("q", "quit")]
    return [Content("   ").join(Content.assemble((f" {key} ", "bold reverse"), f" {does}") for key, does in keys)]
