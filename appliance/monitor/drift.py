"""Drift: does the last window of parts look like the parts that the bundle was made on, or like the accepted ones?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from appliance.messages import Drift
from calibration.histogram import kl, null_quantile, smoothed

LEAST = 20
"""Different parts that a comparison needs; fewer say nothing."""


class DriftMonitor:
    """Compares histograms of one quantity, window by window, with a reference.

    Windows follow one another without overlap, so `false_alarm` is the probability of an alarm in each of them when
    nothing drifts. Within a window each different part counts once: a replay that loops over few files shows the same
    parts again, which say nothing new, and counted twice would look like drift.

    Attributes:
        last: the last comparison.
        bins: of the histograms.
        whole: counts of the last window that was compared; () before the first.
    """

    def __init__(self, baseline: Sequence[int], window: int, false_alarm: float, what: Drift | None = None) -> None:
        """`baseline` counts per bin; `window` parts per comparison; `what` is watched, for `last`."""
        self._window, self._false_alarm = window, false_alarm
        self.bins = len(baseline)
        self._counts = np.zeros(self.bins, np.int64)
        self._parts = 0
        self._seen: set[int] = set()
        self._refer(baseline)
        self.last = what or Drift()
        self.whole: tuple[int, ...] = ()

    def prepare(self) -> None:
        """Simulate the limit of a full window now: a fraction of a second, so not for the middle of parts."""
        limit = self._limit(self._window, max(2000, math.ceil(5 / self._false_alarm)))
        self.last = self.last.model_copy(update={"limit": limit})

    def accept(self, counts: Sequence[int]) -> None:
        """From the next comparison on, `counts` of parts on the line are the reference."""
        self._refer(counts)
        self.last = Drift(quantity=self.last.quantity, camera=self.last.camera, reference="line")

    def add(self, bin_: int, content: int) -> Drift | None:
        """Count one part; `content` is a checksum that tells parts apart.

        Returns:
            The comparison when the part completes a window with at least LEAST different parts, else None.
        """
        self._parts += 1
        if content not in self._seen:
            self._seen.add(content)
            self._counts[bin_] += 1
        if self._parts < self._window:
            return None
        return self._compare()

    def _compare(self) -> Drift | None:
        counts, different = self._counts, len(self._seen)
        self._counts = np.zeros(self.bins, np.int64)
        self._seen.clear()
        self._parts = 0
        if different < LEAST:
            return None
        self.whole = tuple(counts.tolist())
        divergence, limit = kl(smoothed(counts), self._reference), self._limit(different, 2000)
        found = {
            "parts": different,
            "kl": divergence,
            "limit": limit,
            "shift": _mean(counts) - _mean(self._baseline),
            "drifting": divergence > limit,
        }
        self.last = self.last.model_copy(update=found)
        return self.last

    def _refer(self, counts: Sequence[int]) -> None:
        self._baseline = tuple(counts)
        self._reference = smoothed(counts)
        self._limits: dict[int, float] = {}

    def _limit(self, parts: int, draws: int) -> float:
        if parts not in self._limits:
            level = 1 - self._false_alarm
            self._limits[parts] = null_quantile(self._baseline, parts, level, draws=min(draws, 20_000))
        return self._limits[parts]


def _mean(counts: Sequence[int] | np.ndarray[tuple[int], np.dtype[np.int64]]) -> float:
    """Of a quantity that goes from 0 to 1, from its histogram."""
    return float(np.average((np.arange(len(counts)) + 0.5) / len(counts), weights=counts))
