"""Rejects in a row: one says little, several in a row say that something is wrong with the inspection. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from appliance.state import Clear, Event, Hold
from appliance.words import JUDGED, Reason

PICTURES = 3
"""So many identical live frames in a row are a frozen camera."""

_REPEATED = (Reason.STALE, Reason.FROZEN)
_NOT_THE_PARTS = (Reason.HOLD, Reason.STOPPED)
"""Consequences of a state, which say nothing new about its cause."""


@dataclass
class Streaks:
    """What each camera's last parts were.

    A camera whose last `rejects` parts were all rejected without a judgement holds the line until one is judged; one
    that gave the same picture PICTURES times, until it gives another. UNSURE is a judgement: with the default costs a
    third of sound production may be, so five in a row mean nothing, and drift is looked for elsewhere.
    """

    rejects: int
    _rejected: Counter[str] = field(default_factory=Counter)
    _repeated: Counter[str] = field(default_factory=Counter)

    def see(self, camera: str, reason: Reason) -> tuple[Event, ...]:
        """One part's own reason, NONE for one that is good; what follows from it."""
        if reason in _NOT_THE_PARTS:
            return ()
        events: list[Event] = []
        if reason in JUDGED:
            if self._rejected.pop(camera, 0) >= self.rejects:
                events.append(Clear(f"rejects {camera}"))
        else:
            self._rejected[camera] += 1
            if self._rejected[camera] == self.rejects:
                why = f"{self.rejects} parts in a row were not inspected, the last {reason.value}"
                events.append(Hold(f"rejects {camera}", f"camera {camera}: {why}"))
        if reason in _REPEATED:
            self._repeated[camera] += 1
            if self._repeated[camera] == PICTURES - 1:
                events.append(Hold(f"frozen {camera}", f"camera {camera}: the same picture {PICTURES} times"))
        elif reason in JUDGED and self._repeated.pop(camera, 0) >= PICTURES - 1:
            events.append(Clear(f"frozen {camera}"))
        return tuple(events)
