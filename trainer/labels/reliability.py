"""How sure each annotator's confusion matrix is: intervals for what Dawid-Skene estimates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainer.labels.consensus import DawidSkene, checked_answers, e_step, gold_rows, m_step, typical, vote_counts

Floats = NDArray[np.float64]

Z = 1.959963984540054
"""Quantile of the standard normal for 95 % intervals."""


@dataclass(frozen=True)
class Reliability:
    """95 % intervals of every annotator's confusion matrix.

    Attributes:
        low, high: float64 (annotators, true, observed), in 0..1.
        answers: float64 (annotators, true): expected number of answers each row rests on.
        accuracy: float64 (annotators, 3): share of right answers, over the classes as the annotator met them, with its
            limits: (estimate, low, high).
        escape, overkill: float64 (annotators, 3), likewise: share of the defects called OK, and of the good parts not
            called OK. None without an OK class; NaN where an annotator met no such part.
    """

    low: Floats
    high: Floats
    answers: Floats
    accuracy: Floats
    escape: Floats | None
    overkill: Floats | None


def reliability(
    answers: ArrayLike,
    result: DawidSkene,
    *,
    gold: Mapping[int, int] | None = None,
    smoothing: float = 0.0,
    ok: int | None = None,
    draws: int = 100,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Reliability:
    """Intervals for the confusion matrices of a Dawid-Skene result.

    Wilson's score interval (1927) on the expected counts would take the true classes for known and be too narrow
    where annotators are poor. So a bootstrap over items, refitted from the estimate each time, first says how many
    answers with known truth each row is worth (Kish's effective sample size, never more than there are), and Wilson's
    interval is taken on that many: it stays sensible at shares of 0 and 1, where a bootstrap alone gives no width.

    Args:
        answers, gold, smoothing: as given to `dawid_skene`. result: what it returned.
        ok: the class of the good parts, to tell escape and overkill too.
        draws: of the bootstrap. seed: of the bootstrap.
        progress: called with (draws done, draws in all).
    """
    classes = len(result.prior)
    counts = vote_counts(checked_answers(answers, classes), classes)
    fixed = gold_rows(gold or {}, counts.shape[1], classes)
    imagined = smoothing * typical(classes)
    expected = _expected(counts, result.posterior)
    rng = np.random.default_rng(seed)
    confusions, resampled = [], []
    for draw in range(draws):
        weight = rng.multinomial(counts.shape[1], np.full(counts.shape[1], 1 / counts.shape[1])).astype(np.float64)
        confusion, posterior = _refitted(counts, result.posterior, weight, fixed, imagined)
        confusions.append(confusion)
        resampled.append(_rates(_expected(counts, posterior * weight[:, None]), ok)[0])
        if progress is not None:
            progress(draw + 1, draws)
    trials = expected.sum(axis=2)
    worth = _effective(result.confusion, np.array(confusions).var(axis=0), trials, axis=2)
    low, high = wilson_limits(result.confusion, worth[:, :, None])
    rates, of = _rates(expected, ok)
    # of the draws in which the annotator met such a part
    met = np.isfinite(resampled)
    centre = np.where(met, resampled, 0.0).sum(axis=0) / np.maximum(met.sum(axis=0), 1)
    variance = np.where(met, (resampled - centre) ** 2, 0.0).sum(axis=0) / np.maximum(met.sum(axis=0), 1)
    limits = wilson_limits(rates, _effective(rates[..., None], variance[..., None], of, axis=2))
    shown = np.stack([rates, *limits], axis=2)
    return Reliability(low, high, trials, shown[0], *((shown[1], shown[2]) if ok is not None else (None, None)))


def wilson_limits(share: Floats, trials: Floats) -> tuple[Floats, Floats]:
    """Wilson's 95 % limits for a share among so many trials, which need not be whole; 0 and 1 without trials."""
    n = np.maximum(trials, 1e-12)
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * np.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    return np.clip(centre - half, 0.0, share), np.clip(centre + half, share, 1.0)


def _refitted(
    counts: Floats, posterior: Floats, weight: Floats, fixed: Floats | None, imagined: Floats, most: int = 200
) -> tuple[Floats, Floats]:
    """Confusion matrices and posterior when each item counts `weight` times; EM goes on from the estimate."""
    before = np.full(imagined.shape, np.inf)
    for _ in range(most):
        prior, confusion = m_step(counts, posterior * weight[:, None], imagined)
        if np.abs(confusion - before).max() < 1e-4:
            break
        before = confusion
        posterior = e_step(counts, prior, confusion, fixed)[1]
    return confusion, posterior


def _expected(counts: Floats, posterior: Floats) -> Floats:
    """Expected answers: (annotators, true, observed)."""
    return np.asarray(np.tensordot(posterior, counts, axes=(0, 1)).transpose(1, 0, 2))


def _rates(expected: Floats, ok: int | None) -> tuple[Floats, Floats]:
    """Accuracy and, with an OK class, escape and overkill (NaN where there is no such part), and how many answers each
    is a share of: (1 or 3, annotators).
    """
    right, of = [np.einsum("ajj->a", expected)], [expected.sum(axis=(1, 2))]
    if ok is not None:
        defects = np.delete(expected, ok, axis=1).sum(axis=1)
        right += [defects[:, ok], np.delete(expected[:, ok], ok, axis=1).sum(axis=1)]
        of += [defects.sum(axis=1), expected[:, ok].sum(axis=1)]
    counted, total = np.array(right), np.array(of)
    return np.where(total > 1e-9, counted / np.where(total > 1e-9, total, 1), np.nan), total


def _effective(share: Floats, variance: Floats, trials: Floats, axis: int) -> Floats:
    """How many answers of known truth would vary as much as the bootstrap did; at most `trials`."""
    spread, seen = (share * (1 - share)).sum(axis=axis), variance.sum(axis=axis)
    return np.minimum(np.where(seen > 0, spread / np.where(seen > 0, seen, 1), np.inf), trials)
