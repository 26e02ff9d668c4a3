"""Proving an engine on the bundle's goldens before it may judge: alone, and at every position of a full batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.decision import DecisionRule
from deploy.bundle import GoldenScores

TOLERANCE = 0.25
"""Largest deviation of a logit from the recorded one. INT8 kernels of other CPUs round differently by a step or two
of the last layer; a wrong model, wrong pixels or classes in another order are off by far more."""

SHARE = 0.05
"""... or this share of the golden's largest logit, for models with large ones."""


def golden_batches(goldens: int, size: int) -> list[list[int]]:
    """Which goldens to judge together: each alone, then full batches in which each stands at two positions or more,
    and in which every position is used."""
    alone = [[index] for index in range(goldens)]
    if size == 1:
        return alone
    step = max(1, size // 2)
    full = max(2, -(-goldens // step))
    return alone + [[(k * step + j) % goldens for j in range(size)] for k in range(full)]


def golden_problem(
    rule: DecisionRule, goldens: Sequence[GoldenScores], variant: str, batch: Sequence[int], logits: NDArray[np.float32]
) -> str:
    """What is wrong with the logits (len(batch), classes) that an engine gave for a batch of goldens; "" if nothing."""
    expected = np.stack([goldens[index].logits[variant] for index in batch])
    if logits.shape != expected.shape or not np.isfinite(logits).all():
        return f"the engine gave scores of shape {logits.shape}, or scores that are no numbers"
    allowed = np.maximum(TOLERANCE, SHARE * np.abs(expected).max(axis=1))
    deviation = np.abs(logits - expected).max(axis=1)
    decisions = zip(rule.decide(logits), rule.decide(expected), strict=True)
    for position, (got, wanted) in enumerate(decisions):
        name = goldens[batch[position]].name
        place = f"{name} at position {position + 1} of {len(batch)}"
        if got is not wanted:
            return f"{place}: decided {got.value}, recorded {wanted.value}"
        if deviation[position] > allowed[position]:
            return f"{place}: a score is off by {deviation[position]:.3f}, allowed {allowed[position]:.3f}"
    return ""
