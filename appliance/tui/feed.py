"""What the screen knows, and whether it is still true. Pure: times come in as arguments.

A number is shown as live only while the daemon answers. As soon as it doesn't, `live` is None: the screen has
nothing to draw but dashes, and says since when.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from appliance.messages import AlertRow, Case, Status

STALE_AFTER_S = 3.0
"""An answer older than this is not live any more, whatever the poller believes."""


class NoAnswerError(Exception):
    """The daemon did not answer, or not in a way this version understands; the text says which."""


class RefusedError(Exception):
    """The daemon answered a request with a refusal; the text is its reason."""


class StatusSource(Protocol):
    """A daemon as the screen sees it. All calls return or raise within a bounded time."""

    def fetch(self) -> Status:
        """The daemon's present status.

        Raises:
            NoAnswerError: no answer in time, or one that cannot be read.
        """

    def acknowledge(self, alert: int, operator: str) -> None:
        """Acknowledge an alert in an operator's name.

        Raises:
            NoAnswerError: as in fetch; whether the alert was acknowledged is then unknown.
            RefusedError: the daemon says why not.
        """

    def cases(self) -> tuple[Case, ...]:
        """Parts that wait for a person, newest first.

        Raises:
            RefusedError: why they cannot be read.
        """

    def judge(self, row: int, decision: str, operator: str) -> None:
        """Record a person's OK or DEFECT on the part of a row.

        Raises:
            NoAnswerError, RefusedError: as acknowledge.
        """


def contradiction(status: Status) -> str:
    """Why a status cannot be true; empty when it can. A share of numbers that contradict each other means nothing."""
    c = status.counts
    parts = (c.ok, c.defect, c.unsure, c.not_inspected)
    if min(parts) < 0 or sum(parts) != c.triggers:
        return f"counts that do not add up: {parts} of {c.triggers} triggers"
    if min((*status.histogram, *status.rejects_by_reason.values()), default=0) < 0:
        return "negative counts"
    return ""


@dataclass(frozen=True)
class Feed:
    """The screen's knowledge.

    Attributes:
        opened: when the screen was opened.
        last: the last status received, however old; None before the first.
        answered: when it was received (wall clock, aware).
        answered_s: the same on the monotonic clock.
        trouble: why the daemon is taken to be silent; empty while it answers or was not asked yet.
    """

    opened: datetime
    last: Status | None = None
    answered: datetime | None = None
    answered_s: float = 0.0
    trouble: str = ""

    @property
    def live(self) -> Status | None:
        """The status if it is true now."""
        return None if self.trouble else self.last

    @property
    def silent_since(self) -> datetime:
        """Time of the last answer, or of the opening when there never was one."""
        return self.answered or self.opened

    @property
    def open_alerts(self) -> tuple[AlertRow, ...]:
        """Alerts that wait for a person, newest first. None while the daemon is silent: they cannot be acted on."""
        alerts = self.live.alerts if self.live else ()
        return tuple(sorted((a for a in alerts if not a.acknowledged_by), key=lambda a: -a.id))

    def heard(self, status: Status, now: datetime, now_s: float) -> Feed:
        """The daemon answered."""
        return replace(self, last=status, answered=now, answered_s=now_s, trouble="")

    def failed(self, trouble: str) -> Feed:
        """The daemon did not answer."""
        return replace(self, trouble=trouble or "no answer")

    def aged(self, now_s: float) -> Feed:
        """The same feed a moment later: an answer that has grown old is not live, even if nobody reported a failure."""
        if self.live and now_s - self.answered_s > STALE_AFTER_S:
            return self.failed("the last answer is too old")
        return self
