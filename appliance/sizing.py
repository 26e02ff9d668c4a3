"""How many parts are judged together, and how many may be under way, given how fast this machine judges. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ROUNDS = 7
BATCH_GAIN = 0.01
"""A larger batch has to save this share of the time per part: it makes parts wait."""

BATCH_NS = 600_000
"""What a batch of any size costs beside its inference: messages, judging, waking threads. Measured as the difference in
CPU time per part between batches of 2 and of 4; it is no time of the engine, but takes the same cores."""

LANE_GAIN = 0.1
"""One more step of lanes has to save this share: each takes memory, and a core from others."""

AHEAD = 3
"""Batches that an engine is sent for each lane beyond the one that it works on, as far as parts are waiting: so no lane
waits while the loop rests, or for a disk."""

WINDOW_BYTES = 16 * 2**20
"""Memory of one camera's slots, as far as it is not needed for a batch with each lane."""

AUTO_LANES = 4
"""Most lanes that are tried where the configuration leaves their number open."""


def most_lanes(threads: int, cores: int) -> int:
    """Lanes that an engine is loaded with: at most `threads` of them will be used, or (0) as many as may pay here."""
    return threads or max(1, min(cores, AUTO_LANES))


def window(fps: float, batch: int, lanes: int = 1, most: int = 2**31) -> int:
    """Slots of one camera.

    As fast as they are judged (fps 0): for each lane the batches with the engine, and as many in the making while the
    loop rests, but no more than `most`; at least a batch with each lane, one behind them and a frame in work. At a set
    rate: room for the stalls of a disk or a restart, before parts overflow.
    """
    least = (lanes + 1) * batch
    if fps > 0:
        return max(2 * least, 16)
    return max(least + 1, min(2 * (1 + AHEAD) * lanes * batch, most))


def timely(part_ns: float, deadline_ns: int, unpaced: int, batch: int, lanes: int = 1) -> int:
    """Slots of each camera with fps 0 with which no part waits for more than half its deadline; see fitting_batch."""
    return int((deadline_ns / 2 / max(part_ns, 1.0) - lanes * batch) / max(1, unpaced))


def rest_ns(part_ns: float, lanes: int, batch: int) -> int:
    """How long an engine that was sent all it takes needs nothing: what all but one of the batches ahead of a lane
    take, each of at least `batch` parts. `part_ns`: time for one part while all lanes work."""
    return int(part_ns * lanes * batch * (AHEAD - 1))


def fitting_batch(size: int, part_ns: float, deadline_ns: int, unpaced: int, lanes: int = 1) -> int:
    """The largest batch, at most `size` and at least 1, with which no part waits for more than half its deadline.

    Args:
        size: the batch that pays best, or what the configuration asks for.
        part_ns: time for one part while all lanes work on full batches, measured on the goldens.
        deadline_ns: of a part.
        unpaced: cameras with fps 0: each has a batch under way beside those at work.
        lanes: batches judged at once.
    """
    under_way = (lanes + 1) * max(1, unpaced) + lanes
    return max(1, min(size, int(deadline_ns / 2 / (max(part_ns, 1.0) * under_way))))


@dataclass(frozen=True)
class Trial:
    """Judge so many batches of this size at once, and see how long that takes."""

    size: int
    lanes: int


class Trials:
    """What an engine is asked at self-test, and the batch size and lanes that follow. Pure but for what it remembers.

    Each candidate is timed ROUNDS times, in turns; its least time counts, since whatever else the machine does can
    only lengthen it. First sizes with one lane; then lanes, doubled as long as that pays.

    Attributes:
        size, lanes: the best so far; after the last trial, the answer.
        part_ns: time for one part with both.
    """

    def __init__(self, size: int, lanes: int, budget_ns: int) -> None:
        """At most `size` parts a batch and `lanes` batches at once.

        `budget_ns`: once so much is spent on sizes, or on one number of lanes, no further trial of it begins.
        """
        sizes = sorted({*(2**k for k in range(size.bit_length())), size})
        self._todo = [Trial(each, 1) for each in sizes] * ROUNDS
        self._least: dict[Trial, float] = {}
        self._most, self._budget, self._left = lanes, budget_ns, budget_ns
        self.size, self.lanes, self.part_ns = size, 1, 0.0

    @property
    def next(self) -> Trial | None:
        """What to time now; None at the end."""
        return self._todo[0] if self._todo else None

    def took(self, elapsed_ns: int) -> None:
        """The trial `next` took so long, from the start of its first batch to the end of its last."""
        trial = self._todo.pop(0)
        part_ns = elapsed_ns / (trial.size * trial.lanes)
        self._least[trial] = min(part_ns, self._least.get(trial, part_ns))
        self._left -= elapsed_ns
        if self._todo and self._left > 0:
            return
        self._todo = []
        if trial.lanes == 1:
            best = _least_that_pays([t for t in self._least if t.lanes == 1], self._least, BATCH_GAIN)
            self.size, self.part_ns = best.size, self._least[best]
        elif self._least[trial] < self.part_ns * (1 - LANE_GAIN):
            self.lanes, self.part_ns = trial.lanes, self._least[trial]
        else:
            return
        if self.lanes < self._most:
            self._left = self._budget
            self._todo = [Trial(self.size, min(2 * self.lanes, self._most))] * ROUNDS


def _least_that_pays(trials: Sequence[Trial], least: dict[Trial, float], gain: float) -> Trial:
    """The smallest batch that takes hardly longer per part than the best."""
    cost = {trial: least[trial] + BATCH_NS / trial.size for trial in trials}
    best = min(cost.values())
    return min((t for t in trials if cost[t] * (1 - gain) <= best), key=lambda trial: trial.size)
