"""The operator's screen: wiring of polling, sections and keys. The sections draw, the poller works, this connects."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone, tzinfo
from typing import ClassVar

from textual.app import App, ComposeResult, RenderResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.theme import Theme
from textual.widget import Widget

from appliance.config import Station
from appliance.tui import panels
from appliance.tui.cases import CasesScreen
from appliance.tui.dialogs import AcknowledgeDialog, HelpScreen, OperatorDialog, operator_name
from appliance.tui.feed import Feed, StatusSource
from appliance.tui.histogram import histogram_lines
from appliance.tui.panels import Lines, View
from appliance.tui.poller import AcknowledgeDone, CasesArrived, DaemonSilent, JudgeDone, Poller, StatusArrived
from appliance.tui.station import StationSource
from appliance.tui.text import clean
from calibration.errors import InputError

POLL_S = 0.5
TICK_S = 0.5
NOTICE_S = 6.0

THEME = Theme(
    name="lineguard",
    primary="#5fb3d9",
    secondary="#7f9fb5",
    accent="#a3a9e0",
    success="#4fb477",
    warning="#e0b04a",
    error="#e0605a",
    foreground="#d7dde2",
    background="#11161b",
    surface="#172027",
    panel="#1d2830",
    dark=True,
    variables={
        "dim": "#8fa0ad",
        "rule": "#41525f",
        "bar": "#5fb3d9",
        "selected": "#26404f",
        # the state's colours: chosen so that a terminal of 16 colours turns them into its green, yellow, red and grey
        "good": "#08702c",
        "warned": "#d7af00",
        "bad": "#a82828",
        "waiting": "#3b4a56",
    },
)


class Section(Widget):
    """One part of the screen: the lines that a function of panels or histogram draws, at whatever size it has."""

    def __init__(self, lines: Callable[[View, int, int], Lines], name: str) -> None:
        super().__init__(id=name)
        self._lines = lines
        self._view: View | None = None
        self._shown = Content("")

    def show(self, view: View) -> None:
        """Draw again, but only if something looks different: an ssh line carries no repetitions."""
        self._view = view
        if not self._draw(view).is_same(self._shown):
            self.refresh()

    def render(self) -> RenderResult:
        """The section's lines, one below the other."""
        if self._view is not None:
            self._shown = self._draw(self._view)
        return self._shown

    def _draw(self, view: View) -> Content:
        width, height = self.size
        lines = self._lines(view, width, height)
        return Content("\n").join(line.truncate(width) for line in lines)


class Banner(Section):
    """The state, in a colour that agrees with its word; as high as its reason needs."""

    def __init__(self) -> None:
        super().__init__(panels.banner_lines, "banner")

    def show(self, view: View) -> None:
        """Colour and height follow the state."""
        for tone in ("good", "warning", "bad", "waiting"):
            self.set_class(tone == panels.banner_tone(view), tone)
        self.styles.height = len(panels.banner_lines(view, self.app.size.width, 0))
        super().show(view)


