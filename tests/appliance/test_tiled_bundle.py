"""Tiles from images to verdicts: one bundle, and a daemon that knows nothing of tiles."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from calibration.images import read_image
from calibration.scores import Scores
from tests.appliance.stations import make_station, rows, run_json
from tests.support.folders import FolderSpec, write_folder
from trainer.data.importers import import_folder
from trainer.export import export_run
from trainer.quantise import executed, operators
from trainer.recipes import TILES
from trainer.release import release_run
from trainer.train import train

pytestmark = pytest.mark.slow


def test_a_tiled_bundle_judges_as_it_was_released(tmp_path: Path) -> None:
    """Strips of two tiles: every convolution is an integer one, tiles are cut as bytes, verdicts agree with FP32, and
    the daemon finds the scores that the release recorded."""
    write_folder(tmp_path / "images", FolderSpec(96, 640, (14, 10)))
    dataset = import_folder(tmp_path / "images", tmp_path / "data", licence="none").dataset
    run = tmp_path / "run"
    train(dataset, run, TILES, seed=2)
    exported = export_run(run)
    release_run(run, tmp_path / "parts.lgb", name="parts")
    assert exported.convolutions == {"cpu": 49, "trt": 49}
    kinds = operators(executed(onnx.load(run / "export" / "model.cpu.onnx")))
    assert kinds["QLinearConv"] == 49
    assert not {"Conv", "QuantizeLinear"} & kinds.keys()
    assert exported.parity["cpu"].agreement.value >= 0.9

    scores = Scores.read(run / "export" / "scores.cpu.test.csv")
    frames = tmp_path / "frames"
    frames.mkdir()
    for i, path in enumerate(scores.paths):
        cv2.imwrite(str(frames / f"{i:03d}.png"), read_image(dataset.root / path, 1))
    config = make_station(tmp_path, parts=0, bundle=tmp_path / "parts.lgb", sections="[batch]\nsize = 2")
    assert run_json(config)["counts"]["not_inspected"] == 0
    judged = rows(config, "SELECT logits FROM verdict ORDER BY frame")
    logits = np.stack([np.frombuffer(blob, "<f4") for (blob,) in judged])
    np.testing.assert_allclose(logits, scores.logits, rtol=1e-5, atol=1e-4)
