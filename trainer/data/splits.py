"""Grouped, stratified, seeded splits: images of one part never lie on both sides.

Without groups every class is cut exactly (each share within one image of its target, and so are the totals). With
groups an exact cut need not exist: groups are dealt out one by one, the largest first, each to where the chi-square
distance between wanted and found class counts grows least.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

DEFAULT_FRACTIONS = (0.65, 0.10, 0.25)
"""Shares of train, val and test."""

SMALL = 1000
SMALL_FRACTIONS = (0.55, 0.20, 0.25)
"""Shares below SMALL images: a tenth of few images holds too few defects to fit a threshold on."""

PRIORITY = (0, 2, 1)
"""A class with few groups is put in train first, then test, then val."""


def default_fractions(images: int) -> tuple[float, float, float]:
    """Shares of train, val and test for a set of this many images."""
    return DEFAULT_FRACTIONS if images >= SMALL else SMALL_FRACTIONS


def grouped_split(
    labels: Sequence[int] | Ints,
    groups: Sequence[str],
    seed: int,
    fractions: tuple[float, float, float] = DEFAULT_FRACTIONS,
) -> Ints:
    """Split of each image: int64 (n,), 0 train, 1 val, 2 test.

    A class found in three or more groups is found in every split that has a share; with fewer, in train first. The
    same input and seed give the same result.

    Args:
        labels: int (n,), >= 0: what to keep in proportion; strata finer than the classes are welcome.
        groups: (n,) names; images of one group stay together.
        fractions: shares of train, val and test: each >= 0, sum 1.

    Raises:
        InputError: fractions are no shares, nothing to split, or fewer groups than splits.
    """
    shares = np.asarray(fractions, dtype=np.float64)
    if not np.isfinite(shares).all() or (shares < 0).any() or abs(shares.sum() - 1) > 1e-6:
        raise InputError(f"split fractions {fractions}: each must be >= 0, and their sum 1")
    used = [part for part in PRIORITY if shares[part] > 0]
    counts, members = _by_group(labels, groups)
    if len(counts) < len(used):
        raise InputError(
            f"{len(counts)} group(s) cannot fill {len(used)} splits; a group is never cut: give more parts, "
            "or correct groups.csv"
        )
    return _deal(counts, shares / shares.sum(), used, seed)[members]


def grouped_folds(labels: Sequence[int] | Ints, groups: Sequence[str], k: int, seed: int) -> Ints:
    """Fold of each image for cross-validation: int64 (n,), 0..k-1, stratified by label, no group cut.

    A class is in as many folds as its groups allow.

    Args:
        labels, groups: as for `grouped_split`.
        k: number of folds, 2..number of groups.

    Raises:
        InputError: k is below 2 or above the number of groups.
    """
    counts, members = _by_group(labels, groups)
    if not 2 <= k <= len(counts):
        raise InputError(f"{k} folds of {len(counts)} group(s): folds must be between 2 and the number of groups")
    return _deal(counts, np.full(k, 1.0 / k), list(range(k)), seed)[members]


def _by_group(labels: Sequence[int] | Ints, groups: Sequence[str]) -> tuple[Ints, Ints]:
    """Images per group and class, int64 (g, classes); and the group of each image, int64 (n,)."""
    y = np.asarray(labels, dtype=np.int64)
    if len(y) != len(groups) or len(y) == 0:
        raise InputError(f"{len(y)} labels and {len(groups)} groups: nothing to split, or not one of each per image")
    order: dict[str, int] = {}
    members = np.array([order.setdefault(group, len(order)) for group in groups], dtype=np.int64)
    counts = np.zeros((len(order), int(y.max()) + 1), np.int64)
    np.add.at(counts, (members, y), 1)
    return counts[:, counts.any(axis=0)], members


def _deal(counts: Ints, shares: Floats, priority: list[int], seed: int) -> Ints:
    """Part of each group: int64 (g,). Every part gets some of each class where groups allow it."""
    rng = np.random.default_rng(seed)
    if (counts.sum(axis=1) == 1).all():
        return _exact(counts.argmax(axis=1), shares, priority, rng)
    return _balanced(counts, shares, priority, rng)


def _exact(labels: Ints, shares: Floats, priority: list[int], rng: np.random.Generator) -> Ints:
    """Parts of single images: each class's share in each part is its target rounded up or down.

    Whole images first; the remainders of a class go where the parts filled so far lack most, so that the roundings
    of many classes do not add up.
    """
    parts = np.empty(len(labels), np.int64)
    lack = np.zeros(len(shares))
    for label in np.unique(labels):
        where = rng.permutation(np.flatnonzero(labels == label))
        target = len(where) * shares
        cut = np.floor(target + 1e-9).astype(np.int64)
        lack += target - cut
        open_parts = [part for part in priority if target[part] - cut[part] > 1e-9]
        for part in sorted(open_parts, key=lambda p: -round(float(lack[p]), 9))[: len(where) - int(cut.sum())]:
            cut[part] += 1
            lack[part] -= 1
        _cover(cut, priority)
        parts[where] = np.repeat(np.arange(len(shares)), cut)
    return parts


def _cover(cut: Ints, priority: list[int]) -> None:
    """Give every part one image of the class where there are enough, the first in priority otherwise; in place."""
    for part in priority[: int(cut.sum())]:
        if cut[part] == 0:
            cut[part] += 1
            cut[int(cut.argmax())] -= 1


def _balanced(counts: Ints, shares: Floats, priority: list[int], rng: np.random.Generator) -> Ints:
    target = counts.sum(axis=0)[None, :] * shares[:, None]
    weight = 1.0 / np.maximum(target, 1e-12)
    found = np.zeros_like(target)
    parts = np.full(len(counts), -1, np.int64)

    def cost(groups: Ints) -> Floats:
        """Growth of the chi-square distance, float64 (len(groups), parts)."""
        g = counts[groups][:, None, :].astype(np.float64)
        growth = np.where(g > 0, (2 * g * (found - target)[None] + g * g) * weight[None], 0.0)
        return np.asarray(growth.sum(axis=2))

    def put(group: int, part: int) -> None:
        parts[group] = part
        found[part] += counts[group]

    shuffled = rng.permutation(len(counts))
    # every part gets its group of every class while there is a choice: the classes with fewest groups first
    for label in np.argsort((counts > 0).sum(axis=0), kind="stable"):
        for part in priority:
            free = shuffled[(counts[shuffled, label] > 0) & (parts[shuffled] < 0)]
            if found[part, label] == 0 and len(free):
                put(int(free[cost(free)[:, part].argmin()]), part)
    for group in shuffled[np.argsort(-counts[shuffled].sum(axis=1), kind="stable")]:
        if parts[group] < 0:
            put(int(group), int(cost(np.array([group]))[0].argmin()))
    return parts
