"""Flip averaging: the exported graph looks at the same mirrored views as the trained network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from calibration.errors import InputError
from trainer.models.classifier import FLIPS, Classifier, ClassifierConfig, Flips
from trainer.onnx_graph import export_core, run_logits, session, with_normalisation, with_views

SHAPE = (1, 40, 56)


def classifier(flip_average: Flips) -> Classifier:
    """An ImageNet backbone under a random head, the same for every kind of averaging."""
    torch.manual_seed(0)
    model = Classifier(ClassifierConfig(classes=3, channels=1, flip_average=flip_average))
    model.load_imagenet()
    torch.nn.init.normal_(model.linear.weight, std=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    """Three frames of noise with a bright corner, so that mirrored views differ."""
    pixels = np.random.default_rng(0).integers(0, 120, (3, *SHAPE), dtype=np.uint8)
    pixels[:, :, :9, :9] = 250
    return pixels


@pytest.mark.parametrize("kind", ["horizontal", "vertical", "both"])
def test_the_answer_is_the_mean_over_the_mirrored_views(kind: Flips, frames: NDArray[np.uint8]) -> None:
    """One view at a time through the plain network gives the same logits."""
    single, x = classifier("none"), torch.from_numpy(frames)
    with torch.no_grad():
        views = torch.stack([single(torch.flip(x, axes) if axes else x) for axes in FLIPS[kind]])
        averaged = classifier(kind)(x)
    assert torch.allclose(averaged, views.mean(0), atol=1e-5)
    assert (views[0] - averaged).abs().max() > 1e-4


def test_the_exported_graph_averages_the_same_views(frames: NDArray[np.uint8]) -> None:
    """ONNX equals torch at every batch size, and a mirrored frame gets the same logits."""
    model = classifier("both")
    graph = with_views(with_normalisation(export_core(model, SHAPE)), FLIPS["both"])
    running = session(graph, threads=1)
    with torch.no_grad():
        expected = model(torch.from_numpy(frames)).numpy()
    for batch in (1, 2, 3):
        np.testing.assert_allclose(run_logits(running, frames[:batch]), expected[:batch], atol=1e-4)
    mirrored = np.ascontiguousarray(frames[:, :, :, ::-1])
    np.testing.assert_allclose(run_logits(running, mirrored), expected, atol=1e-4)


def test_an_unknown_kind_of_averaging_is_named() -> None:
    """The message lists the choices."""
    with pytest.raises(InputError, match=r"flip_average.*horizontal"):
        ClassifierConfig(classes=2, channels=1, flip_average="sideways")  # type: ignore[arg-type]
