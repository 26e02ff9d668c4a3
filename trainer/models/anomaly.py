"""How far a part lies from the good ones: evidence of defects that no class of the training set stands for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from calibration.errors import InputError

COMPONENTS = 128
"""Directions in which a distance is measured: enough on magnetic tile, where 64 found fewer and 200 no more."""

MOST_FRAMES = 2048
"""Good frames that mean and covariance are taken from at most, evenly drawn."""

LEAST_GOOD = 2
LEAST_SQUARE = 1e-12


class Anomaly(nn.Module):
    """Evidence against the good class, from the Mahalanobis distance of a part to the good training parts.

    Mean and covariance of the good parts' features (Lee et al., NeurIPS 2018, with one class; Rippel et al., ICPR
    2021), the covariance shrunk as Ledoit and Wolf (2004) derive, and seen in its COMPONENTS leading directions. The
    logarithm of the distance is about normal among good parts and among defects; the logarithm of the ratio of these
    two densities, taken with one variance, is ``slope * log(distance) + offset`` and is subtracted from the logit of
    the good class: the odds of a defect are multiplied by the ratio. So the score rises with the distance whatever
    the classes of the training set are, and temperature, thresholds and escape bound are fitted on scores that hold
    it. As one more input of the linear layer the distance was all but ignored: the seen classes need it little.

    What differs from the good parts in no direction in which they differ from each other adds nothing. Before
    :meth:`fit` the evidence is 0, and after it too where held-out good parts lie no nearer than defects do, as may
    happen with a few dozen good parts: then the score stays as it was.
    """

    centre: Tensor
    directions: Tensor
    slope: Tensor
    offset: Tensor
    good: Tensor

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("directions", torch.zeros(min(COMPONENTS, features), features))
        self.register_buffer("slope", torch.zeros(()))
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("good", torch.zeros(classes))

    def log_distance(self, standard: Tensor) -> Tensor:
        """Standardised features (..., features) -> logarithm of the distance to the good parts, (..., 1).

        The distance is the root mean square over the directions: about 1 for a good part.
        """
        steps = (standard - self.centre) @ self.directions.T
        return (steps * steps).mean(-1, keepdim=True).clamp_min(LEAST_SQUARE).log() / 2

    def forward(self, standard: Tensor) -> Tensor:
        """Standardised features (..., features) -> what to subtract from the logits, (..., classes)."""
        return (self.slope * self.log_distance(standard) + self.offset) * self.good

    def fit(self, standard: Tensor, labels: Tensor, held_out: Tensor, held_out_labels: Tensor, ok_index: int) -> None:
        """Learn the good parts from the training set, and what a distance means from held-out parts.

        Training defects tell what a distance means too: the covariance has not seen them.

        Args:
            standard, held_out: float32 (n, features), standardised. labels, held_out_labels: int (n,).
            ok_index: the good class.

        Raises:
            InputError: fewer than two good parts, or no defect at all.
        """
        good = standard[labels == ok_index]
        defects = torch.cat((standard[labels != ok_index], held_out[held_out_labels != ok_index]))
        if len(good) < LEAST_GOOD or len(defects) == 0:
            raise InputError(
                f"anomaly: {len(good)} good training images and {len(defects)} of defects; the distance to good parts "
                "needs two of the one and one of the other: add images, or train without it"
            )
        self.centre.copy_(good.mean(0))
        self.directions.copy_(whitening(good - self.centre, len(self.directions)))
        held_out_good = held_out[held_out_labels == ok_index]
        # the parts that the covariance was made from lie too near: only where there are no others do they count
        near = self.log_distance(held_out_good if len(held_out_good) >= LEAST_GOOD else good)
        far = self.log_distance(defects)
        variance = (near.var(correction=0) + far.var(correction=0)) / 2
        self.slope.copy_((far.mean() - near.mean()).clamp_min(0) / variance.clamp_min(LEAST_SQUARE))
        self.offset.copy_(-self.slope * (far.mean() + near.mean()) / 2)
        self.good.zero_()
        self.good[ok_index] = 1

    def temper(self, temperature: float) -> None:
        """Scale the evidence for logits that are to be divided by ``temperature`` (> 0) to become log odds."""
        self.slope.mul_(temperature)
        self.offset.mul_(temperature)


def whitening(centred: Tensor, count: int) -> Tensor:
    """Rows v / sqrt(variance along v) for the ``count`` leading directions v of the shrunk covariance.

    Args:
        centred: float32 (n, features), mean 0.

    Returns:
        float32 (count, features); rows of zeros where n or the data offer fewer directions.
    """
    step = max(1, -(-len(centred) // MOST_FRAMES))
    x = centred[::step].double()
    n, features = x.shape
    gram = x @ x.T / n if n < features else x.T @ x / n
    values, vectors = torch.linalg.eigh(gram)
    kept = min(count, n, features)
    values, vectors = values[-kept:].flip(0), vectors[:, -kept:].flip(1)
    present = values > 1e-9 * values[0].clamp_min(LEAST_SQUARE)
    if n < features:
        vectors = x.T @ vectors / (n * values.clamp_min(LEAST_SQUARE)).sqrt()
    shrinkage, typical = ledoit_wolf(x, gram), float(gram.trace() / features)
    spread = ((1 - shrinkage) * values + shrinkage * typical).clamp_min(LEAST_SQUARE).sqrt()
    rows = torch.zeros(count, features, dtype=torch.float32)
    rows[:kept] = (vectors / spread * present).T.float()
    return rows


def ledoit_wolf(x: Tensor, gram: Tensor) -> float:
    """Share (0..1) of the mean variance in the best shrunk covariance (Ledoit & Wolf 2004, lemmas 3.2 to 3.4).

    Args:
        x: float64 (n, features), mean 0. gram: x^T x / n or x x^T / n: only what both agree on is used.
    """
    n, features = x.shape
    squared = float(gram.square().sum())
    distance = squared - float(gram.trace()) ** 2 / features
    noise = (float(x.square().sum(1).square().sum()) / n - squared) / n
    return 0.0 if distance <= 0 else min(max(noise / distance, 0.0), 1.0)
