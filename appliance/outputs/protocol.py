"""What the supervisor needs to know of the place that a PASS goes to, and what that needs to know of its device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from appliance.judge import PassToken


class OutputError(RuntimeError):
    """The device took a PASS wrongly, not in time, or says something else than it was told: a FAULT."""


class LinkLostError(ConnectionError):
    """The device closed or refused the connection. Nothing passes until it is back, under a new epoch."""


class OutputState(NamedTuple):
    """How an output is. `fault`: latched, with its reason. `hold`: nothing can pass for now, with its reason."""

    fault: str = ""
    hold: str = ""


class Output(Protocol):
    """Something that lets parts pass. Not being called is a reject: there is no call that says so. No call ever waits.

    Attributes:
        passed: tokens whose PASS the device has confirmed. refused: tokens that came late, twice, or did not arrive.
    """

    passed: int
    refused: int

    def release(self, tokens: Sequence[PassToken], now_ns: int) -> None:
        """Let these parts pass. Their rows are durable; a token that expired or was used before must be refused."""

    def settled(self) -> Sequence[tuple[int, bool]]:
        """What became of tokens since the last call: (seq, whether its PASS was confirmed), once for each token."""

    def beat(self, ready: bool, now_ns: int) -> OutputState:
        """The supervisor's main loop is alive, and `ready` unless it is in FAULT. Called a few times a second; the
        heartbeat that the device sees is made of these calls alone."""

    def close(self) -> None:
        """Say goodbye and give everything back, within a moment."""


class Device(Protocol):
    """What stands behind an output: blocking calls, all from one thread, each with its own time-out.

    All raise LinkLostError or OutputError.
    """

    def open(self) -> None:
        """Connect and begin a new epoch: what was said in earlier ones counts no more."""

    def beat(self, count: int, ready: bool) -> None:
        """Heartbeat number `count`, read back."""

    def let_pass(self, token: PassToken) -> bool:
        """Let one part pass and read back that it was understood; False where the device refused it."""

    def close(self) -> None:
        """Drop the connection; may be called at any time, and more than once."""
