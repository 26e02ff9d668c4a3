"""Words and figures of the operator's screen."""

from __future__ import annotations

import unicodedata
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tui.text import (
    UNKNOWN,
    clean,
    duration,
    limits,
    milliseconds,
    moment,
    parse_utc,
    per_second,
    percent,
    probability,
    time_of_day,
)
from calibration.risk import wilson

CET = timezone(timedelta(hours=1), "CET")
NOW = datetime(2026, 11, 23, 13, 0, tzinfo=timezone.utc)

HOSTILE = [
    "\x1b]52;c;cm0gLXJmIC8=\x07",  # OSC 52: puts text on the clipboard
    "\x1b]0;owned\x07",  # window title
    "\x9b2J",  # 8-bit CSI: clears the screen
    "ok\u202egnp.\u202c",  # bidi override: reads backwards
    "a\u200bb\ufeffc",  # zero-width characters
    "\ud800",  # half a surrogate pair
    "line\u2028break",
    "\ue000\U000f0000",  # private use: any picture the font likes
]


@given(st.text(max_size=200) | st.sampled_from(HOSTILE), st.integers(1, 80))
def test_cleaned_text_holds_nothing_a_terminal_obeys(text: str, limit: int) -> None:
    """Whatever comes in, what goes out is one line of printable characters within the limit."""
    shown = clean(text, limit)
    assert len(shown) <= limit
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp")]


@pytest.mark.parametrize("text", ["crack", "[@click=app.quit]x[/]", "[bold red]", "良品", "Riß am Rand", "a b"])
def test_harmless_text_is_shown_as_it_is(text: str) -> None:
    """Brackets are text, not markup; letters of all languages are allowed."""
    assert clean(text) == text


def test_one_sees_that_something_was_there() -> None:
    """A removed character leaves a mark, a line break leaves a space, a cut leaves an ellipsis."""
    assert clean("a\x1bb\nc") == "a\ufffdb c"
    assert clean("x" * 65) == "x" * 63 + "…"
    assert clean("x" * 64) == "x" * 64


@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_a_share_never_looks_complete_when_it_is_not(successes: int, rest: int) -> None:
    """100.00 % and 0.00 % are said only of all and of none."""
    trials = successes + rest
    if trials == 0:
        assert percent(wilson(0, 0).value) == UNKNOWN
        return
    said = percent(successes / trials)
    assert (said == "100.00 %") == (rest == 0)
    assert (said == "0.00 %") == (successes == 0)


def test_an_interval_names_both_ends() -> None:
    """The ends of the 95 % interval, aligned."""
    assert limits(wilson(120, 1982)) == " 5.09 –  7.19"


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, UNKNOWN), (float("nan"), UNKNOWN), (0.0, "0.000"), (1.0, "1.000"), (0.0004, "<.001"), (0.9996, ">.999")],
)
def test_a_probability_is_never_rounded_to_certainty(value: float | None, said: str) -> None:
    """0 and 1 are said only of 0 and 1; a part that was not judged has none."""
    assert probability(value) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-3, "0 s"),
        (float("nan"), UNKNOWN),
        (59.9, "59 s"),
        (185, "3 min 5 s"),
        (11_545, "3 h 12 min"),
        (360_000, "4 d 4 h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, said: str) -> None:
    """Long enough to judge, short enough to read."""
    assert duration(seconds) == said


def test_speeds_keep_the_figures_that_matter() -> None:
    """A tenth while numbers are small, none when they are large."""
    assert (milliseconds(12.14), milliseconds(1234.5)) == ("12.1 ms", "1,234 ms")
    assert (per_second(20.13), per_second(4096.0)) == ("20.1 parts/s", "4,096 parts/s")


def test_times_are_local_and_older_days_are_named() -> None:
    """A time of yesterday must not be read as one of today."""
    assert time_of_day("2026-11-23T12:59:58.123456+00:00", NOW, CET) == "13:59:58"
    assert time_of_day("2026-11-23T12:59:58Z", NOW, CET) == "13:59:58"
    assert time_of_day("2026-11-22T12:59:58", NOW, CET) == "22 Nov"
    assert moment("2026-11-22T12:59:58Z", CET) == "22 Nov 2026 13:59:58 CET"


def test_a_time_that_is_none_is_shown_cleaned() -> None:
    """Something is better than a crash."""
    assert parse_utc("yesterday") is None
    assert time_of_day("\x1byesterday", NOW, CET) == "\ufffdyester…"
    assert moment("soon\n", CET) == "soon "
