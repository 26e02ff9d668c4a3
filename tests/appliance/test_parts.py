"""Ring, engine, workers, drift, notifications, sockets, paths, configuration: one piece at a time."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import zmq

from appliance.camera_link import CameraLink
from appliance.channels import ControlChannel, WorkerChannel
from appliance.client import StationSilentError, acknowledge, fetch_status
from appliance.config import load_station
from appliance.daemon import run_station
from appliance.engines.onnx_cpu import OnnxCpuEngine
from appliance.engines.protocol import EngineError, load_engine
from appliance.health import Health
from appliance.judging import run_engine
from appliance.messages import Drift, Reply, Request, State, Status
from appliance.monitor.drift import DriftMonitor
from appliance.notify import notify
from appliance.paths import SOCKET_PATH_MAX, StationPaths, make_directories
from appliance.ring import Ring, checksum
from appliance.store import Store
from appliance.wire import LOAD, READY, STOP, FrameNote, MissNote, ScoreNote, WireError, pack_batch
from appliance.words import Reason
from appliance.workers import Worker
from calibration.errors import InputError
from tests.appliance.stations import ROOT, alive, make_station, rows
from tests.support.fixtures import Context
from tests.support.tiny import logits_of, part, tiny_model, tiny_spec


def test_slots_do_not_touch_each_other() -> None:
    """Writing one slot changes no other, and every slot has its own checksum."""
    ring = Ring.create(3, (1, 5, 7))
    for index in range(3):
        ring.slot(index)[:] = index + 1
    assert [int(ring.slot(i).sum()) for i in range(3)] == [35, 70, 105]
    assert len({checksum(ring.slot(i)) for i in range(3)}) == 3
    other = Ring(os.dup(ring.descriptor), 3, (1, 5, 7))
    other.slot(1)[0, 0, 0] = 99
    assert ring.slot(1)[0, 0, 0] == 99
    other.close()
    ring.close()


def test_too_little_memory_is_said_at_the_start() -> None:
    """Memory is reserved when the ring is made: a station too large for the machine does not start."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(InputError, match=r"batch\.size"):
            Ring.create(64, (3, 256, 256))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


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


def test_drift_is_silent_on_the_baseline_itself() -> None:
    """Parts drawn from the baseline: about as many alarms as allowed (none expected in 60 windows at 0.1 %)."""
    monitor = DriftMonitor(BASELINE, 100, 0.001)
    rng = np.random.default_rng(3)
    shares = np.array(BASELINE) / sum(BASELINE)
    found = [monitor.add(int(bin_), i) for i, bin_ in enumerate(rng.choice(20, 6000, p=shares))]
    compared = [result for result in found if result is not None]
    assert len(compared) == 60
    assert sum(result.drifting for result in compared) <= 1
    assert monitor.last == compared[-1]


def test_drift_is_seen_in_the_first_window() -> None:
    """All parts in doubtful bins: the first comparison alarms."""
    monitor = DriftMonitor(BASELINE, 50, 0.001)
    results = [monitor.add(10, i) for i in range(50)]
    assert results[:49] == [None] * 49
    last = results[-1]
    assert last is not None
    assert last.drifting
    assert last.kl > last.limit


def test_the_same_parts_again_are_no_news() -> None:
    """A replay that circles over 40 good parts never alarms, over 40 doubtful ones it does, over too few it cannot."""
    rng = np.random.default_rng(1)
    bins = rng.choice(20, 40, p=np.array(BASELINE) / sum(BASELINE))
    monitor = DriftMonitor(BASELINE, 500, 0.001)
    compared = [monitor.add(int(bins[i % 40]), i % 40) for i in range(2000)]
    assert [result.parts for result in compared if result is not None] == [40] * 4
    assert not monitor.last.drifting
    monitor = DriftMonitor(BASELINE, 500, 0.001)
    assert [monitor.add(10, i % 40) for i in range(500)][-1] == monitor.last
    assert monitor.last.drifting
    monitor = DriftMonitor(BASELINE, 500, 0.001)
    assert [monitor.add(10, i % 10) for i in range(500)] == [None] * 500


