"""What a classifier is given before and after its weights learn: a start for learned pooling, and the good parts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calibration.temperature import fit_temperature
from trainer.features import FORWARD_BATCH, Activations
from trainer.models.classifier import Classifier

START_FRAMES = 256
PLACES = 32
"""Training frames, and places of the stride-16 map in each, that learned pooling starts from."""


def start_pooling(model: Classifier, activations: Activations, labels: NDArray[np.int64], seed: int) -> None:
    """Give pooling that learns a useful start: see `Pool.start`. Nothing is done for pooling that does not learn.

    Args:
        activations: of the training frames. labels: int64 (n,), theirs.
    """

    def maps_of(rows: NDArray[np.int64]) -> Tensor:
        lower = activations.get(rows, np.zeros(len(rows), np.int64))
        return model.backbone.upper(lower, activations.stages)[0]

    model.eval()
    start_from(model, maps_of, labels, seed)


def start_from(
    model: Classifier, maps_of: Callable[[NDArray[np.int64]], Tensor], labels: NDArray[np.int64], seed: int
) -> None:
    """The same from stride-16 maps that somebody has: ``maps_of(rows)`` gives them, float32 (rows, mid, H, W).

    Every class gives the same number of frames, or places of rare defects would be none.
    """
    if next(model.pooling.parameters(), None) is None:
        return
    rng = np.random.default_rng([8, seed])
    present = np.unique(labels)
    share = -(-START_FRAMES // len(present))
    rows = np.concatenate([rng.choice(np.flatnonzero(labels == label), share) for label in present])
    found = []
    with torch.no_grad():
        for first in range(0, len(rows), FORWARD_BATCH):
            mid = maps_of(rows[first : first + FORWARD_BATCH]).flatten(2)
            places = torch.from_numpy(rng.integers(0, mid.shape[2], (len(mid), 1, PLACES)))
            found.append(mid.gather(2, places.expand(-1, mid.shape[1], -1)).transpose(1, 2).flatten(0, 1))
    model.pooling.start(torch.cat(found), torch.Generator().manual_seed(seed))


def fit_anomaly(
    model: Classifier,
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    val_features: NDArray[np.float32],
    val_labels: NDArray[np.int64],
    ok_index: int,
) -> None:
    """Fit the distance to good parts on pooled features of the network as it is at last; nothing without `anomaly`.

    Args:
        features: float32 (n, model.features), of training frames. labels: int64 (n,). val_features, val_labels: of
            the validation fold. ok_index: the good class.

    Raises:
        InputError: too few good parts or no defect.
    """
    if model.anomaly is None:
        return
    model.eval()
    held_out = torch.from_numpy(val_features)
    with torch.no_grad():
        model.anomaly.good.zero_()
        temperature = fit_temperature(model.classify(held_out).numpy(), val_labels)
        model.anomaly.fit(
            model.standardise(torch.from_numpy(features)),
            torch.from_numpy(labels),
            model.standardise(held_out),
            torch.from_numpy(val_labels),
            ok_index,
        )
        model.anomaly.temper(temperature)
