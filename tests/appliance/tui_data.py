"""Fixed days at a station, and a source that tells them: what the screen's tests and its snapshots look at."""

from __future__ import annotations

import asyncio
import html
import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import cast

from textual.app import App
from textual.pilot import Pilot

from appliance.messages import AlertRow, Case, Counts, Drift, Latency, Reason, RejectRow, State, Status
from appliance.tui.app import LineguardApp
from appliance.tui.feed import NoAnswerError, RefusedError

NOON = datetime(2026, 11, 23, 13, 5, 27, tzinfo=timezone.utc)
ZONE = timezone(timedelta(hours=1), "CET")

HISTOGRAM = (1204, 402, 121, 60, 24, 11, 8, 5, 3, 4, 2, 0, 1, 3, 2, 4, 6, 9, 24, 87)

ALERTS = (
    AlertRow(id=17, utc="2026-11-23T13:02:11Z", kind="drift", message="KL 0.081 exceeds 0.046 over the last 500 parts"),
    AlertRow(id=15, utc="2026-11-23T12:40:02Z", kind="camera", message="camera top sent 3 unreadable images in a row"),
    AlertRow(id=12, utc="2026-11-22T22:10:40Z", kind="disk", message="12 % of the disk is free; old evidence goes"),
    AlertRow(id=9, utc="2026-11-22T21:00:00Z", kind="drift", message="acknowledged long ago", acknowledged_by="Jana"),
)


CASES = tuple(
    Case(
        seq=2000 - 9 * i,
        utc=(NOON - timedelta(minutes=3 * i)).isoformat(),
        serial=f"C{204881 - 9 * i}",
        lot="L-2291",
        camera="top" if i % 4 else "side",
        frame="frame.png",
        kind="sample" if i % 3 == 1 else "unsure",
        top_class=None if i % 3 == 1 else "crack",
        defect_probability=None if i % 3 == 1 else 0.31 + 0.02 * i,
        evidence=f"/var/lib/lineguard-station/evidence/camera-top/unsure/{2000 - 9 * i}.png",
    )
    for i in range(14)
)


def rejects() -> tuple[RejectRow, ...]:
    """Twelve rejected parts of both kinds: judged, and not inspected."""
    rows = []
    kinds = (
        (Reason.DEFECT, "crack", 0.9871),
        (Reason.DEFECT, "finger interruption", 0.9996),
        (Reason.UNSURE, "ok", 0.4127),
        (Reason.LATE, "", None),
        (Reason.DEFECT, "crack", 0.8733),
        (Reason.BAD_IMAGE, "", None),
    )
    for i in range(12):
        reason, label, p = kinds[i % len(kinds)]
        when = NOON - timedelta(seconds=4 + 7 * i)
        rows.append(
            RejectRow(
                seq=2000 - 3 * i,
                utc=when.isoformat(),
                serial=f"C{204881 - 3 * i}",
                camera="top" if i % 4 else "side",
                reason=reason,
                top_class=label,
                defect_probability=p,
            )
        )
    return tuple(rows)


def status(
    state: State = State.RUN, reason: str = "", *, alerts: tuple[AlertRow, ...] = (), **changed: object
) -> Status:
    """A station in the middle of a shift."""
    values: dict[str, object] = {
        "station": "cell-line-1",
        "state": state,
        "state_reason": reason,
        "bundle_name": "elpv-quick",
        "bundle_sha256": "3fa9c1d2" * 8,
        "engine": "onnxruntime cpu int8",
        "classes": ("ok", "crack", "finger interruption"),
        "uptime_s": 11_545.0,
        "counts": Counts(triggers=2000, ok=1842, defect=120, unsure=20, not_inspected=18),
        "rejects_by_reason": {"DEFECT": 120, "UNSURE": 20, "BAD_IMAGE": 9, "LATE": 7, "ENGINE": 2},
        "rate": 20.13,
        "latency": Latency(p50=12.14, p99=31.02, worst=55.3),
        "histogram": HISTOGRAM,
        "drift": Drift(parts=500, kl=0.0123, limit=0.0461),
        "cameras": {"top": "running", "side": "running"},
        "alerts": alerts,
        "rejects": rejects(),
    }
    return Status.model_validate({**values, **changed})


