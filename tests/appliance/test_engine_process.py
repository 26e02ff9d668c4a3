"""The engine, and the process around it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import zmq

from appliance.engines.onnx_cpu import OnnxCpuEngine
from appliance.engines.protocol import EngineError, load_engine
from appliance.judging import run_engine
from appliance.ring import Ring, checksum
from appliance.wire import LOAD, READY, STOP, TRIM, ScoreNote, WireError, pack_batch
from tests.support.fixtures import Context
from tests.support.tiny import logits_of, part, tiny_model, tiny_spec


def test_the_engine_gives_the_models_logits() -> None:
    """Same logits as the model run plainly, alone or in a batch."""
    frames = np.stack([tiny_spec().apply(part(i, i % 2 == 1)) for i in range(6)])
    engine = load_engine({"kind": "onnxruntime"}, tiny_model())
    assert "CPU" in engine.name
    expected = logits_of(tiny_model(), frames)
    assert (engine.infer(frames) == expected).all()
    assert (engine.infer(frames[2:3]) == expected[2:3]).all()


def test_a_bad_model_and_a_bad_batch_are_engine_errors() -> None:
    """Whatever the library raises, the caller sees EngineError."""
    with pytest.raises(EngineError, match="refuses the model"):
        OnnxCpuEngine(b"no model")
    with pytest.raises(EngineError, match="failed"):
        OnnxCpuEngine(tiny_model()).infer(np.zeros((1, 3, 5, 5), np.uint8))
    with pytest.raises(EngineError, match="unknown"):
        load_engine({"kind": "abacus"}, b"")


def engine_thread(ring: Ring, channel: zmq.Socket[bytes]) -> tuple[threading.Thread, list[BaseException]]:
    """The engine process's loop in a thread, with what it raised."""
    failures: list[BaseException] = []
    settings = {
        "ring": ring.descriptor,
        "slots": ring.slots,
        "first": ring.first,
        "shape": list(ring.shape),
        "batch": 4,
        "lanes": 2,
        "engine": {"kind": "onnxruntime"},
    }

    def run() -> None:
        try:
            run_engine(settings, channel)
        except WireError as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, failures


def test_the_engine_process_says_which_tensors_are_torn(context: Context) -> None:
    """A slot that does not have the announced checksum is marked, its mates are judged; also after it was trimmed."""
    ring = Ring.create(3, tiny_spec().shape)
    for index in range(3):
        tiny_spec().apply(part(index, False), out=ring.slot(index))
    here, there = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    here.bind("inproc://engine")
    there.connect("inproc://engine")
    thread, failures = engine_thread(ring, there)
    here.recv()
    here.send(LOAD + tiny_model())
    assert here.recv()[:1] == READY
    crcs = [checksum(ring.slot(index)) for index in (2, 0, 1)]
    ring.slot(0)[0, 3, 3] ^= 1
    here.send(pack_batch(9, [2, 0, 1], crcs))
    scores = ScoreNote.unpack(here.recv(), 2)
    assert scores.number == 9
    assert scores.whole.tolist() == [True, False, True]
    assert (scores.logits[2] == logits_of(tiny_model(), ring.slot(1)[None])[0]).all()
    here.send(TRIM)
    here.send(pack_batch(10, [2], crcs[:1]))
    again = ScoreNote.unpack(here.recv(), 2)
    assert again.number == 10
    assert (again.logits == scores.logits[:1]).all()
    here.send(STOP)
    thread.join(5)
    assert not thread.is_alive()
    thread, failures = engine_thread(ring, there)
    here.recv()
    here.send(b"?")
    thread.join(5)
    assert "expected a model" in str(failures[0])
