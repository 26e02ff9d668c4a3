"""The linear head, fitted on features of the frozen network: logistic regression with a validated penalty.

Logit adjustment is one subtraction from the head's bias after training (:func:`adjust_bias`), in the unit of the
logits at their validated temperature. At temperature 1, since the bias is neither penalised nor decayed, learning with
``tau * log(prior)`` added to the logits would move the bias of a head fitted here by just as much and nothing else. A
network that has learned its training parts by heart has logits several times too large, and the same subtraction would
hardly move them: there the temperature counts. What is exported is adjusted, and temperature and thresholds are fitted
on adjusted scores. Its probabilities speak of classes of equal size, rarer classes being raised: better for balanced
accuracy, worse calibrated to the line until the temperature is fitted, and the thresholds of a release absorb what is
left.

A head can also be kept from what INT8 will blur. Its rounding errors reach the logits through the head's weights: for a
difference of two logits, with weights w, the variance is ``w S w``, S being the covariance of the features' errors.
Half of that, times `Recipe.int8_penalty`, joins the loss beside the L2 penalty, so that parts near the threshold change
sides less often. This is ridge regression's answer to noise in the regressors (Bishop, "Training with Noise is
Equivalent to Tikhonov Regularization", Neural Computation 7, 1995), with the noise as it was measured
(`trainer.feature_noise`) instead of white. A head held back so much says too little. The temperature makes up for that,
but it stretches logits about 0, and with them a bias that was right for the short ones: so the bias is found anew, as
it is at the length that the training parts ask for. Where INT8 blurs what tells parts apart, so much weight would cost
more than it is worth: of some weights the heaviest is taken that does not validate worse than the best beyond chance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from calibration.metrics import softmax
from calibration.temperature import fit_temperature
from trainer.data.sampling import sample_rows, smote
from trainer.losses import adjust_logits, focal_loss
from trainer.models.classifier import Classifier
from trainer.recipes import Recipe

MAX_ITERATIONS = 200

SHRINKAGE = 0.5
"""Share of the diagonal in the covariance of rounding errors: it is told from fewer errors than there are features, and
what stood still by chance will move (Ledoit & Wolf, Journal of Multivariate Analysis 88, 2004)."""

SHARES_TRIED = (1.0, 0.3, 0.1, 0.0)
"""Of the recipe's int8_penalty, the heaviest first."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class HeadFit:
    """What was chosen: the L2 penalty, the weight of INT8's errors, and the validation score they got (see
    `validation_score`).
    """

    penalty: float
    int8_penalty: float
    score: float


