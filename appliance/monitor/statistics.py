"""Rate and latency of the last parts."""

from __future__ import annotations

from collections import deque

from appliance.messages import Latency

WINDOW_NS = 10 * 10**9
KEPT = 1000


class Statistics:
    """Counts verdicts as they become final."""

    def __init__(self) -> None:
        self._latency_ns: deque[int] = deque(maxlen=KEPT)
        self._groups: deque[tuple[int, int]] = deque()
        self._recent = 0
        self._first_ns: int | None = None

    def add(self, latencies_ns: list[int], now_ns: int) -> None:
        """Verdicts that became final together at `now_ns`, with their times since the trigger."""
        self._first_ns = now_ns if self._first_ns is None else self._first_ns
        self._latency_ns.extend(latencies_ns)
        self._groups.append((now_ns, len(latencies_ns)))
        self._recent += len(latencies_ns)
        self._forget(now_ns)

    def rate(self, now_ns: int) -> float:
        """Verdicts per second over the last ten seconds, or since the first verdict where that is less long ago."""
        self._forget(now_ns)
        if self._first_ns is None:
            return 0.0
        seconds = min(WINDOW_NS, max(now_ns - self._first_ns, 10**9)) / 1e9
        return self._recent / seconds

    def latency(self) -> Latency:
        """Of the last thousand verdicts."""
        if not self._latency_ns:
            return Latency()
        ordered = sorted(self._latency_ns)
        last = len(ordered) - 1
        milliseconds = [ordered[round(share * last)] / 1e6 for share in (0.5, 0.99, 1.0)]
        return Latency(p50=milliseconds[0], p99=milliseconds[1], worst=milliseconds[2])

    def _forget(self, now_ns: int) -> None:
        while self._groups and self._groups[0][0] < now_ns - WINDOW_NS:
            self._recent -= self._groups.popleft()[1]
