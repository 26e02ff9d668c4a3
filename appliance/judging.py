"""The engine process: takes tensors from shared memory, checks that they are whole, gives back logits.

It knows nothing of parts, thresholds or verdicts; what it says is checked against goldens by the supervisor. Batches
are judged by lanes: threads of this one process that share one engine. Each takes the next batch as soon as it
has none, so that as many batches are judged at once as the supervisor sends.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import zmq

from appliance.engines.protocol import Engine, load_engine
from appliance.memory import give_back
from appliance.ring import Ring, checksum
from appliance.wire import (
    BATCH,
    HELLO,
    LOAD,
    READY,
    STOP,
    TRIM,
    ScoreNote,
    WireError,
    pack_json,
    unpack_batch,
    unpack_trim,
)

_SCORED = "inproc://scored"
HELD = 2
"""Scores of so many batches are sent together while each lane has another batch waiting: the supervisor rests then, and
each message wakes three threads."""

JOIN_S = 5.0
"""A lane may finish its batch for so long when the process is told to stop; the supervisor kills it long before."""

Channel = zmq.Socket[bytes]


def run_engine(settings: dict[str, Any], channel: Channel) -> None:
    """Load the model that the supervisor sends, then judge batches until told to stop."""
    ring = Ring(settings["ring"], settings["slots"], tuple(settings["shape"]), settings["first"])
    channel.send(pack_json(HELLO, 0))
    message = channel.recv()
    if message[:1] != LOAD:
        raise WireError(f"expected a model, got {message[:1]!r}")
    count = settings["lanes"]
    engine = load_engine(settings["engine"], message[1:], count, settings["batch"], settings["alone"])
    del message
    give_back()
    scored = channel.context.socket(zmq.PULL)
    scored.bind(_SCORED)
    work: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def trim(size: int) -> None:
        engine.trim(np.zeros((1, *ring.shape), np.uint8), size)
        give_back()

    lanes = [Lane(index, count, engine, ring, settings["batch"], work, channel.context) for index in range(count)]
    try:
        channel.send(pack_json(READY, engine.name))
        _serve(channel, scored, work, lanes, trim)
    finally:
        for _ in lanes:
            work.put(STOP)
        for lane in lanes:
            lane.join(JOIN_S)
        scored.close(linger=0)


def _serve(
    channel: Channel,
    scored: Channel,
    work: queue.SimpleQueue[bytes],
    lanes: list[Lane],
    trim: Callable[[int], None],
) -> None:
    """Hand batches on to the lanes and their scores back, until told to stop. Raises what a lane has raised."""
    poller = zmq.Poller()
    poller.register(channel, zmq.POLLIN)
    poller.register(scored, zmq.POLLIN)
    while True:
        ready = dict(poller.poll())
        if scored in ready:
            notes = scored.recv_multipart()
            if notes == [b""]:
                raise next(lane.failure for lane in lanes if lane.failure is not None)
            channel.send_multipart(notes)
        if channel in ready:
            message = channel.recv()
            if message[:1] == STOP:
                return
            if message[:1] == TRIM:
                trim(unpack_trim(message))
                continue
            if message[:1] != BATCH:
                raise WireError(f"expected a batch, got {message[:1]!r}")
            work.put(message)


class Lane(threading.Thread):
    """One thread that judges batches, one after the other.

    Attributes:
        failure: what it ended with, after it has sent an empty message; None in good health.
    """

    def __init__(
        self,
        index: int,
        lanes: int,
        engine: Engine,
        ring: Ring,
        size: int,
        work: queue.SimpleQueue[bytes],
        context: zmq.Context[Channel],
    ) -> None:
        """Start it, one of so many `lanes` that take batches of up to `size` from the same `work`."""
        super().__init__(name=f"lane-{index}", daemon=True)
        self._index, self._lanes, self._engine, self._ring, self._work = index, lanes, engine, ring, work
        # One buffer for all its batches: the tensors are copied once, and checked in the copy that is judged.
        self._buffer = np.empty((size, *ring.shape), np.uint8)
        self._held: list[bytes] = []
        self._scored = context.socket(zmq.PUSH)
        self._scored.connect(_SCORED)
        self.failure: Exception | None = None
        self.start()

    def run(self) -> None:
        """Until a STOP, or the first failure."""
        try:
            while (message := self._next()) != STOP:
                self._held.append(self._judge(message))
                if len(self._held) == HELD or self._work.qsize() < self._lanes:
                    self._send()
        except Exception as error:  # the top of a worker: raised again by the main thread
            self._send()
            self.failure = error
            self._scored.send(b"")
        finally:
            self._send()
            self._scored.close(linger=1000)

    def _next(self) -> bytes:
        """The next batch, or STOP; nothing is held while there is none."""
        try:
            return self._work.get_nowait()
        except queue.Empty:
            self._send()
            return self._work.get()

    def _send(self) -> None:
        if self._held:
            self._scored.send_multipart(self._held)
            self._held = []

    def _judge(self, message: bytes) -> bytes:
        number, slots, crcs = unpack_batch(message)
        buffer = self._buffer[: len(slots)]
        whole = np.empty(len(slots), np.bool_)
        for position, (slot, crc) in enumerate(zip(slots, crcs, strict=True)):
            np.copyto(buffer[position], self._ring.slot(slot))
            whole[position] = checksum(buffer[position]) == crc
        started = time.monotonic_ns()
        logits = self._engine.infer(buffer, self._index)
        return ScoreNote(number, started, time.monotonic_ns(), whole, logits).pack()
