"""The engine, and the process around it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zmq

from appliance.channels import WorkerChannel
from appliance.engine_link import EngineLink, EnginePhase, Model
from appliance.engines.onnx_cpu import OnnxCpuEngine
from appliance.engines.protocol import EngineError, load_engine
from appliance.judging import Lane, run_engine
from appliance.ring import Ring, checksum
from appliance.wire import BATCH, LOAD, READY, STOP, TRIM, ScoreNote, WireError, pack_batch, pack_trim, unpack_batch
from deploy.bundle import open_bundle
from tests.support.fixtures import Context
from tests.support.tiny import logits_of, part, tiny_bundle, tiny_model, tiny_spec


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
        "alone": True,
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
    """A slot that does not have the announced checksum is marked, its mates are judged."""
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
    here.send(STOP)
    thread.join(5)
    assert not thread.is_alive()
    thread, failures = engine_thread(ring, there)
    here.recv()
    here.send(b"?")
    thread.join(5)
    assert "expected a model" in str(failures[0])


@pytest.mark.parametrize(("waiting", "together"), [(1, [[1]]), (5, [[1, 2], [3, 4], [5]])])
def test_scores_are_sent_in_pairs_while_batches_wait(context: Context, waiting: int, together: list[list[int]]) -> None:
    """A lane that has more to do sends two answers at once; the last one waits for nothing."""
    ring = Ring.create(1, tiny_spec().shape)
    crc = checksum(tiny_spec().apply(part(0, False), out=ring.slot(0)))
    scored = context.socket(zmq.PULL)
    scored.bind("inproc://scored")
    scored.setsockopt(zmq.RCVTIMEO, 10_000)
    work: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    for number in range(1, waiting + 1):
        work.put(pack_batch(number, [0], [crc]))
    lane = Lane(0, 1, OnnxCpuEngine(tiny_model()), ring, 1, work, context)
    answers = [[ScoreNote.unpack(note, 2).number for note in scored.recv_multipart()] for _ in together]
    assert answers == together
    work.put(STOP)
    lane.join(10)
    assert lane.failure is None


class RecordingChannel(WorkerChannel):
    """Keeps what is sent. Attributes: sent."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], path: Path, poller: zmq.Poller) -> None:
        super().__init__(context, path, poller)
        self.sent: list[bytes] = []

    def send(self, identity: str, data: bytes) -> bool:
        """See WorkerChannel.send."""
        self.sent.append(data)
        return super().send(identity, data)


class Bench:
    """One bundle, and engines for it on one channel."""

    def __init__(self, context: Context, directory: Path) -> None:
        self.bundle = open_bundle(tiny_bundle(directory / "tiny.lgb"))
        self.goldens, self.poller = self.bundle.goldens(), zmq.Poller()
        self.ring = Ring.create(len(self.goldens), self.bundle.manifest.preprocess.shape)
        self.channel = RecordingChannel(context, directory / "engines", self.poller)

    def link(self, batch: int) -> EngineLink:
        """An engine of at most so many parts a batch; not started."""
        settings = {"slots": self.ring.slots, "first": 0, "shape": list(self.ring.shape), "batch": batch, "lanes": 2}
        settings["engine"] = {"kind": "onnxruntime"}
        return EngineLink(Model(self.bundle, "cpu"), self.goldens, settings, 10.0, self.ring, 0, self.channel)

    def serve(self, link: EngineLink) -> None:
        """Start it, and wait until it may judge."""
        link.start(time.monotonic_ns(), alone=True)
        self.listen_while(link, lambda: link.phase is not EnginePhase.SERVING)

    def listen_while(self, link: EngineLink, condition: Callable[[], bool]) -> None:
        """Give it its messages as long as the condition holds, a minute at most."""
        until = time.monotonic() + 60
        while condition():
            assert time.monotonic() < until
            self.poller.poll(100)
            for _, data in self.channel.receive():
                link.message(data)


def test_a_timed_engine_is_trimmed_once_and_then_answers(context: Context, tmp_path: Path) -> None:
    """After its trials an engine is told to give memory back, and judges as before."""
    bench = Bench(context, tmp_path)
    link = bench.link(8)
    try:
        bench.serve(link)
        trims = [data for data in bench.channel.sent if data[:1] == TRIM]
        assert trims == [bench.channel.sent[-1]] == [pack_trim(link.size)]
        link.challenge(time.monotonic_ns())
        bench.listen_while(link, lambda: link.challenged)
        assert link.challenge_answer() == ""
    finally:
        link.close(0.0)
        bench.channel.close()


def test_an_engine_beside_another_is_proven_with_its_batches(context: Context, tmp_path: Path) -> None:
    """The engine of the next bundle is asked for no batch larger than those that will be judged: neither timed nor
    trimmed, it would keep their memory."""
    bench = Bench(context, tmp_path)
    link = bench.link(8)
    link.pace_like(bench.link(1))
    try:
        bench.serve(link)
        batches = [unpack_batch(data) for data in bench.channel.sent if data[:1] == BATCH]
        assert [len(slots) for _, slots, _ in batches] == [1] * len(bench.goldens)
        assert TRIM not in {data[:1] for data in bench.channel.sent}
    finally:
        link.close(0.0)
        bench.channel.close()
