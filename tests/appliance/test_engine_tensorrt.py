"""The TensorRT engine, as far as a machine without a GPU can go: the real bindings, plans on disk, and what it says."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.engines import tensorrt, tensorrt_plan
from appliance.engines.cuda_graphs import GraphMaker
from appliance.engines.onnx_gpu import OnnxGpuEngine
from appliance.engines.protocol import GPU_KINDS, TENSORRT, EngineError, load_engine
from appliance.engines.tensorrt_plan import KEPT, PlanCache, TensorRt, plan_key
from tests.appliance.stations import ROOT
from tests.support.tiny import quantised_model, tiny_gpu_bundle, tiny_model

GPU = Path("/dev/nvidiactl").exists()
BINDINGS = any(importlib.util.find_spec(name) for name in TENSORRT)
needs_bindings = pytest.mark.skipif(not BINDINGS, reason="neither tensorrt nor tensorrt_rtx is installed (extra 'rtx')")
without_gpu = pytest.mark.skipif(GPU, reason="this machine has an NVIDIA GPU: benchmarks/gpu.sh shows more")


@needs_bindings
def test_a_plan_is_built_for_a_named_gpu() -> None:
    """The engine's own builder, on a machine without a GPU; two generations get different plans."""
    found = TensorRt.find()
    if not hasattr(found.module, "ComputeCapability"):
        pytest.skip(f"{found.name} builds for the GPU of its own machine only")
    plans = [found.build(quantised_model(), generation) for generation in ("sm_86", "sm_120")]
    assert all(len(plan) > 10_000 for plan in plans)
    assert plans[0] != plans[1]


@needs_bindings
def test_what_is_no_model_is_refused() -> None:
    """By the builder, as an EngineError that says which TensorRT refused it."""
    with pytest.raises(EngineError, match="refuses the model"):
        TensorRt.find().build(b"no model", "sm_86")


@needs_bindings
def test_tensorrts_own_reason_reaches_the_error(capfd: pytest.CaptureFixture[str]) -> None:
    """What it would have printed is kept, and nothing is printed."""
    found = TensorRt.find()
    logger = found.logger()
    assert found.module.Runtime(logger).deserialize_cuda_engine(b"no plan" * 100) is None
    assert len(logger.reason) > len("no reason given")
    assert capfd.readouterr() == ("", "")


ROLES = {
    "_execution": "IExecutionContext",
    "engine": "ICudaEngine",
    "_runtime": "Runtime",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
}


