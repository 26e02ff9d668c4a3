"""Where a PASS goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from appliance.judge import PassToken


class Output(Protocol):
    """Something that lets parts pass. Not being called is a reject: there is no call that says so."""

    def release(self, tokens: Sequence[PassToken], now_ns: int) -> None:
        """Let these parts pass. Their rows are durable; a token that expired or was used before must be refused."""


class TallyOutput:
    """Counts what would have passed: the output of a station without a line.

    Attributes:
        passed: tokens accepted. refused: tokens that came late or twice.
    """

    def __init__(self) -> None:
        self.passed = 0
        self.refused = 0
        self._last_seq = 0

    def release(self, tokens: Sequence[PassToken], now_ns: int) -> None:
        """See Output.release. Rows become durable in order, so a number that does not grow was used before."""
        for token in tokens:
            if token.seq > self._last_seq and now_ns < token.deadline_ns:
                self._last_seq = token.seq
                self.passed += 1
            else:
                self.refused += 1
