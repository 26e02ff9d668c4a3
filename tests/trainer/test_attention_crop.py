"""Attention cropping: where it looks, what it cuts out, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from calibration.errors import InputError
from trainer.features import silent
from trainer.models.attention_crop import AttentionCrop, AttentionCropConfig, with_crops
from trainer.models.build import build, config_from_json
from trainer.models.classifier import Classifier, ClassifierConfig
from trainer.recipes import ATTENTION_CROP

CONFIG = AttentionCropConfig(classes=2, channels=1, crops=2, crop=48, overview=2, locate=1)


def parts(n: int, height: int = 128, width: int = 160, channels: int = 1) -> np.ndarray:
    """Frames of noise around grey, uint8 (n, channels, height, width)."""
    rng = np.random.default_rng(n)
    return rng.normal(120, 8, (n, channels, height, width)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def model() -> AttentionCrop:
    """ImageNet weights, a locator that knows eight good parts."""
    made = AttentionCrop(CONFIG)
    made.load_imagenet()
    made.eval()
    made.fit_locator(parts(8), np.ones(8, bool), silent)
    return made


def normalised(frames: np.ndarray) -> torch.Tensor:
    return (torch.from_numpy(frames).float() - 127) / 128


def test_the_crops_hold_what_is_unusual_first(model: AttentionCrop) -> None:
    """Two marks of different strength: both are cropped, the stronger one first, in the frame's own pixels."""
    frames = parts(2)
    frames[0, 0, 20:30, 30:40], frames[0, 0, 90:100, 120:130] = 10, 60
    frames[1, 0, 60:70, 10:20] = 250
    crops, distances = model.crops(normalised(frames))
    assert crops.shape == (4, 1, 48, 48)
    darkest = (crops.amin((1, 2, 3)) * 128 + 127).reshape(2, 2)
    assert darkest[0].round().tolist() == [10, 60]
    assert (crops[2] * 128 + 127).max().round() == 250
    assert (distances[:, 0] >= distances[:, 1]).all()


def test_a_crop_is_a_window_of_the_frame_even_at_its_edge(model: AttentionCrop) -> None:
    """A mark in the corner: the crop is the corner, pixel for pixel, and does not reach beyond."""
    frames = parts(1)
    frames[0, 0, :8, -8:] = 255
    crops, _ = model.crops(normalised(frames))
    np.testing.assert_array_equal(crops[0, 0].numpy() * 128 + 127, frames[0, 0, :48, -48:])


def test_colour_planes_are_cut_at_the_same_place() -> None:
    """Three planes that are shifted copies stay shifted copies in every crop."""
    colour = AttentionCrop(replace(CONFIG, channels=3))
    colour.load_imagenet()
    colour.eval()
    frames = parts(1, channels=1).astype(np.int64)
    frames[0, 0, 40:50, 70:80] = 20
    frames = np.concatenate([frames, frames + 1, frames + 2], 1).astype(np.uint8)
    colour.fit_locator(np.repeat(parts(4), 3, 1), np.ones(4, bool), silent)
    crops = (colour.crops(normalised(frames))[0] * 128 + 127).round().numpy()
    assert (crops[:, 1] - crops[:, 0] == 1).all()
    assert (crops[:, 2] - crops[:, 0] == 2).all()
    assert crops[0].min() == 20


def test_crops_do_not_overlap_in_their_middles(model: AttentionCrop) -> None:
    """However large a mark is, the second crop looks elsewhere."""
    frames = parts(1)
    frames[0, 0, 30:60, 30:60] = 0
    crops = model.crops(normalised(frames))[0].numpy()
    assert not np.array_equal(crops[0], crops[1])


