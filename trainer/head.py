"""The linear head, fitted on features of the frozen network: logistic regression with a validated penalty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calibration.metrics import softmax
from calibration.temperature import fit_temperature
from trainer.losses import focal_loss
from trainer.models.classifier import Classifier
from trainer.recipes import Recipe

MAX_ITERATIONS = 200
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class HeadFit:
    """What was chosen: the L2 penalty and the validation score it got (see `validation_score`)."""

    penalty: float
    score: float


def validation_score(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Negative log-likelihood at its best temperature, in nats, and its standard error; lower is better.

    The temperature is refitted on the exported model anyway, so a model that is only too sure of itself must
    not lose to one that separates less.
    """
    p = softmax(logits / fit_temperature(logits, labels))[np.arange(len(labels)), labels]
    losses = -np.log(np.maximum(p, 1e-12))
    return float(losses.mean()), float(losses.std() / np.sqrt(len(losses)))


def fit_head(
    model: Classifier,
    features: Floats,
    targets: Floats,
    val_features: Floats,
    val_labels: NDArray[np.int64],
    recipe: Recipe,
    class_weights: Tensor,
) -> HeadFit:
    """Set the model's standardisation and linear layer to the logistic regression that validates best.

    Args:
        model: its head is overwritten.
        features: float32 (n, model.features), pooled. targets: float32 (n, classes), rows summing to 1.
        val_features: float32 (m, model.features). val_labels: int64 (m,).
        recipe: its head_penalties and gamma are used.
        class_weights: float32 (classes,).
    """
    with torch.no_grad():
        model.feature_mean.copy_(torch.from_numpy(features.mean(0)))
        model.feature_scale.copy_(torch.from_numpy(1 / feature_spread(features, model.pooled_sizes)))
    x, y = (torch.from_numpy(features) - model.feature_mean) * model.feature_scale, torch.from_numpy(targets)
    weights = torch.zeros((y.shape[1], x.shape[1]))
    bias = torch.zeros(y.shape[1])
    val_x = (torch.from_numpy(val_features) - model.feature_mean) * model.feature_scale
    best = HeadFit(penalty=math.nan, score=math.inf)
    for penalty in sorted(recipe.head_penalties, reverse=True):  # each starts from its stronger neighbour's solution
        _minimise(x, y, weights, bias, penalty, recipe.gamma, class_weights)
        score, _ = validation_score((val_x @ weights.T + bias).numpy(), val_labels)
        if score < best.score:
            best = HeadFit(penalty, score)
            with torch.no_grad():
                model.linear.weight.copy_(weights)
                model.linear.bias.copy_(bias)
    return best


def feature_spread(features: Floats, sizes: Sequence[int]) -> Floats:
    """The unit of each feature, float32 (features,), > 0: the standard deviation typical of its kind of pooling.

    One unit for each kind (``sizes`` features each), not for each feature: dividing a channel that hardly ever moves
    by its own deviation gives it a large weight on the raw features, and with it a steep gradient into the backbone.
    """
    spread = features.std(0)
    parts = np.split(spread, np.cumsum(sizes)[:-1])
    typical = [np.full(len(part), max(float(np.sqrt(np.mean(part**2))), 1e-6)) for part in parts]
    return np.concatenate(typical).astype(np.float32)


def _minimise(
    x: Tensor, y: Tensor, weights: Tensor, bias: Tensor, penalty: float, gamma: float, class_weight: Tensor | None
) -> None:
    weights.requires_grad_(True)
    bias.requires_grad_(True)
    optimiser = torch.optim.LBFGS([weights, bias], max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = focal_loss(x @ weights.T + bias, y, gamma, class_weight) + penalty / 2 * weights.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    weights.requires_grad_(False)
    bias.requires_grad_(False)
