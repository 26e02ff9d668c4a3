"""The supervisor's side of its workers' messages."""

from __future__ import annotations

import time
from pathlib import Path

import zmq

from appliance.camera_link import CameraLink
from appliance.channels import WorkerChannel
from appliance.ring import Ring
from appliance.wire import END, FRAME, HELLO
from appliance.workers import Worker
from tests.support.fixtures import Context
from tests.support.tiny import tiny_spec, write_parts

TIMEOUT_S = 30.0


def test_messages_that_do_not_wake_wait_and_are_not_lost(tmp_path: Path) -> None:
    """While a channel does not wake its poller, a camera process's messages are there for whoever looks; afterwards
    the next one wakes it."""
    write_parts(tmp_path / "frames", 3)
    ring, poller = Ring.create(4, tiny_spec().shape), zmq.Poller()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    channel = WorkerChannel(context, tmp_path / "w", poller)
    source = {"source": "folder", "path": str(tmp_path / "frames"), "fps": 0.0, "loop": False, "count": None}
    settings = {"preprocess": tiny_spec().to_json(), "slots": 4, "first": 0, "bundle": "", "source": source}
    link = CameraLink("top", 0, settings, range(4), ring, channel)
    channel.wake(False)
    link.start()
    found: list[bytes] = []
    until = time.monotonic() + TIMEOUT_S
    while not found and time.monotonic() < until:
        assert poller.poll(20) == []
        found += [data for _, data in channel.receive()]
    assert [data[:1] for data in found] == [HELLO]
    link.message(found.pop())
    channel.wake(True)
    link.open()
    while not (found and found[-1][:1] == END) and poller.poll(TIMEOUT_S * 1000):
        found += [data for _, data in channel.receive()]
    assert [data[:1] for data in found] == [FRAME] * 3 + [END]
    link.close(5.0)
    channel.close()
    context.term()
    ring.close()


class Owner:
    """Gives a worker up at its first message. Attributes: heard."""

    def __init__(self, channel: WorkerChannel, worker: Worker) -> None:
        self._channel, self._worker = channel, worker
        self.heard: list[bytes] = []

    def gone(self, now_ns: int) -> None:
        """See Watched."""

    def hear(self, data: bytes) -> None:
        """One message."""
        self.heard.append(data)
        self._channel.unwatch(self._worker)


def test_what_a_worker_sent_together_with_its_last_word_is_not_heard(context: Context, tmp_path: Path) -> None:
    """Scores of two batches come in one message: where the first are nonsense the worker is given up, and the second
    must not reach the one that takes its place."""
    poller, ring = zmq.Poller(), Ring.create(1, tiny_spec().shape)
    elsewhere = WorkerChannel(context, tmp_path / "elsewhere", poller)
    channel = WorkerChannel(context, tmp_path / "w", poller)
    worker = Worker("engine", "engine-0-1", elsewhere.endpoint, {}, ring.descriptor)
    owner = Owner(channel, worker)
    try:
        channel.watch(worker, owner)
        speaker = context.socket(zmq.DEALER)
        speaker.setsockopt(zmq.IDENTITY, worker.identity.encode())
        speaker.connect(channel.endpoint)
        speaker.send_multipart([b"nonsense", b"scores"])
        until = time.monotonic() + TIMEOUT_S
        while not owner.heard and time.monotonic() < until:
            poller.poll(100)
            for found, data in channel.receive():
                assert found is owner
                owner.hear(data)
        assert owner.heard == [b"nonsense"]
    finally:
        worker.kill()
        channel.close()
        elsewhere.close()