def test_one_alert_per_episode_of_drift(tmp_path: Path) -> None:
    """Drift that lasts is one alert; drift that ends and begins again is two."""
    store = Store(tmp_path / "station.db")
    health = Health(store)
    for phase in (State.VERIFY, State.SELFTEST, State.READY, State.RUN):
        health.enter(phase)
    drifting, calm = Drift(parts=50, kl=1.0, limit=0.1, drifting=True), Drift(parts=50, kl=0.0, limit=0.1)
    for comparison, state in ((drifting, State.DEGRADED), (drifting, State.DEGRADED), (calm, State.RUN)):
        health.drifted(comparison)
        assert health.condition.state is state
    assert len(store.open_alerts()) == 1
    health.drifted(drifting)
    assert len(store.open_alerts()) == 2
    health.fail("broken")
    health.fail("again")
    assert health.condition.state is State.FAULT
    assert [alert.kind for alert in store.open_alerts()] == ["FAULT", "DRIFT", "DRIFT"]
    store.close()


def test_without_a_database_nothing_may_pass(tmp_path: Path) -> None:
    """An alert that cannot be written holds the station."""
    store = Store(tmp_path / "station.db")
    health = Health(store)
    for phase in (State.VERIFY, State.SELFTEST, State.READY, State.RUN):
        health.enter(phase)
    store.close()
    health.alert("X", "cannot be written")
    assert health.condition.state is State.HOLD
    health.audit("nor this")
    assert health.condition.rejects_all


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A datagram reaches the socket that systemd names, a path or an abstract one; without one nothing happens."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    for address, bound in ((str(tmp_path / "n"), str(tmp_path / "n")), ("@lineguard-test", "\0lineguard-test")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
            server.bind(bound)
            monkeypatch.setenv("NOTIFY_SOCKET", address)
            assert notify("READY=1\nSTATUS=x")
            assert server.recv(100) == b"READY=1\nSTATUS=x"
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not notify("READY=1")


def test_long_paths_get_a_short_socket_directory(tmp_path: Path) -> None:
    """A data directory too deep for a Unix socket: a short private directory, the same for daemon and client."""
    short, deep = StationPaths.of(tmp_path / "d"), StationPaths.of(tmp_path / ("x" * 90) / "data")
    assert short.run == tmp_path / "d" / "run"
    assert deep.run != deep.data / "run"
    assert len(os.fsencode(deep.control)) <= SOCKET_PATH_MAX
    assert deep == StationPaths.of(tmp_path / ("x" * 90) / "data")
    make_directories(deep)
    assert stat.S_IMODE(deep.run.stat().st_mode) == 0o700
    deep.run.rmdir()


def test_a_planted_run_directory_is_refused(tmp_path: Path) -> None:
    """A run directory that is a link, or cannot be made, is refused; one that is too open is closed."""
    paths = StationPaths.of(tmp_path / "data")
    make_directories(paths)
    paths.run.chmod(0o777)
    make_directories(paths)
    assert stat.S_IMODE(paths.run.stat().st_mode) == 0o700
    paths.run.rmdir()
    paths.run.symlink_to(tmp_path)
    with pytest.raises(InputError, match="remove it"):
        make_directories(paths)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"station\.data"):
        make_directories(StationPaths.of(tmp_path / "file" / "data"))


