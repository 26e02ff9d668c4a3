"""The output of a station without a line."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.judge import PassToken
from appliance.outputs.protocol import OutputState


class TallyOutput:
    """Counts what would have passed. See Output."""

    def __init__(self) -> None:
        self.passed = 0
        self.refused = 0
        self._last_seq = 0
        self._settled: list[tuple[int, bool]] = []

    def release(self, tokens: Sequence[PassToken], now_ns: int) -> None:
        """See Output.release. Rows become durable in order, so a number that does not grow was used before."""
        for token in tokens:
            good = token.seq > self._last_seq and now_ns < token.deadline_ns
            if good:
                self._last_seq = token.seq
                self.passed += 1
            else:
                self.refused += 1
            self._settled.append((token.seq, good))

    def settled(self) -> Sequence[tuple[int, bool]]:
        """See Output.settled."""
        settled, self._settled = self._settled, []
        return settled

    def beat(self, ready: bool, now_ns: int) -> OutputState:
        """See Output.beat: nothing can go wrong here."""
        return OutputState()

    def close(self) -> None:
        """Nothing to give back."""
