"""Gathering parts into batches: by size, or when the oldest has waited long enough. Pure: no clock, no threads."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple


class Part(NamedTuple):
    """One triggered part whose frame lies in a slot of the ring.

    Times are monotonic nanoseconds: triggered, tensor ready, and the deadline of its verdict. serial and lot are empty
    where the source does not know them. tag: what the line calls the part, see PassToken.
    """

    camera: str
    trigger: int
    frame: str
    slot: int
    crc: int
    triggered_ns: int
    ready_ns: int
    deadline_ns: int
    serial: str = ""
    lot: str = ""
    tag: int = 0


class Batcher:
    """Parts in order of arrival, taken out in batches."""

    def __init__(self, size: int, wait_ns: int, whole: bool = False) -> None:
        """At most `size` parts a batch; a part waits at most `wait_ns` from its readiness for others to join it.

        `whole`: a batch has `size` parts or one; what has waited for a full batch in vain goes one by one.
        """
        self.size, self.wait_ns, self._whole = size, wait_ns, whole
        self._parts: deque[Part] = deque()

    def __len__(self) -> int:
        return len(self._parts)

    def add(self, part: Part) -> None:
        """Queue one part."""
        self._parts.append(part)

    def take(self, now_ns: int, idle: bool = True) -> list[Part]:
        """The next batch; empty where none is due.

        A full batch is always due. A smaller one is due when its oldest part has waited long enough and the engine is
        `idle`: behind a batch at work it would start no sooner than the fuller one that it can still become.
        """
        if not self._parts:
            return []
        if len(self._parts) < self.size and not (idle and now_ns >= self._parts[0].ready_ns + self.wait_ns):
            return []
        count = 1 if self._whole and len(self._parts) < self.size else min(self.size, len(self._parts))
        return [self._parts.popleft() for _ in range(count)]

    def take_expired(self, now_ns: int) -> list[Part]:
        """Parts, from the oldest on, whose deadline has come: no engine can save them."""
        expired = []
        while self._parts and now_ns >= self._parts[0].deadline_ns:
            expired.append(self._parts.popleft())
        return expired

    def take_all(self) -> list[Part]:
        """Everything that waits."""
        parts = list(self._parts)
        self._parts.clear()
        return parts

    def due_ns(self) -> int | None:
        """When the oldest part will have waited long enough; None where nothing waits."""
        return self._parts[0].ready_ns + self.wait_ns if self._parts else None
