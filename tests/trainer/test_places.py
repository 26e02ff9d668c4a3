"""Votes of single places: nothing before they are fitted, small defects found afterwards, and in the stored network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.metrics import auroc, softmax
from trainer.features import Activations, predict, silent
from trainer.models.classifier import Classifier, ClassifierConfig, load_run_model, save_run_model
from trainer.models.places import Places
from trainer.prepare import fit_places
from trainer.recipes import ATTENTION_CROP

CONFIG = ClassifierConfig(classes=2, channels=1, places=True)
MID_STAGES = 5


def pitted(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Noisy grey frames of 96 x 96; every third has one pit of 8 x 8 pixels, somewhere."""
    rng = np.random.default_rng(seed)
    frames = rng.normal(128, 12, (count, 1, 96, 96)).clip(0, 255).astype(np.uint8)
    labels = (np.arange(count) % 3 == 0).astype(np.int64)
    for row in np.flatnonzero(labels):
        top, left = rng.integers(8, 80, 2)
        frames[row, 0, top : top + 8, left : left + 8] //= 3
    return frames, labels


def activations(model: Classifier, frames: NDArray[np.uint8]) -> Activations:
    """What the frozen stages make of the frames."""
    made = Activations(model, frames, MID_STAGES)
    made.fill(silent, "")
    return made


@pytest.fixture(scope="module")
def fitted() -> Classifier:
    """On ImageNet's features; the linear head knows nothing, so that what is found is found by places alone."""
    model = Classifier(CONFIG)
    model.load_imagenet()
    shown, labels = pitted(120, 0)
    held_out, held_out_labels = pitted(60, 1)
    lower, lower_val = (activations(model, frames) for frames in (shown, held_out))
    fit_places(model, lower, labels, lower_val, held_out_labels, seed=0)
    return model


def test_before_they_are_fitted_they_add_nothing() -> None:
    torch.manual_seed(0)
    model = Classifier(CONFIG).eval()
    plain = Classifier(replace(CONFIG, places=False)).eval()
    plain.load_state_dict({name: w for name, w in model.state_dict().items() if not name.startswith("places.")})
    shown, _ = pitted(4, 2)
    assert np.array_equal(predict(model, shown), predict(plain, shown))


def test_a_small_pit_anywhere_in_the_frame_is_found(fitted: Classifier) -> None:
    shown, labels = pitted(90, 3)
    assert fitted.places is not None
    assert fitted.places.strength > 0
    assert auroc(softmax(predict(fitted, shown))[:, 1], labels == 1) > 0.95


def test_the_smooth_maximum_lies_between_mean_and_maximum_of_the_places() -> None:
    generator = torch.Generator().manual_seed(0)
    places = Places(6, 3).eval()
    mid = torch.randn((5, 6, 7, 4), generator=generator)
    places.start(mid.transpose(0, 1).flatten(1).T, generator)
    each = torch.stack([places.evidence(mid[:, :, y : y + 1, x : x + 1]) for y in range(7) for x in range(4)])
    found = places.evidence(mid)
    assert (found <= each.amax(0) + 1e-5).all()
    assert (found >= each.mean(0) - 1e-5).all()


def test_the_stored_network_holds_them(fitted: Classifier, tmp_path: Path) -> None:
    shown, _ = pitted(6, 4)
    save_run_model(fitted, ["good", "pit"], tmp_path / "model.safetensors")
    again, _ = load_run_model(tmp_path / "model.safetensors")
    assert np.array_equal(predict(again, shown), predict(fitted, shown))


def test_where_the_held_out_parts_gain_nothing_they_are_given_no_strength(fitted: Classifier) -> None:
    """Labels drawn at random: the validation fold prefers the network as it was, or hardly less."""
    model = Classifier(CONFIG)
    model.load_state_dict(fitted.state_dict())
    shown, labels = pitted(60, 5)
    held_out, held_out_labels = pitted(60, 6)
    lower, lower_val = (activations(model, frames) for frames in (shown, held_out))
    fit_places(model, lower, labels, lower_val, 1 - held_out_labels, seed=0)
    assert model.places is not None
    assert model.places.strength == 0


def test_they_do_not_go_with_crops() -> None:
    with pytest.raises(InputError, match="without anomaly and places"):
        replace(ATTENTION_CROP, places=True)
