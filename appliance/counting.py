"""Holding the line's own count of parts against ours, so that a part nobody looked at still gets its row. Pure.

A source may know the running number that the line gave a part: a PLC's trigger counter, a camera's frame counter. Parts
that passed while a process was down then show as a gap in that count, and each number of the gap is a rejected part.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

UNSEEN_MAX = 10_000
"""A gap longer than this is no stop of the station but another count."""

SEEN = 64
"""Frames of which a live camera must show none again, even after a restart: a driver may hand out any old buffer."""

SETTLED = 1000
"""Rows of neighbouring triggers lie at most so far apart: before that, a trigger without a row proves nothing."""


class CountNote(NamedTuple):
    """Where a source's count stands: its next trigger is `trigger`, and that is the line's number plus `offset`."""

    trigger: int
    offset: int


class PartCount:
    """The count of one source.

    Attributes:
        trigger: number of the next trigger.
        offset: what is added to the line's number; changes when the line starts its count anew.
    """

    def __init__(self, trigger: int, resume: CountNote | None = None) -> None:
        """`trigger`: where to begin if the line tells no numbers. `resume`: where the count stood, if it was told."""
        self.trigger, self.offset = trigger, 0
        self._resume, self._known = resume, False

    def begin(self, number: int) -> CountNote | None:
        """The first number of this process settles where the count stands; None for every later one."""
        if self._known:
            return None
        self._known = True
        self.trigger, self.offset = self._resume or CountNote(number, 0)
        return CountNote(self.trigger, self.offset)

    def gap(self, number: int) -> int | None:
        """How many parts passed unseen before this one; None where the line began another count, in which parts of
        before cannot be told: this part is to be rejected, and the next is expected to follow it."""
        missing = number + self.offset - self.trigger
        if 0 <= missing <= UNSEEN_MAX:
            return missing
        self.offset = self.trigger - number
        return None


def unfinished(triggers: Iterable[int], begun: int, whole: bool, until: int) -> tuple[int, ...]:
    """Triggers without a row, although the line has counted them.

    Args:
        triggers: of a camera's last rows, in any order.
        begun: the first trigger of the present count.
        whole: whether these are all its rows; of what lies before them nothing can be said otherwise.
        until: the next trigger.
    """
    found = {trigger for trigger in triggers if trigger >= max(begun, until - UNSEEN_MAX)}
    if not found:
        return ()
    first = max(begun, until - UNSEEN_MAX) if whole else min(found) + SETTLED
    return tuple(trigger for trigger in range(first, until) if trigger not in found)
