"""Triggers from outside, on their way to a camera: each with the time at which it came."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import NamedTuple

WAITING_MAX = 64
"""Triggers that may wait for the camera; what does not fit is refused to whoever sent it."""


class Trigger(NamedTuple):
    """A part is in front of the camera. at_ns: since when, monotonic; number: the line's own count, if it counts."""

    at_ns: int
    number: int | None = None
    serial: str = ""
    lot: str = ""


class TriggerQueue:
    """Filled by one thread, emptied by another, which can poll `fileno` to wait."""

    def __init__(self) -> None:
        self._waiting: deque[Trigger] = deque()
        self._lock = threading.Lock()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Readable while something waits."""
        return self._event

    def offer(self, trigger: Trigger) -> bool:
        """Queue one; False where there is no room."""
        with self._lock:
            if len(self._waiting) >= WAITING_MAX:
                return False
            self._waiting.append(trigger)
            os.eventfd_write(self._event, 1)
        return True

    def take(self) -> Trigger | None:
        """The oldest; None where none waits."""
        with self._lock:
            if not self._waiting:
                return None
            trigger = self._waiting.popleft()
            if not self._waiting:
                os.eventfd_read(self._event)
        return trigger

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._event)