class Clock:
    """Stands still until told otherwise; wall time and monotonic time move together."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def utc(self) -> datetime:
        """Noon at the station, and what has passed since."""
        return NOON + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        """Seconds since the start."""
        return self.seconds


class FixedSource:
    """A daemon that tells what it is given: a status, or why it does not answer; acknowledges as a daemon would."""

    def __init__(self, status: Status | None, trouble: str = "") -> None:
        self.status = status
        self.trouble = trouble
        self.acknowledged: list[tuple[int, str]] = []
        self.refusal = ""
        self.waiting: tuple[Case, ...] = ()
        self.judged: list[tuple[int, str, str]] = []

    def fetch(self) -> Status:
        """The status set last."""
        if self.trouble or self.status is None:
            raise NoAnswerError(self.trouble or "no answer within 1.0 s")
        return self.status

    def acknowledge(self, alert: int, operator: str) -> None:
        """Close the alert in the status."""
        if self.trouble or self.status is None:
            raise NoAnswerError(self.trouble)
        if self.refusal:
            raise RefusedError(self.refusal)
        self.acknowledged.append((alert, operator))
        rows = tuple(
            row.model_copy(update={"acknowledged_by": operator}) if row.id == alert else row
            for row in self.status.alerts
        )
        self.status = self.status.model_copy(update={"alerts": rows})

    def cases(self) -> tuple[Case, ...]:
        """Those that nobody has judged."""
        if self.refusal:
            raise RefusedError(self.refusal)
        judged = {row for row, _, _ in self.judged}
        return tuple(case for case in self.waiting if case.seq not in judged)

    def judge(self, row: int, decision: str, operator: str) -> None:
        """Take the judgement down."""
        if self.trouble:
            raise NoAnswerError(self.trouble)
        if self.refusal:
            raise RefusedError(self.refusal)
        self.judged.append((row, decision, operator))


def app_on(source: FixedSource, clock: Clock | None = None, operator: str = "", poll_s: float = 0.3) -> LineguardApp:
    """The screen on fixed data and a fixed clock, asking often enough for tests."""
    clock = clock or Clock()
    return LineguardApp(source, operator, utc=clock.utc, monotonic=clock.monotonic, zone=ZONE, poll_s=poll_s)


async def settled(pilot: Pilot[None]) -> None:
    """Wait until the screen has heard from its source, one way or the other."""
    app = cast(LineguardApp, pilot.app)
    await until(pilot, lambda: bool(app.view.feed.live or app.view.feed.trouble))


async def until(pilot: Pilot[None], true: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until something has become true, and what follows from it is drawn.

    Raises:
        TimeoutError: it has not.
    """
    start = time.monotonic()
    while not true():
        if time.monotonic() - start > seconds:
            raise TimeoutError(screen_text(pilot.app))
        await asyncio.sleep(0.02)
    await pilot.pause()


async def shows(pilot: Pilot[None], text: str) -> None:
    """Wait until the screen shows a text. Raises TimeoutError with what it shows instead."""
    await until(pilot, lambda: text in screen_text(pilot.app))


def screen_text(app: App[None]) -> str:
    """What the terminal would show, without colours: the text of a screenshot, line by line."""
    svg = app.export_screenshot()
    lines: dict[float, str] = {}
    for x, y, text in re.findall(r'<text class="[^"]*-r\d+" x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)</text>', svg):
        row = lines.setdefault(float(y), "")
        lines[float(y)] = row.ljust(round(float(x) / 12.2)) + html.unescape(text).replace("\xa0", " ")
    return "\n".join(line.rstrip() for _, line in sorted(lines.items()))
