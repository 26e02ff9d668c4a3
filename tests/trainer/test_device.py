"""Learning on a GPU: it must learn what the CPU would have learned, within rounding, and go on where that stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from calibration.scores import Scores
from tests.trainer.test_train import LIT, SMALL, parts
from tests.trainer.test_trainer_cli import call, refusal
from trainer.checkpoint import State
from trainer.device import device_named, device_of, learning_on
from trainer.fine_tune import start
from trainer.models.classifier import Classifier, ClassifierConfig
from trainer.recipes import Recipe
from trainer.train import train

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU that PyTorch can use")


def network(recipe: Recipe = SMALL) -> tuple[Classifier, State]:
    """A classifier and the state of a training that has not begun."""
    model = Classifier(ClassifierConfig(classes=2, channels=1))
    model.backbone.freeze_lower(recipe.frozen_stages)
    return model, start(model, recipe)


def fail(model: Classifier, state: State, place: torch.device) -> None:
    """Move both there, and run out of memory."""
    with learning_on(place, model, state):
        assert device_of(model).type == place.type
        raise RuntimeError("out of memory")


@no_gpu
@pytest.mark.parametrize("command", ["train", "compare"])
def test_a_gpu_that_is_not_there_is_said_before_anything_is_written(command: str, tmp_path: Path) -> None:
    """Exit code 2, the remedy, and no folder."""
    parts(tmp_path / "images")
    call("import", "folder", tmp_path / "images", "--out", tmp_path / "data", "--ok", "good")
    said = refusal(command, tmp_path / "data", "--out", tmp_path / "out", "--device", "cuda")
    assert "finds no GPU here; install its CUDA build and a driver, or leave --device out" in said
    assert not (tmp_path / "out").exists()


def test_a_training_that_fails_leaves_model_and_state_on_the_cpu() -> None:
    """The very parameters that the optimiser holds, with the average and the best of them."""
    model, state = network()
    learned = list(state.weights.values())
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(RuntimeError, match="out of memory"):
        fail(model, state, place)
    assert all(ours is theirs for ours, theirs in zip(learned, state.weights.values(), strict=True))
    tensors = [*learned, *state.averaged.values(), *state.best.values(), *model.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}


@gpu
@pytest.mark.parametrize("recipe", [SMALL, LIT, replace(LIT, name="whole", frozen_stages=0)])
def test_a_gpu_learns_what_the_cpu_learns(recipe: Recipe, tmp_path: Path) -> None:
    """One epoch without dropout, whose noise differs by device: logits agree to a few hundredths."""
    dataset, logits = parts(tmp_path / "images"), {}
    recipe = replace(recipe, epochs=1, dropout=0.0)
    for name in ("cpu", "cuda"):
        train(dataset, tmp_path / name, recipe, 3, device=device_named(name))
        logits[name] = Scores.read(tmp_path / name / "scores.test.csv").logits
    assert np.abs(logits["cuda"] - logits["cpu"]).max() < 0.05 * max(1.0, np.abs(logits["cpu"]).max())


@gpu
def test_a_training_goes_on_on_the_other_device(tmp_path: Path) -> None:
    """Stopped on the GPU in its second epoch, it ends on the CPU: the checkpoint knows of no device."""
    dataset = parts(tmp_path / "images")

    def stop(what: str, done: int, total: int) -> None:
        if what.startswith("epoch 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(dataset, tmp_path / "run", SMALL, 3, progress=stop, device=device_named("cuda"))
    done: list[str] = []
    train(dataset, tmp_path / "run", SMALL, 3, progress=lambda what, *_: done.append(what))
    assert "epoch 2 of 3" in done
    assert "epoch 1 of 3" not in done
