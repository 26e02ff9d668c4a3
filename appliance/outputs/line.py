"""An output with a device behind it: a thread of its own talks to the device, the supervisor never waits for it.

A device that hangs holds up this thread alone. What it had in hand is then given up, and the output is faulty for good:
a write that comes to life later is refused by the device, since its PASS carries epoch and deadline.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from appliance.judge import PassToken
from appliance.outputs.protocol import Device, LinkLostError, OutputError, OutputState
from appliance.workers import RestartLimit

T = TypeVar("T")
BACK_OFF_S = (0.1, 0.3, 1.0, 3.0)
GOODBYE_S = 0.3
STEP_NS = 500_000_000
"""Between two looks at the device at most so much counts as time in which it did not answer: after a longer pause the
whole machine, or this process, stood still and its answer may lie there unread."""

QUEUE = 256
"""PASSes that may wait for the device; what does not fit is refused."""


class LineOutput:
    """See Output. The thread starts with the first heartbeat."""

    def __init__(self, device: Device, timeout_ns: int, what: str) -> None:
        """`timeout_ns`: a call of the device that takes longer means that it hangs. `what`: the device, for people."""
        self._device, self._timeout_ns, self._what = device, timeout_ns, what
        self.passed = 0
        self.refused = 0
        self._lock = threading.Condition()
        self._tokens: deque[PassToken] = deque()
        self._working: PassToken | None = None
        self._settled: list[tuple[int, bool]] = []
        self._last_seq = 0
        self._beats, self._beaten, self._ready = 0, 0, False
        self._busy_ns: int | None = None
        self._watched_ns: int | None = None
        self._looked_ns = self._unanswered_ns = 0
        self._connected = self._closing = False
        self._fault, self._trouble = "", "not connected yet"
        self._losses = RestartLimit()
        self._thread = threading.Thread(target=self._run, name="output", daemon=True)

    def release(self, tokens: Sequence[PassToken], now_ns: int) -> None:
        """See Output.release. Without a connection nothing waits for one: a PASS is for a part that is here now."""
        with self._lock:
            for token in tokens:
                fresh = token.seq > self._last_seq and now_ns < token.deadline_ns
                self._last_seq = max(self._last_seq, token.seq)
                if fresh and self._connected and not self._fault and len(self._tokens) < QUEUE:
                    self._tokens.append(token)
                else:
                    self._settle(token, False)
            self._lock.notify()

    def settled(self) -> Sequence[tuple[int, bool]]:
        """See Output.settled."""
        with self._lock:
            settled, self._settled = self._settled, []
        return settled

    def beat(self, ready: bool, now_ns: int) -> OutputState:
        """See Output.beat."""
        if self._thread.ident is None:
            self._thread.start()
        with self._lock:
            self._beats += 1
            self._ready = ready
            if self._hangs(now_ns):
                self._break(f"did not answer within {self._timeout_ns / 1e6:.0f} ms")
            self._lock.notify()
            if self._fault:
                return OutputState(fault=self._fault)
            return OutputState(hold="" if self._connected else f"{self._what}: {self._trouble}")

    def close(self) -> None:
        """See Output.close."""
        with self._lock:
            self._closing, self._ready = True, False
            self._lock.notify()
        if self._thread.ident is not None:
            self._thread.join(GOODBYE_S)
        with self._lock:
            self._give_up()

    def _hangs(self, now_ns: int) -> bool:
        """Whether the device has had its time for the call it is at; time in which nobody could look does not count."""
        busy_ns, looked_ns, self._looked_ns = self._busy_ns, self._looked_ns, now_ns
        if busy_ns is None or busy_ns != self._watched_ns:
            self._watched_ns, self._unanswered_ns = busy_ns, 0
        if busy_ns is None:
            return False
        self._unanswered_ns += min(now_ns - max(busy_ns, looked_ns), STEP_NS)
        return self._unanswered_ns >= self._timeout_ns

    def _run(self) -> None:
        """The thread: connect, talk until the connection is lost, connect again; end with a fault or at close."""
        tries = 0
        while not self._ended():
            try:
                self._call(self._device.open)
                tries = 0
                with self._lock:
                    self._connected, self._trouble = True, ""
                self._talk()
            except (LinkLostError, OSError) as error:
                if isinstance(error, TimeoutError) and self._connected:
                    with self._lock:
                        self._break(f"did not answer in time: {error}")
                else:
                    self._lost(str(error))
            except OutputError as error:
                with self._lock:
                    self._break(str(error))
                self._say_not_ready()
            except Exception as error:  # the top of a worker: a device's driver may raise anything
                with self._lock:
                    self._break(f"{type(error).__name__}: {error}")
            self._device.close()
            with self._lock:
                if not self._closing and not self._fault:
                    self._lock.wait_for(self._ended, BACK_OFF_S[min(tries, len(BACK_OFF_S) - 1)])
            tries += 1

    def _talk(self) -> None:
        """Heartbeats and PASSes, until told to close; the last heartbeat says not ready."""
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._tokens or self._beats > self._beaten or self._ended())
                if self._fault:
                    return
                token = self._tokens.popleft() if self._tokens else None
                self._working = token
                beats, ready, closing = self._beats, self._ready, self._closing and token is None
            if token is not None:
                self._pass(token)
            elif closing:
                self._call(partial(self._device.beat, beats + 1, False))
                return
            else:
                self._beaten = beats
                self._call(partial(self._device.beat, beats, ready))

    def _pass(self, token: PassToken) -> None:
        good = time.monotonic_ns() < token.deadline_ns and self._call(partial(self._device.let_pass, token))
        with self._lock:
            if self._working is token:  # else it was given up meanwhile, and is settled
                self._working = None
                self._settle(token, bool(good))

    def _say_not_ready(self) -> None:
        """A last word to a device that answers, but wrongly; the heartbeat that fails would say it too, only later."""
        with contextlib.suppress(LinkLostError, OutputError, OSError):
            self._call(partial(self._device.beat, self._beaten + 1, False))

    def _call(self, what: Callable[[], T]) -> T:
        """One call of the device, watched by `beat`."""
        self._busy_ns = time.monotonic_ns()
        try:
            return what()
        finally:
            self._busy_ns = None

    def _ended(self) -> bool:
        return self._closing or bool(self._fault)

    def _settle(self, token: PassToken, good: bool) -> None:
        self.passed += good
        self.refused += not good
        self._settled.append((token.seq, good))

    def _lost(self, why: str) -> None:
        with self._lock:
            was, self._connected, self._trouble = self._connected, False, why
            self._give_up()
            if was and not self._losses.allows(time.monotonic_ns()):
                self._break(f"the connection was lost too often; last: {why}")

    def _break(self, why: str) -> None:
        """Latch a fault; the first one stays."""
        self._connected = False
        self._fault = self._fault or f"{self._what}: {why}"
        self._give_up()
        self._lock.notify()

    def _give_up(self) -> None:
        """No token in hand will pass; one that the device has already taken may, and is recorded as unconfirmed."""
        given, self._working = ([self._working] if self._working else []) + list(self._tokens), None
        self._tokens.clear()
        for token in given:
            self._settle(token, False)
