"""Worker processes: how they end, and that none is believed who breaks the rules."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import zmq

from appliance.camera_link import CameraLink
from appliance.channels import WorkerChannel
from appliance.ring import Ring
from appliance.wire import FrameNote, MissNote, WireError
from appliance.words import Reason
from appliance.workers import Worker
from tests.appliance.stations import ROOT, alive
from tests.support.fixtures import Context
from tests.support.tiny import tiny_spec


def test_a_worker_that_fails_says_why(tmp_path: Path, context: Context) -> None:
    """The top of a worker reports its failure to the supervisor and ends with code 1."""
    router = context.socket(zmq.ROUTER)
    router.bind(f"ipc://{tmp_path}/w")
    ring = Ring.create(1, tiny_spec().shape)
    settings = {
        "slots": 1,
        "shape": list(ring.shape),
        "preprocess": tiny_spec().to_json(),
        "source": {"source": "folder", "path": str(tmp_path / "none"), "fps": 0, "loop": False, "count": None},
        "first": 0,
        "start": 0,
    }
    worker = Worker("camera", "camera-0-1", f"ipc://{tmp_path}/w", settings, ring.descriptor)
    assert router.poll(15_000)
    identity, message = router.recv_multipart()
    assert identity == b"camera-0-1"
    assert "no such directory" in json.loads(message[1:])
    worker.end(5)
    assert worker.exit_code() == 1
    worker.forget()
    ring.close()


def test_a_worker_without_its_parent_ends() -> None:
    """A worker whose parent is already gone does not start to work."""
    told = json.dumps({"parent": os.getpid() + 1, "identity": "x", "endpoint": "ipc:///nowhere"})
    done = subprocess.run(
        [sys.executable, "-m", "appliance.worker", "camera"], input=told.encode(), cwd=ROOT, timeout=30, check=False
    )
    assert done.returncode == 1


def test_a_stubborn_worker_is_killed(tmp_path: Path) -> None:
    """A worker that does not end when told is killed after its time."""
    ring = Ring.create(1, tiny_spec().shape)
    settings = {"slots": 1, "first": 0, "shape": list(ring.shape), "batch": 1}
    worker = Worker("engine", "engine-1", f"ipc://{tmp_path}/nobody", settings, ring.descriptor)
    assert worker.exit_code() is None
    worker.end(0.05)
    assert worker.exit_code() == -signal.SIGKILL
    assert not alive(worker.pid)
    worker.forget()
    ring.close()


BASELINE = [70, 10, 2, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 5, 20]


def test_a_camera_that_breaks_the_rules_is_not_believed(tmp_path: Path, context: Context) -> None:
    """Slots without credit, triggers out of order, unknown messages: WireError, and the trigger is not counted."""
    ring = Ring.create(4, tiny_spec().shape)
    channel = WorkerChannel(context, tmp_path / "w", zmq.Poller())
    link = CameraLink("top", 0, {}, range(4), ring, channel)
    for bad in (FrameNote(0, 1, 0, 0, 0, "x").pack(), MissNote(3, 0, Reason.STALE, "x", "").pack(), b"?"):
        with pytest.raises(WireError):
            link.message(bad)
    link.stop()
    assert link.ended
    assert link.describe() == "ended"
    assert not channel.send("camera-0-1", b"nobody is there")
    channel.close()
    ring.close()
