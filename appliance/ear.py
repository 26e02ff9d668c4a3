"""How a camera process listens: to its supervisor and its triggers at once, telling meanwhile that it lives."""

from __future__ import annotations

import time

import zmq

from appliance.sources import Source
from appliance.sources.triggers import TriggerQueue
from appliance.wire import ALIVE, pack_json

ALIVE_MS = 500
"""A live camera's process says so often that it is not stuck in its driver."""


class Ear:
    """Waits on the supervisor's channel, and on a queue of triggers where there is one."""

    def __init__(self, channel: zmq.Socket[bytes], source: Source, triggers: TriggerQueue | None) -> None:
        self._channel, self._source = channel, source
        self._alive_ns = 0
        self._poller = zmq.Poller()
        self._poller.register(channel, zmq.POLLIN)
        if triggers is not None:
            self._poller.register(triggers.fileno(), zmq.POLLIN)

    def wait(self, timeout_ms: int | None) -> bool:
        """Whether something has come; waits at most so long. A live camera goes on telling that it lives meanwhile."""
        if not self._source.live:
            return bool(self._poller.poll(timeout_ms))
        until = None if timeout_ms is None else time.monotonic_ns() + timeout_ms * 1_000_000
        while True:
            left = ALIVE_MS if until is None else -(-(until - time.monotonic_ns()) // 1_000_000)
            if self._poller.poll(max(0, min(left, ALIVE_MS))):
                return True
            if left <= ALIVE_MS and until is not None:
                return False
            self.say_alive()

    def say_alive(self) -> None:
        """Tell that this process lives, now and then; nothing where its driver hangs, so that it is killed."""
        now = time.monotonic_ns()
        if self._source.live and now >= self._alive_ns and not getattr(self._source, "hangs", False):
            self._alive_ns = now + ALIVE_MS * 1_000_000
            self._channel.send(pack_json(ALIVE, getattr(self._source, "trouble", "")))
