"""A relay that owns the time-out: de-energised it rejects, and it is energised only by a PASS for that very part.

Pure: the clock is handed in. `relay_server` puts it behind a socket, in a process of its own, so that it goes on
rejecting whatever happens to the appliance.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum

HELD_MAX = 4096
"""PASSes remembered at once; beyond it new ones are refused."""


class Answer(str, Enum):
    """What the relay says to a PASS."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    LATE = "late"
    OLD_EPOCH = "old epoch"
    NO_HEARTBEAT = "no heartbeat"
    FULL = "full"


@dataclass(frozen=True)
class Order:
    """A PASS: for which part, from which epoch, until when (monotonic nanoseconds)."""

    epoch: int
    camera: str
    tag: int
    deadline_ns: int


class Relay:
    """One relay.

    Attributes:
        epoch: of the connection that may speak now.
        counts: of what it answered, of parts at the gate that passed and did not, and of lost heartbeats.
    """

    def __init__(self, beat_ns: int, gate_ns: int) -> None:
        """Without a heartbeat for `beat_ns` it lets go of everything. A part reaches the gate at most `gate_ns` after
        its deadline; a PASS that it has not used by then is forgotten."""
        self._beat_ns, self._gate_ns = beat_ns, gate_ns
        self.epoch = 0
        self.counts: Counter[str] = Counter()
        self._beat_at_ns: int | None = None
        self._count = 0
        self._held: dict[tuple[str, int], Order] = {}
        self._used: dict[tuple[str, int], int] = {}

    def connect(self) -> int:
        """A new master: its epoch. What the one before it said is void."""
        self.epoch += 1
        self._let_go()
        return self.epoch

    def beat(self, epoch: int, count: int, ready: bool, now_ns: int) -> bool:
        """A heartbeat; whether it was taken. One that does not count on, or comes from an old epoch, is none."""
        self._look(now_ns)
        if epoch != self.epoch or count <= self._count:
            self.counts["beat refused"] += 1
            return False
        self._count = count
        self._beat_at_ns = now_ns if ready else None
        if not ready:
            self._held.clear()
        return True

    def let_pass(self, order: Order, now_ns: int) -> Answer:
        """A PASS."""
        answer = self._judge(order, now_ns)
        self.counts[answer.value] += 1
        if answer is Answer.ACCEPTED:
            part = (order.camera, order.tag)
            self._held[part] = order
            self._used[part] = order.deadline_ns
        return answer

    def gate(self, camera: str, tag: int, now_ns: int) -> bool:
        """The part is at the gate: whether it passes. Each PASS is for one part, once."""
        self._look(now_ns)
        passes = self._held.pop((camera, tag), None) is not None
        self.counts["passed" if passes else "rejected"] += 1
        return passes

    def energised(self, now_ns: int) -> bool:
        """Whether a part can pass at this moment."""
        self._look(now_ns)
        return bool(self._held)

    def _judge(self, order: Order, now_ns: int) -> Answer:
        self._look(now_ns)
        if order.epoch != self.epoch:
            return Answer.OLD_EPOCH
        if self._beat_at_ns is None:
            return Answer.NO_HEARTBEAT
        if now_ns >= order.deadline_ns:
            return Answer.LATE
        if (order.camera, order.tag) in self._used:
            return Answer.DUPLICATE
        return Answer.FULL if len(self._used) >= HELD_MAX else Answer.ACCEPTED

    def _look(self, now_ns: int) -> None:
        """What time alone changes."""
        if self._beat_at_ns is not None and now_ns >= self._beat_at_ns + self._beat_ns:
            self.counts["heartbeat lost"] += 1
            self._beat_at_ns = None
            self._held.clear()
        for part in [p for p, order in self._held.items() if now_ns >= order.deadline_ns + self._gate_ns]:
            del self._held[part]
        # A PASS repeated after its deadline is late anyway: only until then must it be remembered.
        for part in [p for p, deadline in self._used.items() if now_ns >= deadline and p not in self._held]:
            del self._used[part]

    def _let_go(self) -> None:
        self._beat_at_ns, self._count = None, 0
        self._held.clear()
        self._used.clear()
