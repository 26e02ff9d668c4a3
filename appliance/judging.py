"""The engine process: takes tensors from shared memory, checks that they are whole, gives back logits.

It knows nothing of parts, thresholds or verdicts; what it says is checked against goldens by the supervisor.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import zmq

from appliance.engines.protocol import load_engine
from appliance.ring import Ring, checksum
from appliance.wire import BATCH, HELLO, LOAD, READY, STOP, ScoreNote, WireError, pack_json, unpack_batch


def run_engine(settings: dict[str, Any], channel: zmq.Socket[bytes]) -> None:
    """Load the model that the supervisor sends, then judge batches until told to stop."""
    ring = Ring(settings["ring"], settings["slots"], tuple(settings["shape"]))
    channel.send(pack_json(HELLO, 0))
    message = channel.recv()
    if message[:1] != LOAD:
        raise WireError(f"expected a model, got {message[:1]!r}")
    engine = load_engine(settings["engine"], message[1:])
    channel.send(pack_json(READY, engine.name))
    # One buffer for all batches: the tensors are copied once, and checked in the copy that is judged.
    buffer = np.empty((settings["batch"], *ring.shape), np.uint8)
    while (message := channel.recv())[:1] != STOP:
        if message[:1] != BATCH:
            raise WireError(f"expected a batch, got {message[:1]!r}")
        number, slots, crcs = unpack_batch(message)
        whole = np.empty(len(slots), np.bool_)
        for position, (slot, crc) in enumerate(zip(slots, crcs, strict=True)):
            np.copyto(buffer[position], ring.slot(slot))
            whole[position] = checksum(buffer[position]) == crc
        started = time.monotonic_ns()
        logits = engine.infer(buffer[: len(slots)])
        channel.send(ScoreNote(number, started, time.monotonic_ns(), whole, logits).pack())
