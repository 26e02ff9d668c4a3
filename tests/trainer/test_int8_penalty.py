"""A head that shuns what INT8 blurs: how the blur is measured, and what the head makes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.metrics import softmax
from calibration.temperature import fit_temperature
from tests.trainer.conftest import Released
from trainer.data.loader import load_split
from trainer.data.manifest import read_dataset
from trainer.feature_noise import rounding_errors
from trainer.features import Activations, embed_all, silent
from trainer.head import SHRINKAGE, HeadFit, fit_head
from trainer.losses import focal_loss
from trainer.models.classifier import FLIPS, Classifier, ClassifierConfig, load_run_model
from trainer.onnx_graph import run_logits, session
from trainer.recipes import FROZEN, FULL, QUICK
from trainer.run import MODEL, read_settings

Floats = NDArray[np.float32]


def test_the_errors_measured_are_those_of_the_exported_model(
    released: Released, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of both views of some training frames: with the errors on its features the head says what model.cpu.onnx says."""
    monkeypatch.setattr("trainer.feature_noise.FRAMES_MEASURED", 16)
    settings = read_settings(released.run)
    frames = load_split(read_dataset(released.data), settings.spec, "train")
    model, _ = load_run_model(released.run / MODEL)
    assert isinstance(model, Classifier)
    lower = Activations(model, frames.images, 3, "horizontal")
    lower.fill(silent, "")
    features = embed_all(model, lower, silent, "")
    bare = Classifier(settings.model)
    bare.load_state_dict(model.state_dict())
    bare.feature_mean.zero_()
    bare.feature_scale.fill_(1.0)
    errors = rounding_errors(bare.eval(), frames, features, FLIPS["horizontal"], settings.seed)

    running = session((released.run / "export" / "model.cpu.onnx").read_bytes())
    for axes, known, found in zip(FLIPS["horizontal"], features, np.split(errors, 2), strict=True):
        exported = run_logits(running, np.flip(frames.images, axes))
        with torch.no_grad():
            unblurred = model.classify(torch.from_numpy(known)).numpy()
            blurred = np.stack([model.classify(torch.from_numpy(known + error)).numpy() for error in found])
        off = np.abs(blurred - exported).max(axis=2)  # (measured, frames)
        assert off.min(axis=1).max() < 1e-3 < 0.02 < np.abs(unblurred - exported).max()
        assert len(set(off.argmin(axis=1).tolist())) == 16


def made_up(rng: np.random.Generator) -> tuple[Classifier, Floats, NDArray[np.int64], Floats]:
    """An untrained model, features of 200 parts of two classes, their labels, and correlated errors of theirs."""
    model = Classifier(ClassifierConfig(2, 1, pooling="mean"))
    labels = rng.integers(0, 2, 200)
    features = rng.normal(size=(200, model.features)) + 0.3 * labels[:, None]
    errors = rng.normal(size=(200, 20)) @ rng.normal(size=(20, model.features)) * 0.05 + 0.1
    return model, features.astype(np.float32), labels, errors.astype(np.float32)


def fitted(model: Classifier, features: Floats, labels: NDArray[np.int64], errors: Floats, weight: float) -> HeadFit:
    """Fit the model's head at a penalty of 0.1."""
    recipe = replace(FROZEN, head_penalties=(0.1,), int8_penalty=weight)
    targets = np.eye(2, dtype=np.float32)[labels]
    return fit_head(model, features, targets, features, labels, recipe, torch.ones(2), errors)


def test_the_weights_are_where_the_loss_with_the_variance_has_no_slope() -> None:
    """The variance by its definition, w S w with the covariance matrix S shrunk to its diagonal; at the best bias."""
    model, features, labels, errors = made_up(np.random.default_rng(1))
    fitted(model, features, labels, errors, 10.0)
    s = np.cov(errors * model.feature_scale.numpy(), rowvar=False, bias=True)
    shrunk = torch.from_numpy((1 - SHRINKAGE) * s + SHRINKAGE * np.diag(np.diag(s)))
    weight = model.linear.weight.detach().double().requires_grad_()
    scores = model.standardise(torch.from_numpy(features)).double() @ weight.T
    y = torch.eye(2, dtype=torch.float64)[torch.from_numpy(labels)]
    bias = model.linear.bias.detach().double().requires_grad_()
    descent = torch.optim.LBFGS([bias], max_iter=100, line_search_fn="strong_wolfe")

    def misfit() -> torch.Tensor:
        return focal_loss(scores + bias, y, 0.0, torch.ones(2).double())

    def step() -> torch.Tensor:
        bias.grad = torch.autograd.grad(misfit(), bias, retain_graph=True)[0]
        return misfit()

    descent.step(step)  # type: ignore[no-untyped-call]
    margin = weight[1] - weight[0]
    variance = margin @ shrunk @ margin
    loss = misfit() + 0.1 / 2 * weight.square().sum()
    with_blur = torch.autograd.grad(loss + 10.0 / 2 * variance, weight, retain_graph=True)[0]
    assert float(with_blur.norm()) < 1e-3
    assert float(torch.autograd.grad(loss, weight)[0].norm()) > 0.01


