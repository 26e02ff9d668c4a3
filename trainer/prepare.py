"""What a classifier is given before and after its weights learn: a start for learned pooling, good parts, places."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calibration.temperature import fit_temperature
from trainer.features import FORWARD_BATCH, Activations, Progress, embed_all, silent
from trainer.head import validation_score
from trainer.models.classifier import Classifier

START_FRAMES = 256
PLACES = 32
"""Training frames, and places of the stride-16 map in each, that learned pooling starts from."""

EPOCHS, BATCH, RATE, DECAY, SMOOTHING, LEAST_STEPS = 12, 32, 2e-3, 0.05, 0.05, 8
"""How the votes of places are learned."""

STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)


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


def fit_places(
    model: Classifier,
    activations: Activations,
    labels: NDArray[np.int64],
    held_out: Activations,
    held_out_labels: NDArray[np.int64],
    seed: int,
    progress: Progress = silent,
) -> None:
    """Let single places vote, on the network as it is at last; nothing without `places`. See trainer.models.places.

    Rare classes are drawn by the square roots of their shares, and what is left of the shares is told to the loss
    (logit adjustment, Menon et al. 2021). The strength is the one of STRENGTHS with which the validation fold scores
    best; 0, the network as it was, is among them.

    Args:
        activations: of the training frames. labels: int64 (n,), theirs. held_out, held_out_labels: of the validation
            fold.
    """
    places = model.places
    if places is None:
        return
    model.eval()
    counts = np.bincount(labels, minlength=model.config.classes)
    shares = np.sqrt(counts) / np.sqrt(counts).sum()
    prior = torch.from_numpy(np.log(np.maximum(shares, 1e-12))).float()
    chance = 1 / np.sqrt(counts[labels])
    rng = np.random.default_rng([9, seed])
    steps = EPOCHS * max(len(labels) // BATCH, LEAST_STEPS)

    def drawn() -> tuple[Tensor, Tensor]:
        rows = rng.choice(len(labels), BATCH, p=chance / chance.sum())
        lower = activations.get(rows, rng.integers(0, len(activations.copies), BATCH))
        with torch.no_grad():
            return model.backbone.middle(lower, activations.stages), torch.from_numpy(labels[rows])

    first = torch.cat([drawn()[0] for _ in range(START_FRAMES // BATCH)])
    learned = places.start(first.transpose(0, 1).flatten(1).T, torch.Generator().manual_seed(seed))
    torch.manual_seed(seed * 10_007 + 9)  # of dropout
    optimiser = torch.optim.AdamW(learned, lr=RATE, weight_decay=DECAY)
    places.train().requires_grad_(True)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 + math.cos(math.pi * step / steps)) / 2
        mid, wanted = drawn()
        loss = nn.functional.cross_entropy(places.evidence(mid) + prior, wanted, label_smoothing=SMOOTHING)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        progress("places", step + 1, steps)
    places.eval().requires_grad_(False)
    votes = embed_all(model, held_out, silent, "")[0]
    logits = []
    with torch.no_grad():
        for strength in STRENGTHS:
            scaled = votes.copy()
            scaled[:, -model.config.classes :] *= strength
            logits.append(model.classify(torch.from_numpy(scaled)).numpy())
    scores = [validation_score(each, held_out_labels)[0] for each in logits]
    places.strength.fill_(STRENGTHS[int(np.argmin(scores))])
