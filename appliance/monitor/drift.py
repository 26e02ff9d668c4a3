"""Drift of the predictions: does the last window of parts look like the parts the bundle was calibrated on?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from appliance.messages import Drift
from calibration.histogram import kl, null_quantile, smoothed


class DriftMonitor:
    """Compares histograms of the defect probability, window by window, with the bundle's baseline.

    Windows follow one another without overlap and hold different parts only, so `false_alarm` is the probability of
    an alarm in each of them when nothing drifts. A replay that loops over few files shows the same parts again: they
    say nothing new, and counted twice they would look like drift.

    Attributes:
        last: the last comparison.
        bins: of the histograms.
    """

    def __init__(self, baseline: Sequence[int], window: int, false_alarm: float) -> None:
        """`baseline` counts per bin; `window` parts per comparison."""
        self._baseline, self._false_alarm = tuple(baseline), false_alarm
        self._limit: float | None = None
        self._reference = smoothed(baseline)
        self._window = window
        self.bins = len(baseline)
        self._counts = np.zeros(len(baseline), np.int64)
        self._parts = 0
        self._seen: set[int] = set()
        self.last = Drift()

    def prepare(self) -> float:
        """The limit, simulated at the first call; a fraction of a second, so not for the middle of parts."""
        if self._limit is None:
            draws = min(max(2000, math.ceil(5 / self._false_alarm)), 20_000)
            self._limit = null_quantile(self._baseline, self._window, 1 - self._false_alarm, draws=draws)
            self.last = Drift(limit=self._limit)
        return self._limit

    def add(self, bin_: int, content: int) -> Drift | None:
        """Count one judged part, unless its `content` (a checksum) is in this window already.

        Returns:
            The comparison when the part completes a window, else None.
        """
        if content in self._seen:
            return None
        self._seen.add(content)
        self._counts[bin_] += 1
        self._parts += 1
        if self._parts < self._window:
            return None
        limit = self.prepare()
        divergence = kl(smoothed(self._counts), self._reference)
        self.last = Drift(parts=self._parts, kl=divergence, limit=limit, drifting=divergence > limit)
        self._counts[:] = 0
        self._seen.clear()
        self._parts = 0
        return self.last