def test_clients_that_talk_nonsense_get_an_error_and_harm_nobody(tmp_path: Path, context: Context) -> None:
    """Garbage, unknown requests and oversized ones: an error or silence; the next client is served."""
    poller = zmq.Poller()
    control = ControlChannel(context, tmp_path / "control", poller)
    assert stat.S_IMODE((tmp_path / "control").stat().st_mode) == 0o600

    def answer(request: Request) -> Reply:
        if request.op == "acknowledge":
            raise InputError("no such alert")
        return Reply(status=Status(station="s", state=State.RUN))

    replies = []
    for data in (b"\xff\x00", b"{}", b'{"op": "reboot"}', b'{"op": "acknowledge"}', b"", b'{"op": "status"}'):
        with context.socket(zmq.DEALER) as client:
            client.setsockopt(zmq.LINGER, 0)
            client.connect(f"ipc://{tmp_path}/control")
            client.send(data)
            control.serve(dict(poller.poll(2000)), answer)
            assert client.poll(2000)
            replies.append(Reply.model_validate_json(client.recv()))
    assert [bool(reply.error) for reply in replies] == [True, True, True, True, True, False]
    assert replies[3].error == "no such alert"
    control.close()


def test_a_station_that_never_ran_is_stopped(tmp_path: Path) -> None:
    """Status without database or daemon, with a strange database, and an acknowledgement without either."""
    station = load_station(make_station(tmp_path, 1))
    status = fetch_status(station)
    assert (status.state, status.counts.triggers) == (State.STOPPED, 0)
    assert "never run" in status.state_reason
    with pytest.raises(InputError, match="no such database"):
        acknowledge(station, 1, "anna")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "station.db").write_bytes(b"")
    assert "appliance run" in fetch_status(station).state_reason


def test_alerts_of_a_stopped_station_can_be_acknowledged(tmp_path: Path) -> None:
    """Without a daemon the client takes the station for as long as it writes."""
    station = load_station(make_station(tmp_path, 1))
    make_directories(StationPaths.of(station.station.data))
    store = Store(StationPaths.of(station.station.data).database)
    number = store.alert("DRIFT", "x").id
    store.close()
    assert [alert.id for alert in fetch_status(station).alerts] == [number]
    acknowledge(station, number, "anna")
    assert fetch_status(station).alerts == ()


@pytest.mark.parametrize("answer", [None, b"nonsense", b'{"status": null}', b'{"error": "x", "status": null}'])
def test_a_silent_or_confused_daemon_is_a_fault(tmp_path: Path, answer: bytes | None, context: Context) -> None:
    """Somebody listens but says nothing sensible: FAULT, with what the database knows; never a hang."""
    station = load_station(make_station(tmp_path, 1))
    paths = StationPaths.of(station.station.data)
    make_directories(paths)
    router = context.socket(zmq.ROUTER)
    router.bind(f"ipc://{paths.control}")

    def serve() -> None:
        if answer is not None and router.poll(5000):
            identity, _ = router.recv_multipart()
            router.send_multipart((identity, answer))

    thread = threading.Thread(target=serve)
    thread.start()
    status = fetch_status(station, timeout=0.3)
    thread.join()
    assert status.state is State.FAULT
    if answer is None:
        with pytest.raises(StationSilentError, match="does not answer"):
            acknowledge(station, 1, "anna", timeout=0.1)


def test_configuration_errors_name_file_and_key(tmp_path: Path) -> None:
    """Not there, no TOML, missing and wrong values."""
    config = make_station(tmp_path, 1, 'fps = "fast"')
    with pytest.raises(InputError, match=r"station\.toml.*camera\.top.*fps"):
        load_station(config)
    config.write_text("[station\n")
    with pytest.raises(InputError, match="not valid TOML"):
        load_station(config)
    config.write_text("")
    with pytest.raises(InputError, match="station is missing"):
        load_station(config)
    with pytest.raises(InputError, match="--config"):
        load_station(tmp_path / "none.toml")


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


def test_the_slow_are_warned(tmp_path: Path) -> None:
    """A deadline that the machine cannot hold: single parts, a warning, and still one row for each."""
    config = make_station(tmp_path, 3, sections="[timing]\ndeadline_ms = 0.001")
    summary = run_station(load_station(config))
    assert summary.state is State.DEGRADED
    assert "too slow" in summary.state_reason
    assert summary.rejects_by_reason == {"LATE": 3}
    assert ("batch size", "8", "1") in rows(config, "SELECT action, old, new FROM audit")
