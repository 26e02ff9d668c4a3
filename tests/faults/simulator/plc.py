"""The PLC: the production relay, which owns the time-out, and a witness that notes every PASS it took and when."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from appliance.outputs.relay import Answer, Order, Relay
from appliance.outputs.relay_server import RelayServer

BEAT_NS = 2_000_000_000
GATE_NS = 200_000_000
HANG_S = 8.0


class PlcOrder(Enum):
    """What the PLC does to the next PASS. DROP: the connection breaks before it arrives. HANG: no answer for long.
    REPEAT: the same PASS arrives twice."""

    NONE = 0
    DROP = 1
    HANG = 2
    REPEAT = 3


@dataclass(frozen=True)
class Accepted:
    """A PASS that the relay took. at_ns: monotonic."""

    camera: str
    tag: int
    at_ns: int


class Witness(Relay):
    """A relay that remembers.

    Attributes:
        accepted: in order. repeated: PASSes sent a second time. twice: how many of those it took again.
    """

    def __init__(self) -> None:
        super().__init__(BEAT_NS, GATE_NS)
        self.accepted: list[Accepted] = []
        self.repeated = self.twice = 0
        self.repeat = False

    def let_pass(self, order: Order, now_ns: int) -> Answer:
        """See Relay.let_pass."""
        answer = super().let_pass(order, now_ns)
        if answer is Answer.ACCEPTED:
            self.accepted.append(Accepted(order.camera, order.tag, now_ns))
            if self.repeat:
                self.repeat, self.repeated = False, self.repeated + 1
                self.twice += super().let_pass(order, now_ns) is Answer.ACCEPTED
        return answer


class _Server(RelayServer):
    order = PlcOrder.NONE
    done: Counter[PlcOrder]

    def answer(self, data: bytes) -> dict[str, Any]:
        """See RelayServer.answer; under orders, where it is a PASS."""
        if b'"pass"' in data:
            order, self.order = self.order, PlcOrder.NONE
            self.done[order] += 1
            if order is PlcOrder.DROP:
                raise ConnectionResetError("told to")
            if order is PlcOrder.HANG:
                time.sleep(HANG_S)
            self.relay.repeat = order is PlcOrder.REPEAT  # type: ignore[attr-defined]  it is a Witness
        return super().answer(data)


class Plc:
    """The PLC of one line, alive as long as the `with` block, whatever happens to the appliance.

    Attributes:
        relay: the witness.
    """

    def __init__(self, path: Path) -> None:
        """`path`: of the relay's socket."""
        self.relay = Witness()
        self._server = _Server(path, self.relay)
        self._server.done = Counter()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Plc:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def order(self, order: PlcOrder) -> None:
        """For the next PASS."""
        self._server.order = order

    def done(self, order: PlcOrder) -> int:
        """How often it was carried out; a repeated PASS counts where the first one was taken."""
        return self.relay.repeated if order is PlcOrder.REPEAT else self._server.done[order]

    def accepted(self) -> list[Accepted]:
        """Every PASS taken so far."""
        with self._server.lock:
            return list(self.relay.accepted)
