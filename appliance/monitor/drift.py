"""Drift of the predictions: does the last window of parts look like the parts the bundle was calibrated on?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from appliance.messages import Drift
from calibration.histogram import kl, null_quantile, smoothed

LEAST = 20
"""Different parts that a comparison needs; fewer say nothing."""


class DriftMonitor:
    """Compares histograms of the defect probability, window by window, with the bundle's baseline.

    Windows follow one another without overlap, so `false_alarm` is the probability of an alarm in each of them when
    nothing drifts. Within a window each different part counts once: a replay that loops over few files shows the same
    parts again, which say nothing new, and counted twice would look like drift.

    Attributes:
        last: the last comparison.
        bins: of the histograms.
    """

    def __init__(self, baseline: Sequence[int], window: int, false_alarm: float) -> None:
        """`baseline` counts per bin; `window` parts per comparison."""
        self._baseline, self._false_alarm = tuple(baseline), false_alarm
        self._reference = smoothed(baseline)
        self._window = window
        self.bins = len(baseline)
        self._limits: dict[int, float] = {}
        self._counts = np.zeros(len(baseline), np.int64)
        self._parts = 0
        self._seen: set[int] = set()
        self.last = Drift()

    def prepare(self) -> None:
        """Simulate the limit of a full window now: a fraction of a second, so not for the middle of parts."""
        self.last = Drift(limit=self._limit(self._window, max(2000, math.ceil(5 / self._false_alarm))))

    def add(self, bin_: int, content: int) -> Drift | None:
        """Count one judged part; `content` is a checksum that tells parts apart.

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
        different = len(self._seen)
        divergence = kl(smoothed(self._counts), self._reference)
        self._counts[:] = 0
        self._seen.clear()
        self._parts = 0
        if different < LEAST:
            return None
        limit = self._limit(different, 2000)
        self.last = Drift(parts=different, kl=divergence, limit=limit, drifting=divergence > limit)
        return self.last

    def _limit(self, parts: int, draws: int) -> float:
        if parts not in self._limits:
            level = 1 - self._false_alarm
            self._limits[parts] = null_quantile(self._baseline, parts, level, draws=min(draws, 20_000))
        return self._limits[parts]