class LineguardApp(App[None]):
    """The operator's screen.

    Args:
        source: the daemon.
        operator: name to record with acknowledgements; asked for when empty.
        utc: wall clock, for what is shown.
        monotonic: clock in seconds, for what is decided (is an answer still true?).
        zone: zone of the times shown; None is the machine's.
        poll_s: seconds between two questions to the daemon.
    """

    CSS_PATH = "screen.tcss"
    TITLE = "Lineguard"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "select(-1)", show=False),
        Binding("down", "select(1)", show=False),
        Binding("a", "acknowledge", show=False),
        Binding("c", "cases", show=False),
        Binding("o", "operator", show=False),
        Binding("question_mark,f1,h", "help", show=False),
        Binding("q,ctrl+c", "quit", show=False),
    ]

    def __init__(
        self,
        source: StatusSource,
        operator: str = "",
        *,
        utc: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        monotonic: Callable[[], float] = time.monotonic,
        zone: tzinfo | None = None,
        poll_s: float = POLL_S,
    ) -> None:
        super().__init__()
        self.register_theme(THEME)
        self.theme = THEME.name
        self.HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (72, "-narrow"), (100, "-wide")]
        self.VERTICAL_BREAKPOINTS = [(0, "-short"), (30, "-tall")]
        self._utc = utc
        self._monotonic = monotonic
        self._poller = Poller(source, self.post_message, poll_s)
        self._notice_until_s = 0.0
        self.view = View(Feed(opened=utc()), now=utc(), zone=zone, operator=operator_name(operator))

    def compose(self) -> ComposeResult:
        """Top to bottom."""
        yield Section(panels.title_lines, "title")
        yield Banner()
        yield Section(panels.figure_lines, "figures")
        with Horizontal(id="middle"):
            yield Section(panels.count_lines, "counts")
            yield Section(histogram_lines, "histogram")
        with Horizontal(id="lower"):
            yield Section(panels.reject_lines, "rejects")
            yield Section(panels.reason_lines, "reasons")
        yield Section(panels.alert_lines, "alerts")
        yield Section(panels.key_lines, "keys")

    def on_mount(self) -> None:
        """Start asking."""
        self._show(self.view)
        self._poller.start()
        self.set_interval(TICK_S, self._tick)

    def on_unmount(self) -> None:
        """Stop asking."""
        self._poller.stop()

    def on_status_arrived(self, message: StatusArrived) -> None:
        """The daemon answered."""
        self._show(self._with_feed(self.view.feed.heard(message.status, self._utc(), self._monotonic())))

    def on_daemon_silent(self, message: DaemonSilent) -> None:
        """It did not."""
        self._show(self._with_feed(self.view.feed.failed(message.trouble)))

    def on_acknowledge_done(self, message: AcknowledgeDone) -> None:
        """Say how the acknowledgement went."""
        if message.trouble:
            self._say(f"alert {message.alert} {clean(message.trouble, 200)}")
        else:
            self._say(f"alert {message.alert} acknowledged by {clean(message.operator)}")

    def action_select(self, step: int) -> None:
        """Move to another alert."""
        ids = [alert.id for alert in self.view.feed.open_alerts]
        if self.view.selected in ids:
            place = min(len(ids) - 1, max(0, ids.index(self.view.selected) + step))
            self._show(replace(self.view, selected=ids[place]), only="#alerts")

    def action_acknowledge(self) -> None:
        """Open the dialog on the selected alert."""
        if not self.view.live:
            self._say("no connection: nothing can be acknowledged now")
            return
        alert = next((a for a in self.view.feed.open_alerts if a.id == self.view.selected), None)
        if alert is None:
            self._say("no alert is open")
            return
        number = alert.id

        def confirmed(operator: str | None) -> None:
            if operator:
                self._show(replace(self.view, operator=operator))
                self._say(f"alert {number}: asking the daemon ...")
                self._poller.acknowledge(number, operator)

        self.push_screen(AcknowledgeDialog(alert, self.view.operator, self.view.zone), confirmed)

    def action_cases(self) -> None:
        """Open the list of parts that wait for a person."""

        def left(operator: str | None) -> None:
            if operator:
                self._show(replace(self.view, operator=operator))

        self.push_screen(CasesScreen(self._poller.judge, self.view.operator, self.view.zone), left)
        self._poller.look_at_cases()

    def on_cases_arrived(self, message: CasesArrived) -> None:
        """Into the list, if it is open still."""
        for screen in self.screen_stack:
            if isinstance(screen, CasesScreen):
                screen.show(message.cases, message.trouble)

    def on_judge_done(self, message: JudgeDone) -> None:
        """Say how it went, if the list is open still."""
        for screen in self.screen_stack:
            if isinstance(screen, CasesScreen):
                screen.judged(message.row, message.decision, message.trouble)

    def action_operator(self) -> None:
        """Change the operator's name."""

        def named(operator: str | None) -> None:
            if operator:
                self._show(replace(self.view, operator=operator))

        self.push_screen(OperatorDialog(self.view.operator), named)

    def action_help(self) -> None:
        """Open the help page."""
        self.push_screen(HelpScreen())

    def _tick(self) -> None:
        """Clock, age of the last answer, end of a notice."""
        view = self._with_feed(self.view.feed.aged(self._monotonic()))
        if view.notice and self._monotonic() >= self._notice_until_s:
            view = replace(view, notice="")
        self._show(view)

    def _say(self, notice: str) -> None:
        self._notice_until_s = self._monotonic() + NOTICE_S
        self._show(replace(self.view, notice=notice), only="#alerts")

    def _with_feed(self, feed: Feed) -> View:
        """The selection stays on its alert while that is open, however the list moves; else on the newest."""
        ids = [alert.id for alert in feed.open_alerts]
        selected = self.view.selected
        if feed.live and selected not in ids:
            selected = ids[0] if ids else None
        return replace(self.view, feed=feed, now=self._utc(), selected=selected)

    def _show(self, view: View, only: str = "Section") -> None:
        """Draw a view, or the one section of it that can have changed."""
        self.view = view
        for section in self.screen_stack[0].query(only).results(Section):
            section.show(view)


def run_tui(station: Station, operator: str = "") -> None:
    """Show a station until the operator leaves the screen.

    Args:
        station: as load_station gives it.
        operator: name recorded with acknowledgements; asked for at the first one when empty.

    Raises:
        InputError: standard input or error is no terminal.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InputError("the operator's screen needs a terminal; `appliance status` prints the same numbers anywhere")
    LineguardApp(StationSource(station), operator).run(mouse=False)