def test_the_locator_is_the_mahalanobis_distance(model: AttentionCrop) -> None:
    """The first distance is the largest of (f - mean) (cov + ridge)^-1 (f - mean) over all places, in double."""
    good, frames = normalised(parts(8)), normalised(parts(3))
    with torch.no_grad():
        places = model._places(good).flatten(0, 1).double().numpy()
        found = model._places(frames).double().numpy()
        distances = model.crops(frames)[1].numpy()
    mean, covariance = places.mean(0), np.cov(places.T, bias=True)
    precision = np.linalg.inv(covariance + 0.01 * np.diag(covariance).mean() * np.eye(len(mean)))
    away = found - mean
    expected = np.einsum("npc,cd,npd->np", away, precision, away).max(1)
    np.testing.assert_allclose(distances[:, 0], expected, rtol=1e-3)


def test_separate_backbones_give_the_same_features(model: AttentionCrop) -> None:
    """What is exported is the same function as what was trained, and the model itself is left alone."""
    frames = normalised(parts(2))
    with torch.no_grad():
        torch.testing.assert_close(model.separated().look(frames), model.look(frames))
    assert model.own is None
    assert not any(name.startswith("own") for name in model.state_dict())


def test_features_are_those_of_both_passes(model: AttentionCrop) -> None:
    """Overview features are the plain classifier's on the averaged frame; crop features the strongest of the crops."""
    frames = parts(1)
    plain = Classifier(ClassifierConfig(classes=2, channels=1))
    plain.load_imagenet()
    plain.eval()
    with torch.no_grad():
        features = model.embed(model.lower(torch.from_numpy(frames), 0), 0)
        halved = torch.nn.functional.avg_pool2d(torch.from_numpy(frames).float(), 2)
        overview = plain.embed(plain.lower(halved, 0), 0)
        crops = model.crops(normalised(frames))[0] * 128 + 127
        seen = plain.embed(plain.lower(crops, 0), 0).amax(0, keepdim=True)
    assert features.shape == (1, model.features)
    torch.testing.assert_close(features[:, : plain.features], overview, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(features[:, plain.features : 2 * plain.features], seen, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("height", "width", "overview", "locate", "crop"),
    [
        (1024, 1280, 4, 2, 192),
        (192, 256, 1, 1, 96),
        (480, 640, 2, 1, 192),
        (3000, 4000, 12, 6, 192),
        (64, 64, 1, 1, 32),
    ],
)
def test_the_looks_follow_the_size_of_the_frame(height: int, width: int, overview: int, locate: int, crop: int) -> None:
    """Overview at about 320 pixels, locating at about 640, crops of at most half the short side."""
    config = with_crops(ClassifierConfig(classes=2, channels=1), 2, height, width)
    assert isinstance(config, AttentionCropConfig)
    assert (config.overview, config.locate, config.crop) == (overview, locate, crop)
    assert config_from_json(config.to_json()) == config
    assert isinstance(build(config), AttentionCrop)


def test_without_crops_a_configuration_stays_as_it_is() -> None:
    """A plain classifier is read back as one."""
    config = ClassifierConfig(classes=2, channels=1)
    assert with_crops(config, 0, 1024, 1280) is config
    assert type(config_from_json(config.to_json())) is ClassifierConfig
    assert type(build(config)) is Classifier


def test_what_cannot_work_is_refused_with_a_remedy(model: AttentionCrop) -> None:
    """Frames too small to crop, no good part to learn from, factors that do not fit, a backbone that is to learn."""
    with pytest.raises(InputError, match="use recipe quick"):
        with_crops(ClassifierConfig(classes=2, channels=1), 2, 48, 640)
    with pytest.raises(InputError, match="no training image of a good part"):
        model.fit_locator(parts(2), np.zeros(2, bool), silent)
    with pytest.raises(InputError, match="multiple of locate"):
        replace(CONFIG, overview=3, locate=2)
    with pytest.raises(InputError, match="needs 32"):
        replace(CONFIG, crop=16)
    with pytest.raises(InputError, match="smaller than crops"):
        model.crops(normalised(parts(1, 40, 160)))
    with pytest.raises(InputError, match="set epochs to 0"):
        replace(ATTENTION_CROP, epochs=3)
