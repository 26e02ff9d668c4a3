"""The pictures: the whole screen on fixed data, compared cell by cell with pictures that a person has looked at.

`python -m pytest tests/appliance/test_tui_snapshots.py --snapshot-update` makes them anew; look at them before
committing.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from textual.pilot import Pilot

from appliance.messages import Drift, State, Status
from tests.appliance.tui_data import ALERTS, CASES, Clock, FixedSource, app_on, settled, shows, status

Compare = Callable[..., bool]
DRIFTING = "the predictions drift: KL 0.081 exceeds 0.046 over the last 500 parts"


@pytest.fixture(autouse=True)
def _colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures are in colour, whatever the terminal of whoever runs the tests wants."""
    monkeypatch.delenv("NO_COLOR", raising=False)


def degraded() -> Status:
    """A station whose predictions drift, with three open alerts."""
    drift = Drift(parts=500, kl=0.0812, limit=0.0461, drifting=True)
    return status(State.DEGRADED, DRIFTING, alerts=ALERTS, drift=drift)


def test_a_normal_run_at_80x24(snap_compare: Compare) -> None:
    """Everything that matters fits on the smallest terminal."""
    app = app_on(FixedSource(status()), poll_s=60)
    assert snap_compare(app, terminal_size=(80, 24), run_before=settled)


def test_acknowledging_an_alert_at_80x24(snap_compare: Compare) -> None:
    """The dialog shows the selected alert in full, and the state stays in sight."""
    app = app_on(FixedSource(degraded()), operator="Jana", poll_s=60)
    assert snap_compare(app, press=["down", "a"], terminal_size=(80, 24), run_before=settled)


def test_parts_that_wait_for_a_person_at_80x24(snap_compare: Compare) -> None:
    """The selected one is marked, its picture named, and what was said waits for Enter."""
    source = FixedSource(status())
    source.waiting = CASES
    app = app_on(source, operator="Jana", poll_s=60)

    async def say(pilot: Pilot[None]) -> None:
        await settled(pilot)
        await pilot.press("c")
        await shows(pilot, "Parts that wait for you: 14")
        await pilot.press("down", "down", "d")

    assert snap_compare(app, terminal_size=(80, 24), run_before=say)


def test_a_degraded_line_at_80x24(snap_compare: Compare) -> None:
    """DEGRADED says why, and the open alerts are listed with the selected one marked."""
    app = app_on(FixedSource(degraded()), poll_s=60)
    assert snap_compare(app, terminal_size=(80, 24), run_before=settled)


def test_a_lost_connection_at_80x24(snap_compare: Compare) -> None:
    """Not one number of before is left on the screen, except in the sentence that says it was before."""
    clock = Clock()
    source = FixedSource(status(alerts=ALERTS))

    async def lose(pilot: Pilot[None]) -> None:
        await settled(pilot)
        source.trouble = "the daemon does not answer within 1 s"
        clock.seconds = 83.0
        await shows(pilot, "NO CONNECTION   since 14:05:27 (1 min 23 s)")

    assert snap_compare(app_on(source, clock), terminal_size=(80, 24), run_before=lose)


def test_a_fault_at_80x24(snap_compare: Compare) -> None:
    """A long reason takes a second line; the sections below make room."""
    reason = "the engine was restarted 5 times within 60 s, the last time because it did not answer within 10 s; " * 2
    app = app_on(FixedSource(status(State.FAULT, reason.strip(), alerts=ALERTS[:1])), poll_s=60)
    assert snap_compare(app, terminal_size=(80, 24), run_before=settled)


def test_a_stopped_station_at_80x24(snap_compare: Compare) -> None:
    """Without a daemon the counts of the database are shown as such, and no pace."""
    stopped = status(State.STOPPED, "no daemon is running", uptime_s=0.0, cameras={}, bundle_name="", engine="")
    assert snap_compare(app_on(FixedSource(stopped), poll_s=60), terminal_size=(80, 24), run_before=settled)


def test_a_large_terminal_at_120x40(snap_compare: Compare) -> None:
    """More room: a wider histogram, more rejects, air between the sections."""
    app = app_on(FixedSource(status(alerts=ALERTS)), operator="Jana", poll_s=60)
    assert snap_compare(app, terminal_size=(120, 40), run_before=settled)


def test_the_help_page_at_80x24(snap_compare: Compare) -> None:
    """One page explains keys, signs and states."""
    app = app_on(FixedSource(status()), poll_s=60)
    assert snap_compare(app, press=["question_mark"], terminal_size=(80, 24), run_before=settled)
