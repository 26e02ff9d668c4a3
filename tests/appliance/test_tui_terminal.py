"""The operator's screen on a real (pseudo) terminal, as a process of its own: what reaches the operator's terminal."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from appliance.config import Station
from appliance.tui.app import run_tui
from calibration.errors import InputError
from tests.appliance.tui_pty import terminal

HOSTILE = """
from appliance.messages import AlertRow, State
from tests.appliance.tui_data import FixedSource, app_on, status
bad = "\\x1b]52;c;cm0gLXJm\\x07\\x1b]0;owned\\x07\\x9b31m\\u202eevil\\u2066[@click=app.quit]x[/]"
rows = tuple(row.model_copy(update={"serial": bad, "top_class": bad, "camera": bad}) for row in status().rejects)
alert = AlertRow(id=1, utc=bad, kind=bad, message=bad)
app_on(FixedSource(status(State.HOLD, bad, station=bad, bundle_name=bad, rejects=rows, cameras={bad: bad},
    rejects_by_reason={bad: 3}, alerts=(alert,))), operator=bad).run(mouse=False)
"""


def test_nothing_hostile_reaches_the_terminal() -> None:
    """Escape sequences in names end on the screen as marks: no clipboard, no title, no bidi, no 8-bit controls."""
    with terminal("-c", HOSTILE) as it:
        it.read_until("HOLD")
        it.type("a")
        it.read_until("Acknowledge this alert")
        it.type("\x1b")
        it.read(0.3)
        it.type("q")
        assert it.wait() == 0
        shown = it.seen.decode("utf-8", "surrogateescape")
        assert "]52;" in shown.replace("\x1b]52;", "")  # shown as text ...
        for sequence in ("\x1b]52", "\x1b]0;", "\x1b]2;", "\x9b", "\u202e", "\u2066", "owned\x07"):
            assert sequence not in shown  # ... and never as a command


NORMAL = """
from tests.appliance.tui_data import ALERTS, FixedSource, app_on, status
app_on(FixedSource(status(alerts=ALERTS))).run(mouse=False)
"""


def test_a_storm_of_keys_and_sizes_is_survived() -> None:
    """A thousand keys at once and many sizes: the screen answers the next key, quits with 0, restores the terminal."""
    with terminal("-c", NORMAL) as it:
        it.read_until("NOT INSPECTED")
        it.type("\x1b[B\x1b[A" * 500)
        for width, height in ((40, 10), (200, 60), (1, 1), (81, 25), (80, 24)):
            it.resize(width, height)
            it.process.send_signal(signal.SIGWINCH)
            it.read(0.05)
        it.type("?")
        it.read_until("judged doubtful")
        it.type("\x1b")
        it.read(0.3)
        it.type("q")
        assert it.wait() == 0
        assert b"\x1b[?1049l" in it.seen


def test_a_broken_connection_ends_the_screen() -> None:
    """When ssh breaks off, no screen stays behind that nobody sees and that goes on asking."""
    with terminal("-c", NORMAL) as it:
        it.read_until("NOT INSPECTED")
        it.hang_up()
        assert it.process.wait(60) != 0


def test_without_colour_the_words_remain() -> None:
    """NO_COLOR is honoured: no hue is sent, and state, signs and selection are told by words and shapes."""
    with terminal("-c", NORMAL, NO_COLOR="1", COLORTERM="truecolor") as it:
        it.read_until("acknowledge")
        it.type("q")
        assert it.wait() == 0
        text = it.seen.decode()
        for word in ("● ", "RUN", "■ ", "DEFECT", "▲ ", "UNSURE", "○ ", "NOT INSPECTED", " ► "):
            assert word in text
        hues = {tuple(part.split(";")[:3]) for part in text.split("[38;2;")[1:]}
        assert all(red == green == blue.split("m")[0] for red, green, blue in hues)


def test_without_a_terminal_one_is_told_what_to_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipe the screen refuses, with the command that works there."""
    station = Station.model_validate(
        {
            "station": {"name": "s", "data": tmp_path / "data", "bundle": tmp_path / "b.lgb"},
            "camera": {"top": {"source": "folder", "path": tmp_path}},
        }
    )
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        with pytest.raises(InputError, match="appliance status"):
            run_tui(station)
