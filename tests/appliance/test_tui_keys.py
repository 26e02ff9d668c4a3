"""The operator's screen under its keys, with a source that answers as a daemon would."""

from __future__ import annotations

import threading
import time

import pytest
from textual.widgets import Input

from appliance.messages import AlertRow, Counts, State, Status
from appliance.tui.app import LineguardApp
from appliance.tui.dialogs import AcknowledgeDialog, HelpScreen, OperatorDialog
from appliance.tui.feed import NoAnswerError
from tests.appliance.tui_data import ALERTS, Clock, FixedSource, app_on, screen_text, settled, shows, status, until


async def test_three_keys_acknowledge_an_alert_for_a_known_operator() -> None:
    """Select, `a`, Enter: the daemon is told number and name, and the screen says so."""
    source = FixedSource(status(alerts=ALERTS))
    app = app_on(source, operator="Jana")
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("down", "a", "enter")
        await shows(pilot, "alert 15 acknowledged by Jana")
        await shows(pilot, "Alerts: 2 open")
        assert source.acknowledged == [(15, "Jana")]


async def test_the_operators_name_is_asked_once() -> None:
    """The first acknowledgement asks; the second has the name already, and it is on the screen."""
    source = FixedSource(status(alerts=ALERTS))
    app = app_on(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("a", *"Ute", "enter")
        await shows(pilot, "Alerts: 2 open")
        await pilot.press("a")
        assert isinstance(app.screen, AcknowledgeDialog)
        assert app.screen.query_one(Input).value == "Ute"
        await pilot.press("enter")
        await shows(pilot, "alert 15 acknowledged by Ute")
        assert source.acknowledged == [(17, "Ute"), (15, "Ute")]


async def test_no_name_no_acknowledgement() -> None:
    """Enter on an empty (or blank) name says what is missing; Esc leaves everything as it was."""
    source = FixedSource(status(alerts=ALERTS))
    app = app_on(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("a", "space", "enter")
        assert "A name is needed" in screen_text(app)
        await pilot.press("escape")
        assert source.acknowledged == []
        assert "Alerts: 3 open" in screen_text(app)


async def test_keys_typed_into_the_name_are_letters() -> None:
    """Operator Quentin can type his name: q, a, o and ? are no commands inside a dialog."""
    app = app_on(FixedSource(status(alerts=ALERTS)), poll_s=60)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("o", *"qao", "question_mark", "enter")
        assert app.view.operator == "qao?"
        assert "operator: qao?" in screen_text(app)


async def test_the_selection_stays_on_its_alert_when_a_new_one_arrives() -> None:
    """Between looking and pressing, the list may move; the selected alert stays selected."""
    source = FixedSource(status(alerts=ALERTS))
    app = app_on(source, operator="Jana")
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("down")
        new = AlertRow(id=18, utc="2026-11-23T13:05:00Z", kind="engine", message="restarted")
        source.status = status(alerts=(new, *ALERTS))
        await shows(pilot, "Alerts: 4 open")
        await pilot.press("a", "enter")
        await shows(pilot, "alert 15 acknowledged")
        assert source.acknowledged == [(15, "Jana")]


async def test_the_selection_stops_at_both_ends() -> None:
    """More arrows than alerts do no harm."""
    app = app_on(FixedSource(status(alerts=ALERTS)), poll_s=60)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press(*["down"] * 9)
        assert app.view.selected == 12
        await pilot.press(*["up"] * 9)
        assert app.view.selected == 17


async def test_a_refused_acknowledgement_says_why() -> None:
    """The daemon's reason is shown, and the alert stays open."""
    source = FixedSource(status(alerts=ALERTS))
    source.refusal = "alert 17 was acknowledged by Ute"
    app = app_on(source, operator="Jana")
    async with app.run_test(size=(120, 30)) as pilot:
        await settled(pilot)
        await pilot.press("a", "enter")
        await shows(pilot, "not acknowledged: alert 17 was acknowledged by Ute")


async def test_there_is_nothing_to_acknowledge_without_alerts_or_daemon() -> None:
    """`a` then explains itself instead of opening a dialog."""
    source = FixedSource(status())
    app = app_on(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("a")
        assert "no alert is open" in screen_text(app)
        source.trouble = "gone"
        await shows(pilot, "NO CONNECTION")
        await pilot.press("a")
        assert "no connection: nothing can be acknowledged" in screen_text(app)


async def test_a_lost_daemon_is_named_and_its_return_too() -> None:
    """Numbers vanish with the connection and come back with it."""
    source = FixedSource(status())
    clock = Clock()
    app = app_on(source, clock)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        assert "1,842" in screen_text(app)
        source.trouble = "the daemon does not answer within 1 s"
        clock.seconds = 30
        await shows(pilot, "NO CONNECTION")
        text = screen_text(app)
        assert "since 14:05:27 (30 s)" in text
        assert "1,842" not in text
        source.trouble = ""
        await shows(pilot, "1,842")
        assert "NO CONNECTION" not in screen_text(app)


async def test_notices_do_not_stay() -> None:
    """What was said once does not cover the operator's name for ever."""
    clock = Clock()
    app = app_on(FixedSource(status()), clock, operator="Jana")
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("a")
        assert "no alert is open" in screen_text(app)
        clock.seconds = 7
        await shows(pilot, "operator: Jana")
        assert "no alert is open" not in screen_text(app)


class HangingSource:
    """A daemon that accepts the question and never answers."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def fetch(self) -> Status:
        """Hang."""
        self.released.wait(30)
        raise NoAnswerError("released")

    def acknowledge(self, alert: int, operator: str) -> None:
        """Hang as well."""
        self.fetch()


async def test_a_hanging_daemon_freezes_neither_keys_nor_quitting() -> None:
    """Help opens and the screen closes at once while the question is still unanswered."""
    source = HangingSource()
    app = LineguardApp(source)
    start = time.monotonic()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause(0.1)
        assert "CONNECTING" in screen_text(app)
        await pilot.press("question_mark")
        assert isinstance(app.screen, HelpScreen)
        await pilot.press("escape", "q")
        await pilot.pause()
    assert app.return_code == 0
    assert time.monotonic() - start < 5
    source.released.set()


async def test_an_answer_that_grows_old_is_not_live_any_more() -> None:
    """A poller that stands still cannot keep its last numbers on the screen."""
    clock = Clock()
    app = app_on(FixedSource(status()), clock, poll_s=60)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        clock.seconds = 4
        await shows(pilot, "NO CONNECTION")
        assert "1,842" not in screen_text(app)


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (160, 50), (40, 10), (1, 1)])
async def test_any_size_shows_the_state_first(size: tuple[int, int]) -> None:
    """The screen may be resized at any time, below the promised size too; state and counts have their place."""
    app = app_on(FixedSource(status(alerts=ALERTS)), poll_s=60)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.resize_terminal(*size)
        await pilot.pause(0.1)
        text = screen_text(app)
        assert size == (1, 1) or "RUN" in text
        assert size < (80, 24) or ("NOT INSPECTED" in text and "► 14:02:11" in text and "quit" in text)


@pytest.mark.parametrize("key", ["question_mark", "f1", "h"])
async def test_help_opens_and_closes(key: str) -> None:
    """`?` opens the page; it covers neither the state nor itself, and any usual key closes it."""
    app = app_on(FixedSource(status()), poll_s=60)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press(key)
        text = screen_text(app)
        assert "rejected without a judgement" in text
        assert "RUN   parts are being judged" in text
        await pilot.press("q")
        assert not isinstance(app.screen, HelpScreen)
        assert app.is_running


async def test_the_state_is_told_while_a_dialog_is_open() -> None:
    """A fault that occurs while the operator types is seen at once."""
    source = FixedSource(status(alerts=ALERTS))
    app = app_on(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("o")
        assert isinstance(app.screen, OperatorDialog)
        source.status = status(State.FAULT, "no engine", counts=Counts())
        await shows(pilot, "■ FAULT")


@pytest.mark.parametrize("hostile", ["\x1b]52;c;cm0=\x07", "\u202eevil", "[@click=app.quit]press[/]", "[bold red]"])
async def test_names_from_outside_are_shown_literally(hostile: str) -> None:
    """Escape sequences, bidi and markup in any text of the status do nothing but show."""
    base = status()
    rows = tuple(row.model_copy(update={"serial": hostile, "top_class": hostile}) for row in base.rejects)
    alert = AlertRow(id=1, utc=hostile, kind=hostile, message=hostile)
    source = FixedSource(
        status(
            State.DEGRADED,
            hostile,
            station=hostile,
            bundle_name=hostile,
            rejects=rows,
            rejects_by_reason={hostile: 3},
            cameras={hostile: hostile},
            alerts=(alert,),
        )
    )
    app = app_on(source, operator=hostile)
    async with app.run_test(size=(120, 30)) as pilot:
        await settled(pilot)
        for keys in ([], ["a"]):
            await pilot.press(*keys)
            text = screen_text(app)
            assert "\x1b" not in text
            assert "\u202e" not in text
            if hostile.startswith("["):
                assert hostile in text
        await pilot.press("enter")
        await until(pilot, lambda: bool(source.acknowledged))
        assert "\x1b" not in source.acknowledged[0][1]
        assert "\u202e" not in source.acknowledged[0][1]