@needs_bindings
def test_every_call_exists_in_the_real_bindings() -> None:
    """What the engine calls on TensorRT's objects, read from its source, is there in the installed bindings."""
    module = TensorRt.find().module
    seen = set()
    for source in (tensorrt, tensorrt_plan):
        for node in ast.walk(ast.parse(Path(source.__file__ or "").read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Attribute):
                continue
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if owner in ROLES:
                assert hasattr(getattr(module, ROLES[owner]), node.attr), f"{ROLES[owner]}.{node.attr}"
                seen.add(owner)
            elif owner == "trt":
                assert hasattr(module, node.attr), node.attr
    assert seen == set(ROLES)


def test_without_tensorrt_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each module that was tried, and what to install."""
    monkeypatch.setattr(tensorrt_plan, "TENSORRT", ("no_such_tensorrt",))
    with pytest.raises(EngineError, match=r"no_such_tensorrt.*JetPack.*lineguard\[gpu\]"):
        TensorRt.find()


@without_gpu
@pytest.mark.parametrize("kind", GPU_KINDS)
def test_without_a_gpu_every_gpu_engine_says_what_it_needs(kind: str, tmp_path: Path) -> None:
    """Never a quiet fall-back to the CPU: EngineError with the remedy."""
    with pytest.raises(EngineError, match=r"lineguard\[gpu\]|appliance doctor"):
        load_engine({"kind": kind, "plans": str(tmp_path / "plans")}, tiny_model())


@without_gpu
def test_without_a_driver_there_are_no_graphs() -> None:
    """The driver's absence is named."""
    if importlib.util.find_spec("ctypes") and any(Path(d, "libcuda.so.1").exists() for d in ("/usr/lib", "/usr/lib64")):
        pytest.skip("a CUDA driver library is installed")
    with pytest.raises(EngineError, match="no CUDA driver"):
        GraphMaker()


@without_gpu
def test_the_cuda_provider_does_not_fall_back() -> None:
    """ONNX Runtime without the provider is refused before it loads anything."""
    with pytest.raises(EngineError, match="CUDAExecutionProvider"):
        OnnxGpuEngine(tiny_model(), "onnxruntime-cuda")


@without_gpu
def test_the_gpu_benchmark_says_what_is_missing(tmp_path: Path) -> None:
    """On a machine without a GPU: exit code 2 and one line, no traceback; nothing is measured."""
    bundle = tiny_gpu_bundle(tmp_path / "both.lgb")
    command = [sys.executable, "-m", "benchmarks.gpu", str(bundle)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "lineguard[gpu]" in done.stderr or "appliance doctor" in done.stderr
    assert "Traceback" not in done.stderr


@given(st.lists(st.sampled_from(["model", "version", "name", "gpu"]), min_size=1, unique=True))
def test_a_plan_belongs_to_model_tensorrt_and_gpu(changed: list[str]) -> None:
    """Whatever of them changes, the key is another; the same gives the same."""
    same = {"model": "m", "version": "10.3", "name": "TensorRT", "gpu": "Orin sm_87 driver 12060"}
    other = {name: value + "x" if name in changed else value for name, value in same.items()}

    def key(of: dict[str, str]) -> str:
        return plan_key(of["model"].encode(), TensorRt(None, of["name"], of["version"]), of["gpu"])

    assert key(same) == key(dict(same))
    assert key(same) != key(other)


def test_a_kept_plan_comes_back_whole_or_not_at_all(tmp_path: Path) -> None:
    """Every byte of the file counts: changed, cut off or empty, it is no plan."""
    cache = PlanCache(tmp_path / "plans")
    assert cache.load("k") is None
    cache.store("k", b"plan" * 100)
    assert cache.load("k") == b"plan" * 100
    path = tmp_path / "plans" / "k.plan"
    whole = path.read_bytes()
    for index in range(0, len(whole), 37):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        assert cache.load("k") is None
        path.write_bytes(whole[:index])
        assert cache.load("k") is None
    assert [entry.name for entry in (tmp_path / "plans").iterdir()] == ["k.plan"]


def test_a_plan_directory_open_to_others_is_refused(tmp_path: Path) -> None:
    """A plan is code: a directory that others may read or write, or a link to one, is not used."""
    assert (PlanCache(tmp_path / "plans") is not None, (tmp_path / "plans").stat().st_mode & 0o777) == (True, 0o700)
    for mode in (0o750, 0o702):
        os.chmod(tmp_path / "plans", mode)
        with pytest.raises(EngineError, match="mode 0700"):
            PlanCache(tmp_path / "plans")
    os.chmod(tmp_path / "plans", 0o700)
    (tmp_path / "link").symlink_to(tmp_path / "plans")
    with pytest.raises(EngineError, match="mode 0700"):
        PlanCache(tmp_path / "link")


def test_only_the_last_plans_are_kept(tmp_path: Path) -> None:
    """Old ones go, the newest stay."""
    cache = PlanCache(tmp_path / "plans")
    for index in range(KEPT + 3):
        cache.store(f"k{index}", b"plan")
        os.utime(tmp_path / "plans" / f"k{index}.plan", (index, index))
    names = sorted(path.name for path in (tmp_path / "plans").iterdir())
    assert names == [f"k{index}.plan" for index in range(3, KEPT + 3)]
