"""Export: what is written, how it is held against FP32, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from calibration.decision import DecisionRule
from calibration.errors import InputError
from calibration.scores import Scores
from tests.trainer.conftest import Released
from trainer.data.manifest import read_dataset
from trainer.export import check_unchanged, dataset_of, export_run
from trainer.features import predict
from trainer.models import mobilenet_v3
from trainer.models.build import build
from trainer.models.classifier import ClassifierConfig, load_run_model
from trainer.models.tiles import TilesConfig
from trainer.onnx_graph import MAX_BATCH, export_core, fold_norm, run_logits, session
from trainer.parity import check, compare, paired_escape_limit, reference_rule
from trainer.run import read_settings
from trainer.tensorrt_plan import build_plans

RTX = any(importlib.util.find_spec(name) for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"))


def scores(defect: list[float], is_defect: list[bool]) -> Scores:
    """Two-class scores with the given log odds of a defect."""
    logits = np.array([[0.0, value] for value in defect], np.float32)
    names = tuple(f"{i}.png" for i in range(len(defect)))
    return Scores(("ok", "bad"), "ok", names, names, np.array(is_defect, np.int64), logits)


def test_files_are_single_whole_and_free_of_paths(released: Released) -> None:
    """Each model is one checked file without external data, stack traces or paths of the machine it was made on."""
    for name in ("fp32", "cpu", "trt"):
        path = released.run / "export" / f"model.{name}.onnx"
        data = path.read_bytes()
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model, full_check=True)
        assert not any(item.external_data for item in model.graph.initializer)
        assert str(Path(__file__).parents[2]).encode() not in data
        assert model.graph.input[0].name == "frames"
        assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
        assert model.graph.output[0].name == "logits"
        assert released.exported.sizes[name] == len(data)


def test_every_convolution_is_in_int8(released: Released) -> None:
    """All 49 convolutions of EfficientNet-Lite0, in both variants."""
    assert released.exported.convolutions == {"cpu": 49, "trt": 49}


def test_logits_do_not_depend_on_the_batch(released: Released) -> None:
    """A part scores the same alone, in company and at every position of a full batch."""
    data = (released.run / "export" / "model.cpu.onnx").read_bytes()
    frames = np.random.default_rng(0).integers(0, 256, (MAX_BATCH, 1, 48, 64)).astype(np.uint8)
    running = session(data)
    together = running.run(["logits"], {"frames": frames})[0]
    alone = np.concatenate([running.run(["logits"], {"frames": frames[i : i + 1]})[0] for i in range(MAX_BATCH)])
    np.testing.assert_array_equal(together, alone)


def test_fp32_onnx_equals_the_trained_network(released: Released) -> None:
    """The exported scores of the validation fold are those that training recorded."""
    trained = Scores.read(released.run / "scores.val.csv")
    exported = Scores.read(released.run / "export" / "scores.fp32.val.csv")
    assert trained.paths == exported.paths
    np.testing.assert_allclose(exported.logits, trained.logits, atol=1e-3)


def test_recorded_scores_are_those_of_the_file(released: Released) -> None:
    """Scoring model.cpu.onnx again gives scores.cpu.test.csv to the last bit."""
    recorded = Scores.read(released.run / "export" / "scores.cpu.test.csv")
    dataset = read_dataset(released.data)
    spec = read_settings(released.run).spec
    from trainer.goldens import frame_of

    frames = np.stack([spec.apply(frame_of(dataset, path)) for path in recorded.paths])
    data = (released.run / "export" / "model.cpu.onnx").read_bytes()
    np.testing.assert_array_equal(run_logits(session(data), frames), recorded.logits)


def test_parity_counts_what_it_says() -> None:
    """Agreement, paired escapes and catches, counted by hand on six parts."""
    truth = [False, False, False, True, True, True]
    fp32 = scores([-4, -3, 1, 2, 3, -5], truth)
    int8 = scores([-4, 1, -3, -2, 3, 2], truth)
    rule = DecisionRule(("ok", "bad"), "ok", 1.0, 0.5, 0.6, "", "")
    found = compare("cpu", fp32, int8, rule)
    assert (found.parts, found.defects) == (6, 3)
    assert found.agreement.value == pytest.approx(2 / 6)
    assert found.paired_escapes == 1  # the fourth part
    assert found.paired_catches == 1  # the last
    assert found.max_deviation == pytest.approx(1 / (1 + np.exp(-2)) - 1 / (1 + np.exp(5)))


def test_an_int8_model_that_lets_defects_through_is_refused() -> None:
    """Paired escapes beyond the limit: refused with figures and remedy; at the limit it passes."""
    truth = [True] * 10 + [False] * 10
    fp32 = scores([3.0] * 10 + [-3.0] * 10, truth)
    int8 = scores([-3.0] * 3 + [3.0] * 7 + [-3.0] * 10, truth)
    figures = compare("cpu", fp32, int8, reference_rule(fp32))
    assert figures.paired_escapes == 3
    with pytest.raises(InputError, match=r"model.cpu.onnx: passes 3 of 10 .*limit 2.*--max-paired-escapes"):
        check(figures)
    check(figures, limit=3)
    assert [paired_escape_limit(n) for n in (0, 10, 100, 1000)] == [2, 2, 3, 30]


def test_a_fold_without_defects_is_compared_at_one_half() -> None:
    """No threshold can be chosen by cost there; parity is still measured."""
    fp32 = scores([-3.0, -2.0, 1.0], [False, False, False])
    rule = reference_rule(fp32)
    assert rule.ok_below == 0.5
    assert compare("cpu", fp32, fp32, rule).agreement.value == 1.0


def test_different_parts_cannot_be_compared() -> None:
    """Scores of other parts are a mistake in the program, not a parity figure."""
    one = scores([1.0, -1.0], [True, False])
    with pytest.raises(ValueError, match="different parts"):
        compare("cpu", one, replace(one, paths=("x", "y")), reference_rule(one))


def test_a_changed_export_is_noticed(released: Released, tmp_path: Path) -> None:
    """A model exchanged after the export, or an export that was never finished, is named with its remedy."""
    run = tmp_path / "run"
    shutil.copytree(released.run, run)
    check_unchanged(run)
    model = run / "export" / "model.cpu.onnx"
    model.write_bytes(model.read_bytes() + b"\0")
    with pytest.raises(InputError, match=r"export/model.cpu.onnx has changed since the export"):
        check_unchanged(run)
    (run / "export" / "parity.json").write_text("{}")
    with pytest.raises(InputError, match="not written by this program"):
        check_unchanged(run)
    (run / "export" / "parity.json").unlink()
    with pytest.raises(InputError, match=r"not exported.*trainer export"):
        check_unchanged(run)


def test_a_changed_dataset_is_noticed(released: Released, tmp_path: Path) -> None:
    """A label edited after training: calibrating on it would mix folds."""
    settings = read_settings(released.run)
    data = tmp_path / "data"
    shutil.copytree(released.data, data)
    described = json.loads((data / "dataset.json").read_text())
    described["root"] = str((released.data / described["root"]).resolve())
    (data / "dataset.json").write_text(json.dumps(described))
    assert dataset_of(replace(settings, data=str(data)), released.run).classes == settings.classes
    manifest = data / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(",train,", ",val,", 1))
    with pytest.raises(InputError, match="has changed since"):
        dataset_of(replace(settings, data=str(data)), released.run)
    with pytest.raises(InputError, match="dataset in memory"):
        dataset_of(replace(settings, data=""), released.run)


def test_a_run_that_is_none_is_named(tmp_path: Path) -> None:
    """Exporting an empty folder says what to do first."""
    with pytest.raises(InputError, match="trainer train"):
        export_run(tmp_path)


def test_the_core_equals_torch_at_odd_sizes(released: Released) -> None:
    """Padding is "SAME" at every size: 37x53 is exported right too."""
    model, _ = load_run_model(released.run / "model.safetensors")
    frames = np.random.default_rng(1).integers(0, 256, (3, 1, 37, 53)).astype(np.uint8)
    core = export_core(model, (1, 37, 53))
    pixels = (frames.astype(np.float32) - 127) / 128
    logits = session(core).run(["logits"], {"pixels": pixels})[0]
    np.testing.assert_allclose(logits, predict(model, frames), atol=2e-3)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # inside PyTorch
def test_batch_norms_are_folded_to_the_bits_that_the_exporter_gives(tmp_path: Path) -> None:
    """Weights and bias of a convolution whose norm has statistics of all sizes."""
    torch.manual_seed(0)
    layer = mobilenet_v3.ConvNorm(24, 40, 3).eval()
    for values in (layer.norm.weight, layer.norm.bias, layer.norm.running_mean, layer.norm.running_var):
        assert values is not None
        torch.nn.init.uniform_(values, 1e-3, 3)
    torch.onnx.export(layer, (torch.zeros(1, 24, 8, 8),), tmp_path / "layer.onnx", dynamo=True, verbose=False)
    graph = onnx.load(tmp_path / "layer.onnx").graph
    constants = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    [conv] = graph.node
    fold_norm(layer)
    assert conv.op_type == "Conv"
    assert np.array_equal(layer.conv.weight.detach().numpy(), constants[conv.input[1]])
    assert layer.conv.bias is not None
    assert np.array_equal(layer.conv.bias.detach().numpy(), constants[conv.input[2]])


@pytest.mark.parametrize("kind", [ClassifierConfig, TilesConfig])
def test_exporting_leaves_the_network_as_it_was(kind: type[ClassifierConfig]) -> None:
    """Batch norms are folded into convolutions of a copy: every weight and every statistic stays."""
    model = build(kind(classes=2, channels=1, backbone=mobilenet_v3.NAME)).eval()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    export_core(model, (1, 512, 600))  # two tiles, where it is cut into tiles
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(values, after[name]) for name, values in before.items())


@pytest.mark.skipif(not RTX, reason="tensorrt_rtx is not installed (extra 'rtx')")
def test_tensorrt_builds_plans_without_a_gpu(released: Released, tmp_path: Path) -> None:
    """The trt variant becomes a plan for two GPU generations on a machine that has none."""
    data = (released.run / "export" / "model.trt.onnx").read_bytes()
    plans = build_plans(data, (1, 48, 64), ("sm_86", "sm_120"), tmp_path / "plans")
    assert [plan.capability for plan in plans] == ["sm_86", "sm_120"]
    assert all(plan.path.stat().st_size == plan.size > 1_000_000 for plan in plans)


@pytest.mark.skipif(not RTX, reason="tensorrt_rtx is not installed (extra 'rtx')")
def test_unknown_gpu_generations_are_refused(released: Released, tmp_path: Path) -> None:
    """The message lists what can be built for; the cpu variant is no TensorRT model and says so."""
    with pytest.raises(InputError, match=r"'sm_13' is no known GPU generation; use some of .*sm_86"):
        build_plans(b"", (1, 48, 64), ("sm_13",), tmp_path)
    data = (released.run / "export" / "model.cpu.onnx").read_bytes()
    with pytest.raises(InputError, match="does not accept it"):
        build_plans(data, (1, 48, 64), ("sm_86",), tmp_path)
