"""The sections of the operator's screen: pure functions from what is known to lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.color import Color, ColorSystem

from appliance.messages import AlertRow, Counts, Drift, Latency, State, Status
from appliance.tui import panels
from appliance.tui.app import THEME
from appliance.tui.feed import STALE_AFTER_S, Feed
from appliance.tui.histogram import bars, fit_bins, histogram_lines
from appliance.tui.panels import Lines, View
from tests.appliance.tui_data import ALERTS, NOON, ZONE, status

SECTIONS = (
    panels.title_lines,
    panels.banner_lines,
    panels.figure_lines,
    panels.count_lines,
    panels.reject_lines,
    panels.reason_lines,
    panels.alert_lines,
    panels.key_lines,
    histogram_lines,
)


def view_of(known: Status | None, **changed: Any) -> View:
    """A view a moment after the daemon answered."""
    feed = Feed(opened=NOON)
    return View(feed.heard(known, NOON, 0.0) if known else feed, now=NOON, zone=ZONE, **changed)


def drawn(lines: Lines) -> str:
    """Lines without their styles."""
    return "\n".join(line.plain for line in lines)


def numbers(text: str) -> list[str]:
    """The words of a text that hold a digit."""
    return [word for word in text.split() if any(c.isdigit() for c in word)]


@given(st.integers(0, 10**9), st.integers(0, 10**5), st.integers(0, 10**5), st.integers(0, 10**9))
def test_counts_are_never_merged(ok: int, defect: int, unsure: int, missed: int) -> None:
    """Each outcome has its row, and rejects without a judgement never dilute a share of judged parts."""
    counts = Counts(triggers=ok + defect + unsure + missed, ok=ok, defect=defect, unsure=unsure, not_inspected=missed)
    rows = [line.plain for line in panels.count_lines(view_of(status(counts=counts)), 56, 8)][2:]
    said = [int(numbers(row)[0].replace(",", "")) for row in rows]
    assert said == [ok, defect, unsure, ok + defect + unsure, missed, counts.triggers]
    without = Counts(triggers=ok + defect + unsure, ok=ok, defect=defect, unsure=unsure)
    alone = [line.plain for line in panels.count_lines(view_of(status(counts=without)), 56, 8)][2:]
    assert rows[:3] == alone[:3]


def test_yield_is_of_inspected_and_availability_of_triggers() -> None:
    """Half of the parts missed: availability halves, yield does not move."""
    counts = Counts(triggers=200, ok=90, defect=8, unsure=2, not_inspected=100)
    values = panels.figure_lines(view_of(status(counts=counts)), 80, 2)[1].plain.split()
    assert values[:4] == ["90.00", "%", "50.00", "%"]


def test_a_station_that_has_seen_no_part_claims_nothing() -> None:
    """No share, no interval, no latency before the first part."""
    empty = status(counts=Counts(), histogram=(0,) * 20, rejects=(), rejects_by_reason={}, latency=Latency())
    text = drawn(panels.count_lines(view_of(empty), 56, 8)[1:]) + drawn(panels.figure_lines(view_of(empty), 80, 2)[1:])
    assert "%" not in text.replace("95 % interval", "")
    assert " ms" not in text


@pytest.mark.parametrize("section", [s for s in SECTIONS if s not in (panels.title_lines, panels.key_lines)])
def test_no_old_number_is_shown_as_live(section: Callable[[View, int, int], Lines]) -> None:
    """When the daemon is silent every section draws the same, whatever was known before (but the banner says it)."""
    one = status(alerts=ALERTS)
    other = status(counts=Counts(triggers=7, ok=7), histogram=(7,) * 20, rejects=(), rate=1.0, drift=Drift())
    silent = [View(view_of(s).feed.failed("no answer"), now=NOON, zone=ZONE) for s in (one, other)]
    first, second = (drawn(section(view, 80, 10)) for view in silent)
    if section is panels.banner_lines:
        assert "NO CONNECTION" in first
        assert "its last word was RUN after 2,000 triggers" in " ".join(first.split())
    else:
        assert first == second


def test_an_answer_grows_old_even_if_nobody_reports_it() -> None:
    """A poller that hangs cannot keep old numbers on the screen."""
    feed = Feed(opened=NOON).heard(status(), NOON, 10.0)
    assert feed.aged(10.0 + STALE_AFTER_S).live is not None
    old = feed.aged(10.1 + STALE_AFTER_S)
    assert old.live is None
    assert old.silent_since == NOON
    assert old.aged(99.0) is old


@given(
    st.sampled_from(SECTIONS),
    st.integers(0, 200),
    st.integers(0, 60),
    st.sampled_from([None, "live", "silent"]),
    st.sampled_from(list(State)),
)
@settings(max_examples=300)
def test_every_section_draws_at_every_size(
    section: Callable[[View, int, int], Lines], width: int, height: int, known: str | None, state: State
) -> None:
    """Any terminal, any state: no exception, and no line with a line break in it."""
    view = view_of(
        status(state, "because\nof this " * 9, alerts=ALERTS) if known else None, notice="done", operator="J"
    )
    if known == "silent":
        view = View(view.feed.failed("gone"), now=NOON, zone=ZONE)
    assert all("\n" not in line.plain for line in section(view, width, height))


@pytest.mark.parametrize("state", list(State))
def test_every_state_is_a_word_and_a_meaning(state: State) -> None:
    """No state is told by its colour alone, and every one in which no part can pass says so."""
    text = drawn(panels.banner_lines(view_of(status(state, "the reason")), 80, 2))
    assert state.value in text
    assert "why: the reason" in text
    judging = state in (State.RUN, State.DEGRADED, State.SWITCH, State.READY)
    assert judging != ("rejected" in text or "no part gets a PASS" in text)


@pytest.mark.parametrize(("tone", "ansi"), [("good", 2), ("warned", 3), ("bad", 1), ("waiting", 8)])
def test_a_terminal_of_16_colours_shows_the_states_colour(tone: str, ansi: int) -> None:
    """A console without true colour must not turn red into yellow."""
    assert Color.parse(THEME.variables[tone]).downgrade(ColorSystem.STANDARD).number == ansi


def test_the_alert_list_follows_the_selection() -> None:
    """With more alerts than rows the selected one is always among those shown."""
    many = tuple(AlertRow(id=i, utc="2026-11-23T13:00:00Z", kind="drift", message=f"number {i}") for i in range(1, 31))
    for selected in range(1, 31):
        text = drawn(panels.alert_lines(view_of(status(alerts=many), selected=selected), 80, 4))
        assert f"number {selected} " in text + " "
        assert text.count("►") == 1


def test_acknowledged_alerts_do_not_wait() -> None:
    """Only open alerts are listed, newest first."""
    assert [alert.id for alert in view_of(status(alerts=ALERTS)).feed.open_alerts] == [17, 15, 12]


def test_reasons_without_room_are_summed_up() -> None:
    """The total of all reasons stays on the screen."""
    text = drawn(panels.reason_lines(view_of(status()), 22, 4))
    assert [int(n) for n in numbers(text.replace("3 more", ""))] == [120, 20, 18]


def test_rejects_come_newest_first_and_unjudged_ones_claim_no_class() -> None:
    """A part without a judgement has neither class nor probability."""
    lines = [line.plain for line in panels.reject_lines(view_of(status()), 56, 6)][2:]
    assert [line.split()[1] for line in lines] == ["C204881", "C204878", "C204875", "C204872"]
    assert lines[3].split()[-2:] == ["–", "–"]


def test_without_a_daemon_no_pace_is_claimed() -> None:
    """The database knows counts, but neither throughput nor latency."""
    stopped = view_of(status(State.STOPPED, "no daemon is running", uptime_s=0.0))
    assert panels.figure_lines(stopped, 80, 2)[1].plain.split()[4:] == ["–", "–", "–"]
    assert "counts from the database" in drawn(panels.banner_lines(stopped, 80, 2))


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=60), st.integers(1, 120), st.integers(1, 12))
def test_histogram_bars_show_every_part(counts: list[int], width: int, height: int) -> None:
    """Bins may be joined but never lost; one that holds a part is never drawn empty; the fullest reaches the top."""
    bins = fit_bins(counts, width)
    assert sum(bins) == sum(counts)
    rows = bars(counts, width, height)
    assert len(rows) == height
    assert all(len(row) <= width for row in rows)
    cells = len(rows[0]) // len(bins)
    assert [c != " " for c in rows[-1][::cells]] == [n > 0 for n in bins]
    assert ("█" in rows[0]) == (max(bins) > 0)


def test_a_taller_bar_is_never_a_smaller_count() -> None:
    """The logarithmic scale keeps the order."""
    column = ["".join(row[i] for row in bars((1, 10, 100, 1000), 4, 5)) for i in range(4)]
    heights = [sum(" ▁▂▃▄▅▆▇█".index(c) for c in text) for text in column]
    assert heights == sorted(heights)
    assert heights[-1] == 40


def test_drift_is_a_word_not_a_colour() -> None:
    """DRIFT in capitals and the numbers that made it so."""
    drifting = Drift(parts=500, kl=0.0812, limit=0.0461, drifting=True)
    assert "DRIFT 0.081 > 0.046" in drawn(histogram_lines(view_of(status(drift=drifting)), 22, 8))
    lamp = Drift(quantity="brightness", camera="top", parts=125, kl=0.512, limit=0.12, drifting=True)
    assert "DRIFT brightness top 0.512 > 0.120" in drawn(histogram_lines(view_of(status(light=(lamp,))), 60, 8))
    assert "drift: too few parts" in drawn(histogram_lines(view_of(status(drift=Drift())), 22, 8))
