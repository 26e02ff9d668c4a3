"""What training minimises: focal loss, and the class weights that keep rare classes from being ignored."""

from __future__ import annotations

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
        ValueError: gamma is negative.
    """
    if gamma < 0:
        raise ValueError(f"gamma is {gamma}; focal loss needs gamma >= 0")
    if gamma == 0:
        return F.cross_entropy(logits, labels, weight)
    log_p = F.log_softmax(logits, 1)
    # Below the smallest step of a float, (1 - p)^gamma would have an infinite slope where gamma < 1.
    focal = (1 - log_p.exp()).clamp_min(torch.finfo(log_p.dtype).eps).pow(gamma) * log_p
    if labels.is_floating_point():
        per_class = focal if weight is None else focal * weight
        return -(labels * per_class).sum(1).mean()
    return F.nll_loss(focal, labels, weight)


def inverse_frequency_weights(counts: ArrayLike) -> Tensor:
    """Class weights proportional to 1 / count, scaled so that the mean over *samples* is 1.

    Args:
        counts: (classes,) samples of each class; an absent class gets weight 0.
    """
    n = _counts(counts)
    return _per_sample_mean_one(torch.where(n > 0, 1 / n.clamp_min(1), 0.0), n)


def class_balanced_weights(counts: ArrayLike, beta: float) -> Tensor:
    """Class weights (1 - beta) / (1 - beta^count): Cui et al., "Class-Balanced Loss" (CVPR 2019), eq. 1.

    ``beta`` in [0, 1) leads from equal weights (0) to inverse frequency (towards 1). Scaled so that the mean
    over samples is 1, so the learning rate means the same on every set; an absent class gets weight 0.
    Raises ValueError where beta is outside [0, 1).
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta is {beta}; it must be in 0 <= beta < 1")
    n = _counts(counts)
    return _per_sample_mean_one(torch.where(n > 0, (1 - beta) / (1 - beta ** n.clamp_min(1)), 0.0), n)


def _counts(counts: ArrayLike) -> Tensor:
    n = torch.as_tensor(counts, dtype=torch.float64)
    if n.ndim != 1 or bool((n < 0).any()) or not bool((n > 0).any()):
        raise ValueError("counts must be one number >= 0 per class, not all zero")
    return n


def _per_sample_mean_one(weights: Tensor, n: Tensor) -> Tensor:
    return (weights * (n.sum() / (weights * n).sum())).to(torch.float32)
