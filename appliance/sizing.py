"""How many parts are judged together, and how many may be under way, given how fast this machine judges. Pure."""

from __future__ import annotations

from dataclasses import dataclass

ROUNDS = 7
BATCH_GAIN = 0.005
"""Each time that a larger batch holds the smaller one's parts again it has to save this share of the time per part: a
doubled one once, one four times as large thrice. It takes as much more memory, and makes parts wait."""

BATCH_NS = 800_000
"""What a batch of any size costs beside its inference: messages, judging, waking threads. Four times the difference in
CPU time per part between daemons with batches of 2 and of 4, which were six pairs on two cores: 0.06 to 0.64 ms, 0.16
in the median and 0.25 in the mean. It is no time of the engine, but takes the same cores."""

LANE_GAIN = 0.1
"""One more step of lanes has to save this share: each takes memory, and a core from others."""

AHEAD = 6
"""Batches that an engine is sent for each lane beyond the one that it works on, as far as parts are waiting: so no lane
waits while the loop rests, or for a disk."""

WINDOW_BYTES = 12 * 2**20
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

    A larger batch is timed in turns with as many of the best so far as hold its parts, ROUNDS times each; the least
    time counts, since whatever else the machine does can only lengthen it, and in equal times it is met equally
    often: a smaller batch alone would slip through between two disturbances. What is asked for the first time is
    asked once more, and its time neither counts nor is spent: then an engine takes memory and makes its kernels.
    Sizes grow as long as that pays, so that a model of slow parts is not asked for batches whose memory it would not
    earn. Then lanes are doubled as long as that pays. Lanes that seem not to are timed again until twice the budget
    is spent: something else may have their cores for a while, and a station keeps for weeks what is chosen here.

    Attributes:
        size, lanes: the best so far; after the last trial, the answer.
        part_ns: time for one part with both.
    """

    def __init__(self, size: int, lanes: int, budget_ns: int, growth: int = 2) -> None:
        """At most `size` parts a batch and `lanes` batches at once.

        Args:
            budget_ns: once so much is spent on a comparison, no further trial of it begins.
            growth: how many times as large the next size is.
        """
        self._growth = growth
        self._largest, self._most, self._budget = size, lanes, budget_ns
        self._least: dict[Trial, float] = {}
        self._seen: set[Trial] = set()
        self.size, self.lanes, self.part_ns = 1, 1, 0.0
        self._left, self._todo = budget_ns, self._sizes()
        self._row: list[int] = []

    @property
    def next(self) -> Trial | None:
        """What to time now; None at the end."""
        return self._todo[0][0] if self._todo else None

    def took(self, elapsed_ns: int) -> None:
        """The trial `next` took so long, from the start of its first batch to the end of its last."""
        trial, times = self._todo[0]
        if trial not in self._seen:
            self._seen.add(trial)
            return
        self._row.append(elapsed_ns)
        self._left -= elapsed_ns
        whole = len(self._row) == times
        if not whole and self._left > 0:
            return
        self._todo.pop(0)
        if whole or trial not in self._least:
            part_ns = sum(self._row) / (len(self._row) * trial.size * trial.lanes)
            self._least[trial] = min(part_ns, self._least.get(trial, part_ns))
        self._row.clear()
        if self._todo and self._left > 0:
            return
        best, tried = Trial(self.size, self.lanes), max(self._least, key=lambda each: (each.lanes, each.size))
        paid = tried != best and self._pays(tried, best)
        if tried.lanes > best.lanes and not paid and self._left > -self._budget:
            self._todo = [(tried, 1)]
            return
        if paid:
            self.size, self.lanes = tried.size, tried.lanes
        self.part_ns = self._least[Trial(self.size, self.lanes)]
        self._left = self._budget
        if tried.lanes == 1:
            self._todo = (self._sizes() if paid else []) or self._more_lanes()
        else:
            self._todo = self._more_lanes() if paid else []

    def _pays(self, tried: Trial, best: Trial) -> bool:
        if tried.lanes > best.lanes:
            return self._least[tried] < self._least[best] * (1 - LANE_GAIN)
        cost = {trial: self._least[trial] + BATCH_NS / trial.size for trial in (tried, best)}
        return cost[tried] < cost[best] * (1 - BATCH_GAIN * (tried.size / best.size - 1))

    def _sizes(self) -> list[tuple[Trial, int]]:
        """The next comparison of sizes: what to time, and how often in a row. None after the largest, which is timed
        alone where it is the only one."""
        larger = min(self._growth * self.size, self._largest)
        if larger > self.size:
            self._least.clear()  # what was timed before met another state of the machine
            return [(Trial(self.size, 1), -(-larger // self.size)), (Trial(larger, 1), 1)] * ROUNDS
        return [] if self._least else [(Trial(self.size, 1), 1)] * ROUNDS

    def _more_lanes(self) -> list[tuple[Trial, int]]:
        return [(Trial(self.size, min(2 * self.lanes, self._most)), 1)] * ROUNDS if self.lanes < self._most else []
