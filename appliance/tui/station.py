"""The station's daemon, as the screen's source."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.client import StationSilentError, acknowledge, fetch_status
from appliance.config import Station
from appliance.messages import State, Status
from appliance.tui.feed import NoAnswerError, RefusedError
from calibration.errors import InputError

TIMEOUT_S = 1.0


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
        try:
            acknowledge(self.station, alert, operator, self.timeout_s)
        except StationSilentError as error:
            raise NoAnswerError(str(error)) from None
        except InputError as error:
            raise RefusedError(str(error)) from None