def validation_score(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Negative log-likelihood at its best temperature, in nats, and its standard error; lower is better.

    The temperature is refitted on the exported model anyway, so a model that is only too sure of itself must
    not lose to one that separates less.
    """
    return _mean(_losses(logits, labels))


def _losses(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.floating]:
    p = softmax(logits / fit_temperature(logits, labels))[np.arange(len(labels)), labels]
    return np.asarray(-np.log(np.maximum(p, 1e-12)))


def _mean(values: NDArray[np.floating]) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(values.mean()), float(values.std() / np.sqrt(len(values)))


def fit_head(
    model: Classifier,
    features: Floats,
    targets: Floats,
    val_features: Floats,
    val_labels: NDArray[np.int64],
    recipe: Recipe,
    class_weights: Tensor,
    errors: Floats | None = None,
) -> HeadFit:
    """Set the model's standardisation and linear layer to the logistic regression that validates best.

    In float64: in float32 the descent ends where rounding hides the slope, up to 2 % of a logit from the minimum and
    elsewhere on another processor.

    Args:
        model: its head is overwritten.
        features: float32 (n, model.features); the pooled ones among them are learned from.
        targets: float32 (n, classes), rows summing to 1.
        val_features: float32 (m, model.features). val_labels: int64 (m,).
        recipe: its head_penalties, gamma and, with errors, int8_penalty are used.
        class_weights: float32 (classes,).
        errors: float32 (k, pooled features), by how much INT8 changes those of training frames; None: not asked for.
    """
    pooled = sum(model.pooled_sizes)
    features, val_features = features[:, :pooled], val_features[:, :pooled]
    with torch.no_grad():
        model.feature_mean.copy_(torch.from_numpy(features.mean(0)))
        model.feature_scale.copy_(torch.from_numpy(1 / feature_spread(features, model.pooled_sizes)))
    x = ((torch.from_numpy(features) - model.feature_mean) * model.feature_scale).double()
    y = torch.from_numpy(targets).double()
    blur = None if errors is None else _Blur.of(torch.from_numpy(errors) * model.feature_scale)
    weights = torch.zeros((y.shape[1], x.shape[1]), dtype=torch.float64)
    bias = torch.zeros(y.shape[1], dtype=torch.float64)
    val_x = ((torch.from_numpy(val_features) - model.feature_mean) * model.feature_scale).double()

    def misfit(logits: Tensor) -> Tensor:
        return focal_loss(logits, y, recipe.gamma, class_weights.double())

    def loss(penalty: float, weight: float) -> Tensor:
        shunned = 0.0 if blur is None else weight / 2 * blur.variance(weights)
        return misfit(x @ weights.T + bias) + penalty / 2 * weights.square().sum() + shunned

    def fitted(weight: float) -> _Tried:
        nonlocal bias
        tried = []
        for penalty in sorted(recipe.head_penalties, reverse=True):  # each starts from the stronger one's solution
            _minimise(partial(loss, penalty, weight), weights, bias)
            if blur is not None:
                bias = _bias_at_length(x @ weights.T, bias, misfit)
            losses = _losses((val_x @ weights.T + bias).numpy(), val_labels)
            tried.append(_Tried(penalty, weight, losses, weights.clone(), bias.clone()))
        return min(tried, key=lambda head: head.losses.mean())

    shares = (0.0,) if blur is None else SHARES_TRIED
    head = _heaviest_no_worse([fitted(share * recipe.int8_penalty) for share in shares])
    with torch.no_grad():
        model.linear.weight.copy_(head.weights)
        model.linear.bias.copy_(head.bias)
    return HeadFit(head.penalty, head.int8_penalty, float(head.losses.mean()))


def learning_set(
    features: Floats, labels: NDArray[np.int64], targets: Floats, recipe: Recipe, seed: int
) -> tuple[Floats, Floats]:
    """What the head is fitted on: features float32 (m, d) and targets float32 (m, classes).

    Copies of a frame are drawn together. SMOTE works within each copy, so that no sample lies between a frame and its
    own mirror image; its samples are sure of their class.

    Args:
        features: float32 (copies, n, d). labels: int64 (n,). targets: float32 (n, classes).
        recipe: its sampling and smote are used; by default every sample comes once.
    """
    if recipe.smote:
        rngs = [np.random.default_rng([7, seed, copy]) for copy in range(len(features))]
        pairs = [smote(copy, labels, recipe.smote, rng) for copy, rng in zip(features, rngs, strict=True)]
        made = pairs[0][1][len(labels) :]
        targets = np.concatenate([targets, np.eye(targets.shape[1], dtype=np.float32)[made]])
        return np.concatenate([pair[0] for pair in pairs]), np.tile(targets, (len(features), 1))
    if recipe.sampling != "instance":
        rows = sample_rows(labels, recipe.sampling, np.random.default_rng([6, seed]))
        features, targets = features[:, rows], targets[rows]
    return features.reshape(-1, features.shape[2]), np.tile(targets, (len(features), 1))


def adjust_bias(model: Classifier, seen: ArrayLike, tau: float, temperature: float) -> None:
    """Logit adjustment (`trainer.losses.adjust_logits`) folded into the bias, for the exported model to carry.

    Args:
        seen: (classes,) what of each class training saw, in any unit, each > 0.
        temperature: > 0, at which the logits are calibrated: divided by it they are ``log p(class | frame)``, from
            which Menon et al. subtract the prior.

    Raises:
        ValueError: a class was not seen, or tau is negative.
    """
    with torch.no_grad():
        model.linear.bias.copy_(adjust_logits(model.linear.bias, seen, tau * temperature))


def feature_spread(features: Floats, sizes: Sequence[int]) -> Floats:
    """The unit of each feature, float32 (features,), > 0: the standard deviation typical of its kind of pooling.

    One unit for each kind (``sizes`` features each), not for each feature: dividing a channel that hardly ever moves
    by its own deviation gives it a large weight on the raw features, and with it a steep gradient into the backbone.
    """
    spread = features.std(0)
    parts = np.split(spread, np.cumsum(sizes)[:-1])
    typical = [np.full(len(part), max(float(np.sqrt(np.mean(part**2))), 1e-6)) for part in parts]
    return np.concatenate(typical).astype(np.float32)


@dataclass(frozen=True)
class _Blur:
    """Rounding errors of standardised features: float64 (k, features), about their mean, and their variances."""

    errors: Tensor
    variances: Tensor

    @classmethod
    def of(cls, errors: Tensor) -> _Blur:
        centred = errors.double() - errors.double().mean(0)
        return cls(centred, centred.square().mean(0))

    def variance(self, weights: Tensor) -> Tensor:
        """Of the error of the difference of two logits, mean over all pairs, of a head with these weights (classes,
        features), whose sum over classes is 0, as penalties leave it.
        """
        together = (self.errors @ weights.T).square().mean(0).sum()
        summed = (1 - SHRINKAGE) * together + SHRINKAGE * (weights.square() @ self.variances).sum()
        return summed * 2 / (len(weights) - 1)


@dataclass(frozen=True)
class _Tried:
    """A head with the penalties it was fitted by, and what each validation part costs it in nats."""

    penalty: float
    int8_penalty: float
    losses: NDArray[np.floating]
    weights: Tensor
    bias: Tensor


def _heaviest_no_worse(heads: Sequence[_Tried]) -> _Tried:
    """The first of the heads, from the heaviest penalty on, that does not validate worse than the best one beyond
    chance: by two standard errors of the difference, part by part.
    """
    best = min(heads, key=lambda head: head.losses.mean())
    differences = (_mean(head.losses - best.losses) for head in heads)
    return next(head for head, (mean, error) in zip(heads, differences, strict=True) if mean <= 2 * error)


def _bias_at_length(scores: Tensor, bias: Tensor, misfit: Callable[[Tensor], Tensor]) -> Tensor:
    """The bias (classes,) with which scores (n, classes) fit best once they are as long as they should be; penalties
    have left them shorter.
    """
    length, stretched = torch.ones(1, dtype=torch.float64), bias.clone()
    _minimise(lambda: misfit(length * scores + stretched), length, stretched)
    return stretched / length


def _minimise(loss: Callable[[], Tensor], *free: Tensor) -> None:
    for tensor in free:
        tensor.requires_grad_(True)
    optimiser = torch.optim.LBFGS(free, max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    for tensor in free:
        tensor.requires_grad_(False)