@pytest.mark.parametrize(("blurred", "weight"), [(1, 200.0), (0, 0.0)])
def test_less_weight_is_taken_where_it_would_cost_more_than_chance(blurred: int, weight: float) -> None:
    """Of two features the first tells parts apart. Where INT8 blurs the other one the full weight costs nothing; where
    it blurs the first there would be nothing to tell parts by but chance.
    """
    rng = np.random.default_rng(5)
    model = Classifier(ClassifierConfig(2, 1, pooling="mean"))
    labels = rng.integers(0, 2, 400)
    features = np.zeros((400, model.features), np.float32)
    features[:, :2] = rng.normal(size=(400, 2)) + np.outer(labels, [2.0, 0.0])
    errors = np.zeros_like(features)
    errors[:, blurred] = 30 * rng.normal(size=400)
    assert fitted(model, features, labels, errors, 200.0).int8_penalty == weight


def test_a_head_held_back_is_unbiased_at_its_temperature() -> None:
    """Of rare defects as many are expected as there are: the mean probability is the share, once it is calibrated."""
    rng = np.random.default_rng(4)
    model = Classifier(ClassifierConfig(2, 1, pooling="mean"))
    labels = (rng.random(400) < 0.15).astype(np.int64)
    features = np.zeros((400, model.features), np.float32)
    features[:, :4] = rng.normal(size=(400, 4)) + 0.7 * labels[:, None]  # too few to tell all parts apart
    fitted(model, features, labels, 0.1 * features[:100], 100.0)
    logits = model.eval().classify(torch.from_numpy(features)).detach().numpy()
    temperature = fit_temperature(logits, labels)
    assert temperature < 0.5  # much too little confidence
    assert softmax(logits / temperature)[:, 1].mean() == pytest.approx(labels.mean(), rel=0.01)
    assert softmax(logits)[:, 1].mean() > 1.1 * labels.mean()


def test_the_heavier_the_penalty_the_steadier_the_logits() -> None:
    """Errors that the head has not seen, of the same kind, move its logits less and less."""
    rng = np.random.default_rng(2)
    model, features, labels, errors = made_up(rng)
    moved = []
    for weight in (0.0, 1.0, 30.0):
        fitted(model, features, labels, errors[:100], weight)
        scaled = torch.from_numpy(errors[100:]) * model.feature_scale
        moved.append(float((scaled @ model.linear.weight.detach().T).std(0).sum()))
    assert moved[0] > 1.2 * moved[1] > 1.2 * 1.2 * moved[2]


def test_an_error_that_all_parts_share_counts_nothing() -> None:
    """It moves every score alike, and temperature and thresholds of the exported model are fitted on its own scores."""
    model, features, labels, errors = made_up(np.random.default_rng(3))
    heads = []
    for shift in (0.0, 5.0):
        fitted(model, features, labels, errors + np.float32(shift), 20.0)
        heads.append(model.linear.weight.detach().clone())
    torch.testing.assert_close(heads[0], heads[1], rtol=1e-2, atol=1e-4)


def test_only_frozen_features_of_plain_frames_are_measured() -> None:
    """A backbone that learns has other errors afterwards, and frames of another light are not in the data."""
    for change in ({"jitter": 0.1}, {"epochs": 2}):
        with pytest.raises(InputError, match="int8_penalty needs frozen features"):
            replace(QUICK, **change)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="int8_penalty is -1"):
        replace(FROZEN, int8_penalty=-1.0)
    assert FULL.int8_penalty == 0
