"""Engines on an NVIDIA GPU, where there is one: each must give what the CPU gives, from every lane and batch size."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from appliance.engines.cuda_graphs import GraphMaker
from appliance.engines.protocol import GPU_KINDS, Engine, EngineError, load_engine, missing
from appliance.engines.tensorrt_plan import FRAMES, LOGITS, PROFILE, TensorRt
from tests.appliance.stations import Daemon, make_station, rows, run_json
from tests.support.tiny import logits_of, part, quantised_model, tiny_gpu_bundle, tiny_model, tiny_spec

pytestmark = pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="this machine has no NVIDIA GPU")


def tensors(n: int) -> NDArray[np.uint8]:
    """Of n parts, every other one scratched."""
    return np.stack([tiny_spec().apply(part(i, i % 2 == 1)) for i in range(n)])


def loaded(kind: str, model: bytes, folder: Path, lanes: int = 1) -> Engine:
    """An engine, or a skip with what this machine lacks for it."""
    if reason := missing(kind):
        pytest.skip(reason)
    try:
        return load_engine({"kind": kind, "plans": str(folder / "plans")}, model, lanes)
    except EngineError as error:
        # ONNX Runtime lacks TensorRT's libraries, or TensorRT does not know the GPU: neither is the engine's fault
        if "does not start" in str(error) or "compute capability" in str(error):
            pytest.skip(str(error))
        raise


@pytest.fixture(params=GPU_KINDS)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """Each engine with the tiny model and two lanes."""
    return loaded(request.param, tiny_model(), tmp_path, 2)


def test_every_batch_size_gives_the_cpus_logits(engine: Engine) -> None:
    """From one frame to the plan's most, first use and second (for native TensorRT: plain launch, then graph)."""
    frames = tensors(PROFILE[-1])
    wanted = logits_of(tiny_model(), frames)
    for _ in range(2):
        for size in range(1, PROFILE[-1] + 1):
            assert np.abs(engine.infer(frames[:size]) - wanted[:size]).max() < 0.01


def test_quantised_models_agree_with_the_cpu(tmp_path: Path) -> None:
    """Explicit INT8 around a convolution: no step of rounding off anywhere."""
    frames = tensors(8)
    wanted = logits_of(quantised_model(), frames)
    for kind in GPU_KINDS:
        if not missing(kind):
            found = loaded(kind, quantised_model(), tmp_path).infer(frames)
            assert np.abs(found - wanted).max() < 1e-2 * np.abs(wanted).max(), kind


