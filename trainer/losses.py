"""What training minimises, and how it keeps rare classes from being ignored or a student from learning alone."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor


def focal_loss(logits: Tensor, labels: Tensor, gamma: float, weight: Tensor | None = None) -> Tensor:
    """Focal loss of a softmax classifier (Lin et al., "Focal Loss for Dense Object Detection", 2017, eq. 4).

    Args:
        logits: (n, classes) float.
        labels: (n,) integer classes, or (n, classes) float probabilities (soft targets, rows summing to 1).
        gamma: >= 0; a sample whose class has probability p counts (1 - p)^gamma. At 0 this is
            ``torch.nn.functional.cross_entropy(logits, labels, weight)`` to the last bit.
        weight: (classes,) float, or None for equal weights.

    Returns:
        The mean as cross_entropy takes it: hard labels divide by the sum of their weights, soft ones by n.

    Raises:
        ValueError: gamma is negative or not a number.
    """
    _at_least_zero("gamma", gamma)
    if gamma == 0:
        return F.cross_entropy(logits, labels, weight)
    log_p = F.log_softmax(logits, 1)
    # At exactly 0, (1 - p)^gamma would have an infinite slope where gamma < 1; expm1 keeps the digits of a small 1 - p.
    focal = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny).pow(gamma) * log_p
    if labels.is_floating_point():
        per_class = focal if weight is None else focal * weight
        return -(labels * per_class).sum(1).mean()
    return F.nll_loss(focal, labels, weight)


def logit_adjusted_loss(logits: Tensor, labels: Tensor, counts: ArrayLike, tau: float) -> Tensor:
    """Cross-entropy on ``logits + tau * log(prior)`` (Menon et al., "Long-tail learning via logit adjustment", 2021,
    eq. 10): the prior is taken into account while learning, so the bare logits are those of balanced classes.

    At tau 1 the best logits minimise the balanced error; the probabilities they give are those of classes of equal
    size, not of the line, until a temperature and thresholds are fitted on validation scores.

    Args:
        logits: (n, classes) float. labels: as for :func:`focal_loss`.
        counts: (classes,) training samples of each class, or anything proportional; each > 0.
        tau: >= 0, strength; 0 is cross-entropy to the last bit.

    Raises:
        ValueError: counts or tau out of range.
    """
    offset = prior_offset(counts, tau)
    return F.cross_entropy(logits + offset.to(logits) if tau else logits, labels)


def adjust_logits(logits: Tensor, counts: ArrayLike, tau: float) -> Tensor:
    """``logits - tau * log(prior)``: the same correction of a classifier that was trained without it (Menon et al.
    2021, eq. 9). It raises the rare classes; probabilities change meaning as in :func:`logit_adjusted_loss`.

    Args and errors as there; returns (n, classes), of the logits' dtype.
    """
    return logits - prior_offset(counts, tau).to(logits)


def prior_offset(counts: ArrayLike, tau: float) -> Tensor:
    """``tau * log(counts / sum)``: float64 (classes,), each <= 0, most negative for the rarest class.

    Raises:
        ValueError: tau is negative, or a count is not > 0: a class without samples has no prior.
    """
    _at_least_zero("tau", tau)
    n = _counts(counts)
    if not bool((n > 0).all()):
        raise ValueError("logit adjustment needs samples of every class; counts holds a 0")
    return tau * (n / n.sum()).log()


def distillation_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, alpha: float) -> Tensor:
    """``alpha * T^2 * KL(softmax(teacher / T) || softmax(student / T)) + (1 - alpha) * cross_entropy(student, labels)``
    (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015), the mean over samples, in nats.

    The gradient of the first term shrinks as 1 / T^2, so T^2 keeps its size about constant; for large T the term
    tends to half the mean over classes of the squared difference of the (centred) logits.

    Args:
        student, teacher: (n, classes) float logits; no gradient reaches the teacher.
        labels: as for :func:`focal_loss`.
        temperature: T > 0. alpha: 0..1, share of the teacher.

    Raises:
        ValueError: temperature or alpha out of range.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it must lie in 0..1")
    wanted, given = (F.log_softmax(logits / temperature, 1) for logits in (teacher.detach(), student))
    divergence = F.kl_div(given, wanted, reduction="batchmean", log_target=True)
    return alpha * temperature**2 * divergence + (1 - alpha) * F.cross_entropy(student, labels)


def inverse_frequency_weights(counts: ArrayLike) -> Tensor:
    """Class weights proportional to 1 / count: float32 (classes,), summing to the number of classes that occur.

    Args:
        counts: (classes,) samples of each class; an absent class gets weight 0.
    """
    return _summing_to_classes(_share(_counts(counts), 1.0))


def class_balanced_weights(counts: ArrayLike, beta: float) -> Tensor:
    """Class weights (1 - beta) / (1 - beta^count): Cui et al., "Class-Balanced Loss" (CVPR 2019), eq. 1.

    ``beta`` in [0, 1) leads from equal weights (0) to inverse frequency (towards 1). float32 (classes,), as in the
    paper summing to the number of classes (that occur); an absent class gets weight 0.

    Raises:
        ValueError: beta is outside [0, 1), or counts are no counts.
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta is {beta}; it must be in 0 <= beta < 1")
    return _summing_to_classes(_share(_counts(counts), beta))


def sample_weights(counts: ArrayLike, balance: float) -> Tensor:
    """Class-balanced weights (``balance`` 1: inverse frequency) whose mean over the *samples* is 1: float32 (classes,).

    So scaled, the learning rate and the penalty mean the same whatever the imbalance.

    Raises:
        ValueError: balance is outside 0..1, or counts are no counts.
    """
    if not 0 <= balance <= 1:
        raise ValueError(f"balance is {balance}; it must lie in 0..1")
    n = _counts(counts)
    weights = _share(n, balance)
    return (weights * (n.sum() / (weights * n).sum())).to(torch.float32)


def _share(n: Tensor, beta: float) -> Tensor:
    """Weights before scaling, float64: 1 / effective number of samples; 1 / count for beta 1."""
    least = n.clamp_min(1)
    return torch.where(n > 0, 1 / least if beta == 1 else (1 - beta) / (1 - beta**least), 0.0)


def _summing_to_classes(weights: Tensor) -> Tensor:
    return (weights * ((weights > 0).sum() / weights.sum())).to(torch.float32)


def _counts(counts: ArrayLike) -> Tensor:
    n = torch.as_tensor(counts, dtype=torch.float64)
    if n.ndim != 1 or not bool((n >= 0).all()) or not bool((n > 0).any()) or not bool(n.isfinite().all()):
        raise ValueError("counts must be one number >= 0 per class, not all zero")
    return n


def _at_least_zero(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} is {value}; it must be a number >= 0")
