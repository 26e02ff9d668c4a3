"""A bundle as a Triton model repository: valid by Triton's own schema, and of one mind with the daemon."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from appliance.engines.onnx_cpu import OnnxCpuEngine
from appliance.judge import judge
from appliance.wire import ScoreNote
from calibration.errors import InputError
from deploy.bundle import open_bundle
from deploy.cli import main
from deploy.triton import model_name, repository, write_repository
from tests.support import triton_harness, tritonserver
from tests.support.tiny import FRAME_HEIGHT, FRAME_WIDTH, part, tiny_bundle

FAR = 2**62
"""A deadline, in ns, that no test reaches."""


@pytest.fixture(scope="module")
def repo(bundles: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository of bundle one."""
    return write_repository(open_bundle(bundles[0]), tmp_path_factory.mktemp("triton") / "models").path


def schema() -> Any:
    """Triton's model_config.proto, as compiled into its client; its gRPC half is not needed."""
    client = importlib.util.find_spec("tritonclient")
    if client is None or not client.submodule_search_locations:
        pytest.skip("tritonclient is not installed")
    path = Path(client.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(model: Path, given: str, stack: NDArray[Any], *wanted: str) -> dict[str, NDArray[Any]]:
    """A Python part of the repository, in a process of its own; RuntimeError with what it said."""
    data = io.BytesIO()
    np.save(data, stack)
    words = [sys.executable, triton_harness.__file__, str(model), given, *wanted]
    done = subprocess.run(words, input=data.getvalue(), capture_output=True, timeout=60, check=False, cwd="/")
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    return dict(np.load(io.BytesIO(done.stdout)))


@pytest.mark.parametrize(("variant", "runner"), [("cpu", "onnxruntime"), ("trt", "onnxruntime"), ("cpu", "python")])
def test_every_configuration_is_valid_by_tritons_own_schema(
    bundles: list[Path], variant: str, runner: Literal["onnxruntime", "python"]
) -> None:
    """Unknown fields and wrong types are errors there; names, shapes and batching are what the bundle says."""
    from google.protobuf import text_format

    bundle = open_bundle(bundles[0])
    if variant == "trt":  # the tiny bundle has one variant; the configuration of the other is made of the same
        manifest = bundle.manifest.model_copy(update={"variants": {"trt": bundle.variant("cpu")}})
        bundle = type(bundle)(bundle.path, bundle.sha256, manifest, bundle.members)
    pb = schema()
    configs = {}
    for path, data in repository(bundle, variant, runner).items():
        if path.endswith("config.pbtxt"):
            config = text_format.Parse(data.decode(), pb.ModelConfig())
            assert config.name == path.partition("/")[0]
            configs[config.name] = config
    assert set(configs) == {"one", "one-model", "one-preprocess", "one-decide"}
    model = configs["one-model"]
    assert list(model.input[0].dims) == list(bundle.manifest.preprocess.shape)
    assert model.input[0].data_type == pb.TYPE_UINT8
    assert model.backend == runner
    assert model.max_batch_size == bundle.manifest.max_batch
    assert model.dynamic_batching.max_queue_delay_microseconds == 10_000
    assert [step.model_name for step in configs["one"].ensemble_scheduling.step] == [
        "one-preprocess",
        "one-model",
        "one-decide",
    ]
    assert configs["one"].parameters["bundle_sha256"].string_value == bundle.sha256
    accelerators = model.optimization.execution_accelerators.gpu_execution_accelerator
    assert [a.name for a in accelerators] == (["tensorrt"] if variant == "trt" else [])


def test_the_steps_of_the_ensemble_fit_one_another(repo: Path) -> None:
    """Each tensor that a step takes is given to the ensemble or made before, of the same type and shape."""
    from google.protobuf import text_format

    pb = schema()
    configs = {p.parent.name: text_format.Parse(p.read_text(), pb.ModelConfig()) for p in repo.glob("*/config.pbtxt")}
    whole = configs["one"]
    known = {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in whole.input}
    for step in whole.ensemble_scheduling.step:
        member = configs[step.model_name]
        assert {t.name: (t.data_type, list(t.dims)) for t in member.input} == {
            inner: known[outer] for inner, outer in step.input_map.items()
        }
        made = {t.name: (t.data_type, list(t.dims)) for t in member.output}
        known |= {outer: made[inner] for inner, outer in step.output_map.items()}
    assert {t.name: (t.data_type, list(t.dims)) for t in whole.output}.items() <= known.items()
    assert (repo / "one" / "1").is_dir()


def test_the_repository_judges_as_the_daemon_does(repo: Path, bundles: list[Path]) -> None:
    """Its Python parts run on real frames around its own model file; every probability and decision is the daemon's."""
    bundle = open_bundle(bundles[0])
    frames = np.stack([part(seed, seed % 3 == 0, 0.2 + (seed % 7) / 7) for seed in range(60)])
    tensors = run(repo / "one-preprocess", "frame", frames[:, None], "frames")["frames"][:, 0]
    session = onnxruntime.InferenceSession((repo / "one-model/1/model.onnx").read_bytes())
    logits = np.asarray(session.run(["logits"], {"frames": tensors})[0])
    logits[7] = np.nan  # an engine that gives no numbers
    answers = run(repo / "one-decide", "logits", logits[:, None], "decision", "defect_probability")

    spec, rule = bundle.manifest.preprocess, bundle.variant("cpu").rule
    assert np.array_equal(tensors, np.stack([spec.apply(frame) for frame in frames]))
    note = ScoreNote(0, 0, 0, np.ones(len(logits), bool), logits)
    judged = judge(rule, note, [FAR] * len(logits), 0)
    decided = [word.decode() for word in answers["decision"].ravel()]
    assert len(set(decided)) >= 2
    for judgement, decision, p in zip(judged, decided, answers["defect_probability"].ravel().tolist(), strict=True):
        if judgement.decision is None:  # the daemon did not inspect it
            assert (decision, np.isnan(p)) == ("UNSURE", True)
        else:
            assert (decision, p) == (judgement.decision.value, judgement.defect_probability)


def test_the_python_runner_gives_the_models_own_scores(bundles: list[Path], tmp_path: Path) -> None:
    """To the bit, of requests of several frames that are judged together."""
    made = write_repository(open_bundle(bundles[0]), tmp_path / "models", runner="python")
    spec = open_bundle(bundles[0]).manifest.preprocess
    frames = np.stack([spec.apply(part(seed, seed % 2 == 0)) for seed in range(6)]).reshape(2, 3, *spec.shape)
    logits = run(made.path / "one-model", "frames", frames, "logits")["logits"]
    session = onnxruntime.InferenceSession(open_bundle(bundles[0]).model("cpu"))
    assert np.array_equal(logits, [session.run(["logits"], {"frames": stack})[0] for stack in frames])


@pytest.mark.slow
@pytest.mark.skipif(
    not tritonserver.PYTHON.exists(), reason="no Triton server here: python -m benchmarks.triton gets it"
)
def test_a_real_server_judges_as_the_daemon_does(bundles: list[Path], tmp_path: Path) -> None:
    """One request a frame and one of many; a frame of another camera is an error there too."""
    bundle = open_bundle(bundles[0])
    made = write_repository(bundle, tmp_path / "models", runner="python")
    frames = np.stack([part(seed, seed % 3 == 0, 0.2 + (seed % 7) / 7) for seed in range(30)])
    spec, rule = bundle.manifest.preprocess, bundle.variant("cpu").rule
    logits = OnnxCpuEngine(bundle.model("cpu")).infer(np.stack([spec.apply(frame) for frame in frames]))
    expected = list(zip((d.value for d in rule.decide(logits)), rule.defect_probability(logits).tolist(), strict=True))
    (tmp_path / "server").mkdir()
    with tritonserver.serving(tritonserver.PYTHON, made.path, made.name, tmp_path / "server") as server:
        alone = [server.judge(made.name, frame[None])[0] for frame in frames]
        most = bundle.manifest.max_batch
        together = [a for at in range(0, len(frames), most) for a in server.judge(made.name, frames[at : at + most])]
        with pytest.raises(tritonserver.ServerError, match="the bundle was made for widths"):
            server.judge(made.name, frames[:1, :-8])
    assert len({decision for decision, _ in expected}) >= 2
    for answers in (alone, together):
        assert [answer.decision for answer in answers] == [decision for decision, _ in expected]
        assert [answer.defect_probability for answer in answers] == pytest.approx([p for _, p in expected], abs=1e-12)


def test_a_frame_of_another_camera_is_an_error_and_no_decision(repo: Path) -> None:
    """Never resized to fit."""
    frame = np.zeros((1, 1, FRAME_HEIGHT // 2, FRAME_WIDTH), np.uint8)
    with pytest.raises(RuntimeError, match="the bundle was made for widths"):
        run(repo / "one-preprocess", "frame", frame, "frames")


@pytest.mark.parametrize(
    ("name", "safe"), [("solar cells", "solar-cells"), ("Lötstellen [red] 検査", "L-tstellen-red"), ("検査", "bundle")]
)
def test_names_are_made_safe(name: str, safe: str) -> None:
    """For directories and URLs."""
    assert model_name(name) == safe


def test_the_command_writes_a_new_directory_only(tmp_path: Path, bundles: list[Path]) -> None:
    """A dry run writes nothing; what exists is never written over; a missing variant is named."""
    out = tmp_path / "models"
    words = ["triton", str(bundles[0]), "--out", str(out), "--json"]
    dry = CliRunner().invoke(main, [*words, "--dry-run"])
    assert (dry.exit_code, out.exists()) == (0, False)
    assert "one-model/1/model.onnx" in json.loads(dry.stdout)["files"]
    assert CliRunner().invoke(main, words).exit_code == 0
    again = CliRunner().invoke(main, words)
    assert again.exit_code == 2
    assert "name a new directory" in again.stderr
    with pytest.raises(InputError, match="no variant 'trt'"):
        write_repository(open_bundle(tiny_bundle(tmp_path / "t.lgb")), tmp_path / "other", "trt")
    wrong = CliRunner().invoke(
        main, [*words[:2], "--out", str(tmp_path / "x"), "--variant", "trt", "--runner", "python"]
    )
    assert (wrong.exit_code, "needs --runner onnxruntime" in wrong.stderr) == (2, True)