def test_lanes_do_not_disturb_each_other(engine: Engine) -> None:
    """Two threads, each with its own frames: what each gets is what it gets alone, every time."""
    batches = [tensors(16)[:7], tensors(16)[7:]]
    alone = [engine.infer(batch, 0) for batch in batches]
    differing: list[int] = []

    def judge(lane: int) -> None:
        for _ in range(200):
            if not np.array_equal(engine.infer(batches[lane], lane), alone[lane]):
                differing.append(lane)

    threads = [threading.Thread(target=judge, args=(lane,)) for lane in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not differing


def test_a_frame_of_another_size_is_an_engine_error(engine: Engine) -> None:
    """It is refused, and never stretched or cut."""
    with pytest.raises(EngineError):
        engine.infer(np.zeros((1, 1, 16, 16), np.uint8))


def test_a_second_start_builds_no_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Native TensorRT takes it from the station's directory; the logits are the same to the last bit."""
    first = loaded("tensorrt", tiny_model(), tmp_path).infer(tensors(4))
    monkeypatch.setattr(TensorRt, "build", lambda *_: pytest.fail("built again"))
    assert np.array_equal(loaded("tensorrt", tiny_model(), tmp_path).infer(tensors(4)), first)


@pytest.mark.parametrize("kind", GPU_KINDS)
def test_a_daemon_judges_on_the_gpu(kind: str, tmp_path: Path) -> None:
    """From goldens to rows: every part is judged as its label says."""
    loaded(kind, tiny_model(), tmp_path)
    section = f'[engine]\nkind = "{kind}"\n'
    config = make_station(tmp_path, 40, sections=section, bundle=tiny_gpu_bundle(tmp_path / "both.lgb"))
    summary = run_json(config, timeout=180)
    assert summary["counts"]["triggers"] == 40
    for frame, verdict in rows(config, "SELECT frame, verdict FROM verdict"):
        assert ("ok" in frame) == (verdict == "PASS"), frame


@pytest.mark.parametrize("kind", GPU_KINDS)
def test_a_killed_engine_comes_back_on_the_gpu(kind: str, tmp_path: Path) -> None:
    """kill -9 amid parts: the next process takes the kept plan and judges on; a clean end, each trigger one row."""
    loaded(kind, tiny_model(), tmp_path)
    bundle, section = tiny_gpu_bundle(tmp_path / "both.lgb"), f'[engine]\nkind = "{kind}"\n'
    config = make_station(tmp_path, 20, "loop = true\nfps = 200.0", section, bundle)
    with Daemon(config) as daemon:
        daemon.until(lambda status: status.counts.triggers > 50, timeout=180)
        os.kill(daemon.workers()["engine"], signal.SIGKILL)
        killed = daemon.until(lambda status: any(alert.kind == "ENGINE" for alert in status.alerts))
        daemon.until(lambda status: status.counts.ok > killed.counts.ok + 50, timeout=60)
        summary = daemon.stop(signal.SIGTERM)
    assert summary["rows"] == summary["counts"]["triggers"] == len(rows(config))


class Echo:
    """TensorRT's module, engine and execution context in one, for GPUs that TensorRT does not know: the two logits of a
    frame are its eight bytes, copied on the device. All else is the engine's own: buffers, streams, graphs, lanes."""

    __version__ = "0"
    name, version, FRAME = "Echo", "0", (1, 2, 4)

    def __init__(self) -> None:
        self.module, self.built, self.addresses, self.frames = self, 0, {}, 0

    def build(self, model: bytes) -> bytes:
        self.built += 1
        return model

    def logger(self) -> object:
        return self

    def Runtime(self, logger: object) -> Echo:  # noqa: N802
        return self

    def deserialize_cuda_engine(self, plan: bytes) -> Echo:
        return self

    def create_execution_context(self) -> Echo:
        return Echo()

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *self.FRAME) if name == FRAMES else (-1, 2)

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.frames = shape[0]
        return shape[1:] == self.FRAME

    def execute_async_v3(self, stream: int) -> bool:
        to, source = (ctypes.c_void_p(self.addresses[name]) for name in (LOGITS, FRAMES))
        GraphMaker().call("cuMemcpyDtoDAsync_v2", to, source, ctypes.c_size_t(8 * self.frames), ctypes.c_void_p(stream))
        return True


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> Echo:
    """Native TensorRT's place taken by the stand-in."""
    if reason := missing("tensorrt"):
        pytest.skip(reason)
    stand_in = Echo()
    monkeypatch.setattr(TensorRt, "find", lambda: stand_in)
    return stand_in


def random_frames(n: int, seed: int = 0) -> NDArray[np.uint8]:
    """Bytes that are finite numbers when read as float32."""
    return np.random.default_rng(seed).normal(size=(n, 2)).astype(np.float32).view(np.uint8).reshape(n, *Echo.FRAME)


def test_frames_go_up_and_logits_come_down_whole(echo: Echo, tmp_path: Path) -> None:
    """Every batch size, first use and graph: to the last bit what was computed from this very batch."""
    engine = loaded("tensorrt", b"model", tmp_path)
    for seed in range(3):
        for size in range(1, PROFILE[-1] + 1):
            frames = random_frames(size, 100 * seed + size)
            assert np.array_equal(engine.infer(frames), frames.reshape(size, 8).view(np.float32))


def test_native_lanes_overlap_and_stay_apart(echo: Echo, tmp_path: Path) -> None:
    """Four threads with changing batches: each gets its own, while graphs of others are being recorded too."""
    engine = loaded("tensorrt", b"model", tmp_path, 4)
    wrong: list[tuple[int, int]] = []

    def judge(lane: int) -> None:
        for turn in range(300):
            frames = random_frames(1 + (turn * 7 + lane) % PROFILE[-1], 1000 * lane + turn)
            if not np.array_equal(engine.infer(frames, lane), frames.reshape(-1, 8).view(np.float32)):
                wrong.append((lane, turn))

    threads = [threading.Thread(target=judge, args=(lane,)) for lane in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_native_plan_is_built_once(echo: Echo, tmp_path: Path) -> None:
    """And taken from the station's directory after that."""
    for _ in range(2):
        loaded("tensorrt", b"model", tmp_path)
    assert echo.built == 1


def test_a_refused_frame_leaves_the_native_engine_whole(echo: Echo, tmp_path: Path) -> None:
    """Wrong sizes and too large batches are EngineErrors; the next batch is judged as ever."""
    engine = loaded("tensorrt", b"model", tmp_path)
    for shape in ((1, 1, 2, 3), (PROFILE[-1] + 1, *Echo.FRAME), (0, *Echo.FRAME)):
        with pytest.raises(EngineError, match="TensorRT failed"):
            engine.infer(np.zeros(shape, np.uint8))
    frames = random_frames(5)
    assert np.array_equal(engine.infer(frames), frames.reshape(5, 8).view(np.float32))
