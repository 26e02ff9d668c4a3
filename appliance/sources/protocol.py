"""What a camera process needs to know of the thing that takes the pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from appliance.words import Reason
from calibration.preprocess import Frame


class ShotError(RuntimeError):
    """A trigger without a usable frame: the part is rejected for `reason`, the source goes on."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Shot:
    """One trigger. `read` delivers its frame, or raises ShotError; not calling it drops the frame.

    The frame stays as it is as long as anybody holds it: a source that has to give its buffer back copies it.
    serial and lot: of the part, as the trigger or a reader told them; empty where they did not.
    number: the line's own count of parts at this one, in steps of one; None where nobody counts. Numbers that are left
    out are parts that passed unseen: each gets a row.
    """

    name: str
    read: Callable[[], Frame]
    serial: str = ""
    lot: str = ""
    number: int | None = None


class Source(Protocol):
    """A sequence of triggers.

    Attributes:
        fps: triggers per second on the monotonic clock; 0: the next one as soon as there is room for its frame, so
            that nothing can overflow.
        live: whether the pictures are of this moment. A live sensor never gives the same bytes twice, so a repeated
            frame is a frozen camera and rejected as FROZEN; a replay may hold, and loop over, equal files.
    """

    fps: float
    live: bool

    def shoot(self) -> Shot | None:
        """The next trigger; None when there will be no more."""
