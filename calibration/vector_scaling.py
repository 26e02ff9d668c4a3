"""Vector scaling (Guo et al. 2017, arXiv:1706.04599): one scale and one offset per class.

A comparison for the single temperature, not a part of any bundle: with 2 x classes parameters it needs many parts
of every class, unlike a temperature it can change which class is the largest, and a shift common to all logits of a
row matters to it where the scales differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.metrics import softmax
from calibration.temperature import checked, fit_temperature, plausible

Floats = NDArray[np.float64]

STEPS = 100
TOLERANCE = 1e-9


@dataclass(frozen=True)
class VectorScaling:
    """softmax(scale * logits + offset); both float64 (classes,)."""

    scale: Floats
    offset: Floats

    def probabilities(self, logits: ArrayLike) -> Floats:
        """Class probabilities, float64 (n, classes), of logits (n, classes).

        Raises:
            ValueError: another number of classes.
        """
        z = np.asarray(logits, dtype=np.float64)
        if z.ndim != 2 or z.shape[1] != len(self.scale):
            raise ValueError(f"logits have shape {z.shape}; expected (n, {len(self.scale)})")
        return softmax(z * self.scale + self.offset)


def fit_vector_scaling(logits: ArrayLike, labels: ArrayLike) -> VectorScaling:
    """Scale and offset per class of least negative log-likelihood, held near the fitted temperature.

    With z the logits divided by that temperature (`fit_temperature`), it minimises over a and b

        sum of -log softmax(a * z + b)[label] + (|a - 1|^2 + |b|^2) / 2,

    the log posterior under standard normal priors. The penalty makes the problem strictly convex (an offset common
    to all classes would be free otherwise), keeps separable data and classes without a part finite, and vanishes at
    the temperature itself: on the rows fitted the likelihood is therefore never below the temperature's. Rows with an
    implausible range of logits take no part, as in `fit_temperature`.

    Args:
        logits: float (n, classes), n >= 1, finite. labels: int (n,), 0 <= label < classes.

    Raises:
        ValueError: shapes do not agree, nothing to fit on, values not finite, or labels out of range.
    """
    z, y = plausible(*checked(logits, labels))
    temperature = fit_temperature(logits, labels)
    z = z / temperature
    target = np.eye(z.shape[1])[y]
    classes = z.shape[1]
    x = np.concatenate([np.ones(classes), np.zeros(classes)])
    prior = x.copy()
    value = _objective(x, prior, z, y)
    for _ in range(STEPS):
        p = softmax(z * x[:classes] + x[classes:])
        slope = np.concatenate([((p - target) * z).sum(axis=0), (p - target).sum(axis=0)]) + (x - prior)
        step = np.linalg.solve(_curvature(p, z), slope)
        if slope @ step < TOLERANCE:  # twice what a Newton step can still gain
            break
        length = 1.0
        while (trial := _objective(x - length * step, prior, z, y)) > value - 1e-4 * length * (slope @ step):
            length /= 2
            if length < TOLERANCE:
                return _scaling(x, temperature)
        x, value = x - length * step, trial
    return _scaling(x, temperature)


def _scaling(x: Floats, temperature: float) -> VectorScaling:
    classes = len(x) // 2
    return VectorScaling(x[:classes] / temperature, x[classes:])


def _objective(x: Floats, prior: Floats, z: Floats, y: NDArray[np.int64]) -> float:
    classes = z.shape[1]
    u = z * x[:classes] + x[classes:]
    u = u - u.max(axis=1, keepdims=True)
    nll = np.log(np.exp(u).sum(axis=1)) - u[np.arange(len(y)), y]
    return float(nll.sum() + 0.5 * ((x - prior) ** 2).sum())


def _curvature(p: Floats, z: Floats) -> Floats:
    """Hessian (2 classes, 2 classes) of the objective: sums of J (diag(p) - p p^T) J^T, and the prior's ones."""
    blocks = []
    for left in (z, np.ones_like(z)):
        row = []
        for right in (z, np.ones_like(z)):
            row.append(np.diag((p * left * right).sum(axis=0)) - (p * left).T @ (p * right))
        blocks.append(row)
    return np.asarray(np.block(blocks) + np.eye(2 * z.shape[1]))
