"""Engines on an NVIDIA GPU, where there is one: each must give what the CPU gives, from every lane and batch size."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from appliance.engines.protocol import GPU_KINDS, Engine, EngineError, load_engine, missing
from appliance.engines.tensorrt_plan import PROFILE, TensorRt
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
        if kind == "tensorrt":  # with its packages installed and a GPU at hand it has to load
            raise
        pytest.skip(str(error))


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


def test_a_killed_engine_comes_back_on_the_gpu(tmp_path: Path) -> None:
    """kill -9 amid parts: the next process takes the kept plan and judges on; then a clean end, each trigger one row."""
    loaded("tensorrt", tiny_model(), tmp_path)
    bundle, section = tiny_gpu_bundle(tmp_path / "both.lgb"), '[engine]\nkind = "tensorrt"\n'
    config = make_station(tmp_path, 20, "loop = true\nfps = 200.0", section, bundle)
    with Daemon(config) as daemon:
        daemon.until(lambda status: status.counts.triggers > 50, timeout=180)
        os.kill(daemon.workers()["engine"], signal.SIGKILL)
        killed = daemon.until(lambda status: any(alert.kind == "ENGINE" for alert in status.alerts))
        daemon.until(lambda status: status.counts.ok > killed.counts.ok + 50, timeout=60)
        summary = daemon.stop(signal.SIGTERM)
    assert summary["rows"] == summary["counts"]["triggers"] == len(rows(config))
