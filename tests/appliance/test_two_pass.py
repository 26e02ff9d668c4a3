"""Attention cropping from images to verdicts: one bundle, and a daemon that knows nothing of its two passes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from calibration.images import read_image
from calibration.scores import Scores
from deploy.bundle import open_bundle
from tests.appliance.stations import make_station, rows, run_json
from tests.support.folders import FolderSpec, write_folder
from trainer.assess import assess
from trainer.data.importers import import_folder
from trainer.data.manifest import read_dataset
from trainer.export import ExportResult, export_run
from trainer.features import silent
from trainer.models.attention_crop import AttentionCrop
from trainer.models.classifier import load_run_model
from trainer.quantise import executed, operators
from trainer.recipes import ATTENTION_CROP
from trainer.release import release_run
from trainer.run import MODEL, read_settings
from trainer.train import train

pytestmark = pytest.mark.slow

HEIGHT, WIDTH = 192, 256


@dataclass(frozen=True)
class TwoPass:
    run: Path
    data: Path
    bundle: Path
    exported: ExportResult


@pytest.fixture(scope="module")
def two_pass(tmp_path_factory: pytest.TempPathFactory) -> TwoPass:
    """Three classes of 192x256 grey parts, trained, exported and released by the attention-crop recipe."""
    root = tmp_path_factory.mktemp("two-pass")
    write_folder(root / "images", FolderSpec(HEIGHT, WIDTH, (20, 10, 10)))
    dataset = import_folder(root / "images", root / "data", licence="none").dataset
    train(dataset, root / "run", ATTENTION_CROP, seed=2)
    exported = export_run(root / "run")
    release_run(root / "run", root / "parts.lgb", name="parts")
    return TwoPass(root / "run", root / "data", root / "parts.lgb", exported)


def test_the_model_takes_the_frame_whole_and_crops_in_full_resolution(two_pass: TwoPass) -> None:
    """The input is the frame's own size; the crops are 96 of its pixels."""
    settings = read_settings(two_pass.run)
    assert settings.spec.shape == (1, HEIGHT, WIDTH)
    assert "native size" in settings.size_reason
    model, classes = load_run_model(two_pass.run / MODEL)
    assert isinstance(model, AttentionCrop)
    assert (model.crop_config.crops, model.crop_config.crop) == (2, 96)
    assert classes == ["good", "pit", "scratch"]


def test_every_convolution_of_every_look_is_an_integer_one(two_pass: TwoPass) -> None:
    """Overview and crops run 49 convolutions each, all fused; the pixels of crops are cut as bytes."""
    assert two_pass.exported.convolutions == {"cpu": 98, "trt": 98}
    model = onnx.load(two_pass.run / "export" / "model.cpu.onnx")
    kinds = operators(executed(model))
    assert kinds["QLinearConv"] == 98
    assert not {"Conv", "QuantizeLinear"} & kinds.keys()
    assert kinds["GatherElements"] == 1


def test_both_int8_models_tell_defects_as_fp32_does(two_pass: TwoPass) -> None:
    """Verdicts agree with FP32 on at least nine parts of ten."""
    for figures in two_pass.exported.parity.values():
        assert figures.agreement.value >= 0.9, figures


def test_the_daemon_judges_as_evaluate_does(two_pass: TwoPass, tmp_path: Path) -> None:
    """Replayed test frames: each inspected once, with the logits that the release recorded for the exported model."""
    scores = Scores.read(two_pass.run / "export" / "scores.cpu.test.csv")
    dataset = read_dataset(two_pass.data)
    frames = tmp_path / "frames"
    frames.mkdir()
    for i, path in enumerate(scores.paths):
        cv2.imwrite(str(frames / f"{i:03d}.png"), read_image(dataset.root / path, 1))
    config = make_station(tmp_path, parts=0, bundle=two_pass.bundle, sections="[batch]\nsize = 4")
    summary = run_json(config)
    assert summary["counts"]["not_inspected"] == 0
    judged = rows(config, "SELECT logits, decision FROM verdict ORDER BY frame")
    assert len(judged) == len(scores.paths)
    logits = np.stack([np.frombuffer(blob, "<f4") for blob, _ in judged])
    np.testing.assert_allclose(logits, scores.logits, rtol=1e-5, atol=1e-4)
    rule = open_bundle(two_pass.bundle).variant("cpu").rule
    assert [decision for _, decision in judged] == [str(d.value) for d in rule.decide(scores.logits)]


def test_evaluate_knows_run_and_bundle(two_pass: TwoPass) -> None:
    """`trainer evaluate` scores the run and its bundle alike, and well: the parts are easy."""
    dataset = read_dataset(two_pass.data)
    run = assess(two_pass.run, dataset, "test", "cpu", silent, draws=20)
    bundle = assess(two_pass.bundle, dataset, "test", "cpu", silent, draws=20)
    assert run.figures.auroc >= 0.9
    assert abs(run.figures.auroc - bundle.figures.auroc) <= 0.1
