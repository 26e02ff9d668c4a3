"""The thread that asks the daemon for the screen."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from textual.message import Message

from appliance.messages import Case, Counts, Status
from appliance.tui.feed import NoAnswerError, StatusSource
from appliance.tui.poller import AcknowledgeDone, CasesArrived, DaemonSilent, JudgeDone, Poller, StatusArrived
from tests.appliance.tui_data import ALERTS, FixedSource, status

Posted = queue.Queue[Message]


@contextmanager
def polling(source: StatusSource, period_s: float = 60.0) -> Iterator[tuple[Poller, Posted]]:
    """A poller at work, and what it posts."""
    posted: Posted = queue.Queue()
    poller = Poller(source, posted.put, period_s)
    poller.start()
    try:
        yield poller, posted
    finally:
        poller.stop()


class BrokenSource:
    """A source with a bug."""

    def fetch(self) -> Status:
        """Divide by zero."""
        raise ZeroDivisionError("division by zero")

    def acknowledge(self, alert: int, operator: str) -> None:
        """The same."""
        self.fetch()

    def cases(self) -> tuple[Case, ...]:
        """The same."""
        raise ZeroDivisionError("division by zero")

    def judge(self, row: int, decision: str, operator: str) -> None:
        """The same."""
        self.fetch()


class LosingSource:
    """A daemon that takes an acknowledgement but whose answer is lost."""

    def fetch(self) -> Status:
        """A normal status."""
        return status()

    def acknowledge(self, alert: int, operator: str) -> None:
        """No answer."""
        raise NoAnswerError("the daemon does not answer within 1 s")


def iter_until(posted: Posted, last: type[Message]) -> Iterator[Message]:
    """What is posted, up to the first message of a kind."""
    while True:
        message = posted.get(timeout=30)
        yield message
        if isinstance(message, last):
            return


def test_news_replaces_older_news_but_no_outcome() -> None:
    """A busy screen skips to the latest status; the outcome of an acknowledgement is never skipped."""
    arrived, silent, done = StatusArrived(status()), DaemonSilent("gone"), AcknowledgeDone(1, "Jana")
    assert arrived.can_replace(silent)
    assert silent.can_replace(arrived)
    assert not done.can_replace(arrived)
    assert not arrived.can_replace(done)


def test_it_asks_at_once_and_again_after_an_acknowledgement() -> None:
    """The operator sees what the acknowledgement did without waiting for the next period."""
    source = FixedSource(status(alerts=ALERTS))
    with polling(source) as (poller, posted):
        assert isinstance(posted.get(timeout=30), StatusArrived)
        poller.acknowledge(17, "Jana")
        done = posted.get(timeout=30)
        assert isinstance(done, AcknowledgeDone)
        assert (done.alert, done.operator, done.trouble) == (17, "Jana", "")
        after = posted.get(timeout=30)
        assert isinstance(after, StatusArrived)
        assert after.status.alerts[0].acknowledged_by == "Jana"


def test_a_bug_in_the_source_is_told_not_fatal() -> None:
    """The thread survives whatever its source raises: a screen that stands still would be believed."""
    with polling(BrokenSource()) as (poller, posted):
        news = posted.get(timeout=30)
        assert isinstance(news, DaemonSilent)
        assert "ZeroDivisionError: division by zero" in news.trouble
        poller.acknowledge(3, "Jana")
        done = posted.get(timeout=30)
        assert isinstance(done, AcknowledgeDone)
        assert "not acknowledged: ZeroDivisionError" in done.trouble
        poller.judge(4711, "OK", "Jana")
        told = [message for message in iter_until(posted, CasesArrived) if not isinstance(message, DaemonSilent)]
        assert isinstance(told[0], JudgeDone)
        assert "not recorded: ZeroDivisionError" in told[0].trouble
        assert isinstance(told[1], CasesArrived)
        assert "ZeroDivisionError" in told[1].trouble


def test_a_lost_answer_is_not_called_a_refusal() -> None:
    """Whether the daemon acknowledged the alert is then unknown, and the operator is told to look."""
    with polling(LosingSource()) as (poller, posted):
        posted.get(timeout=30)
        poller.acknowledge(17, "Jana")
        done = posted.get(timeout=30)
        assert isinstance(done, AcknowledgeDone)
        assert done.trouble.startswith("see whether it stays open")


@pytest.mark.parametrize(
    "impossible",
    [
        {"counts": Counts(triggers=10, ok=11)},
        {"counts": Counts(triggers=10, ok=4, defect=3, unsure=2)},
        {"counts": Counts(triggers=0, ok=1, defect=-1)},
        {"histogram": (3, -1)},
        {"rejects_by_reason": {"DEFECT": -2}},
    ],
)
def test_numbers_that_contradict_each_other_are_not_shown(impossible: dict[str, object]) -> None:
    """Such a status is no answer: a share of it would mean nothing."""
    with polling(FixedSource(status(**impossible))) as (_, posted):
        news = posted.get(timeout=30)
        assert isinstance(news, DaemonSilent)
        assert "the daemon sent" in news.trouble


def test_it_ends_when_nobody_is_left_to_tell() -> None:
    """The event loop of a closed screen raises RuntimeError; the thread then stops asking."""
    asked = []

    class Counting(FixedSource):
        def fetch(self) -> Status:
            asked.append(1)
            return super().fetch()

    def closed(message: Message) -> None:
        raise RuntimeError("Event loop is closed")

    poller = Poller(Counting(status()), closed, 0.01)
    poller.start()
    time.sleep(0.3)
    assert len(asked) == 1
