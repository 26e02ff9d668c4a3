"""The station's daemon, as the screen's source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from appliance.cases import open_cases
from appliance.client import StationSilentError, acknowledge, fetch_status, review
from appliance.config import Station
from appliance.messages import Case, State, Status
from appliance.tui.feed import NoAnswerError, RefusedError
from calibration.errors import InputError

TIMEOUT_S = 1.0
CASES = 100
"""Cases that the screen lists at most."""


@dataclass(frozen=True)
class StationSource:
    """Asks the daemon of one station; where none runs, its database (state STOPPED, no uptime)."""

    station: Station
    timeout_s: float = TIMEOUT_S

    def fetch(self) -> Status:
        """See StatusSource."""
        status = fetch_status(self.station, self.timeout_s)
        # For a daemon that is there but silent the client reads the database and reports FAULT. Those counts may be
        # old by now, so here it is no answer at all. A daemon that answers has an uptime.
        if status.state is State.FAULT and not status.uptime_s:
            raise NoAnswerError(status.state_reason)
        return status

    def acknowledge(self, alert: int, operator: str) -> None:
        """See StatusSource."""
        with _told_apart():
            acknowledge(self.station, alert, operator, self.timeout_s)

    def cases(self) -> tuple[Case, ...]:
        """See StatusSource."""
        with _told_apart():
            return open_cases(self.station, CASES)

    def judge(self, row: int, decision: str, operator: str) -> None:
        """See StatusSource."""
        with _told_apart():
            review(self.station, row, decision, operator, self.timeout_s)


@contextmanager
def _told_apart() -> Iterator[None]:
    """A daemon that is silent from one that refuses."""
    try:
        yield
    except StationSilentError as error:
        raise NoAnswerError(str(error)) from None
    except InputError as error:
        raise RefusedError(str(error)) from None
