"""What to label next: parts the model is unsure of, parts unlike any labelled one, rare ones, and some by lot.

Settles (2009), "Active Learning Literature Survey"; Sener & Savarese (2018), "Active Learning for Convolutional Neural
Networks: A Core-Set Approach" (k-centre).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]

STRATEGIES = ("least_confident", "margin", "entropy")


@dataclass(frozen=True)
class Queries:
    """What to label.

    Attributes:
        rows: int64 (count,), distinct; the uncertain ones first, then the rare, then the audit.
        reasons: (count,) "strategy", "rare" or "audit": why each was chosen.
    """

    rows: Ints
    reasons: tuple[str, ...]


def rank_queries(probabilities: ArrayLike, strategy: str) -> NDArray[np.int64]:
    """Indices of the rows, most informative first; ties in order of index.

    Args:
        probabilities: float (n, classes), rows sum to one.
        strategy: "least_confident" (lowest top probability), "margin" (least difference of the two top ones) or
            "entropy" (highest, in nats).

    Raises:
        ValueError: an unknown strategy, or rows that are no probabilities.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] < 2 or not np.isfinite(p).all() or (p < 0).any():
        raise ValueError(f"probabilities {p.shape} must be finite, >= 0 and (n, classes >= 2)")
    if len(p) and np.abs(p.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError(f"row {int(np.abs(p.sum(axis=1) - 1).argmax())} of the probabilities does not sum to one")
    if strategy == "least_confident":
        certainty = p.max(axis=1)
    elif strategy == "margin":
        ranked = np.sort(p, axis=1)
        certainty = ranked[:, -1] - ranked[:, -2]
    elif strategy == "entropy":
        certainty = (p * np.log(np.where(p > 0, p, 1.0))).sum(axis=1)
    else:
        raise ValueError(f"strategy {strategy!r} is unknown; use one of {', '.join(STRATEGIES)}")
    # rounded, so that rows equal but for the last bit keep the order of their index
    return np.argsort(np.round(certainty, 12), kind="stable")


def k_centre(features: ArrayLike, count: int, labelled: ArrayLike | None = None) -> Ints:
    """Rows that cover the rest: int64 (count,), in the order chosen.

    Greedy k-centre (Gonzalez 1985): each time the row farthest (Euclidean) from all chosen and labelled ones; ties go
    to the lower index. The largest distance left is at most twice the least possible one. Without labelled rows the
    one nearest to the mean comes first.

    Args:
        features: float (n, d), finite. count: 0..n. labelled: float (m, d), covered already.

    Raises:
        ValueError: arrays that do not fit, or a count out of range.
    """
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or not np.isfinite(x).all():
        raise ValueError(f"features {x.shape} must be finite and (n, d)")
    if not 0 <= count <= len(x):
        raise ValueError(f"count is {count}; there are {len(x)} rows")
    known = np.empty((0, x.shape[1])) if labelled is None else np.asarray(labelled, dtype=np.float64)
    if known.ndim != 2 or known.shape[1] != x.shape[1]:
        raise ValueError(f"labelled rows {known.shape} do not have the {x.shape[1]} features of the others")
    if count == 0:
        return np.empty(0, np.int64)
    chosen: list[int] = []
    nearest = np.full(len(x), np.inf)
    for row in known:
        nearest = np.minimum(nearest, _squared(x, row))
    if not len(known):
        chosen.append(int(_squared(x, x.mean(axis=0)).argmin()))
    while True:
        if chosen:
            nearest = np.minimum(nearest, _squared(x, x[chosen[-1]]))
            nearest[chosen[-1]] = -1.0  # never again, even among equal rows
        if len(chosen) == count:
            return np.array(chosen, dtype=np.int64)
        chosen.append(int(nearest.argmax()))


def _squared(x: NDArray[np.float64], row: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(((x - row) ** 2).sum(axis=1))


def select_queries(
    order: ArrayLike,
    count: int,
    *,
    probabilities: ArrayLike | None = None,
    rare: Sequence[int] = (),
    rare_share: float = 0.0,
    audit_share: float = 0.1,
    seed: int = 0,
) -> Queries:
    """The first rows of a ranking, with a quota for rare classes and, always, some drawn by lot.

    A model cannot ask about mistakes it is sure of, and rows chosen by it give no honest estimate of anything: the
    audit is drawn evenly from all rows first, at least one of them, and the other two parts are filled from the rest.

    Args:
        order: int (n,), a permutation of the rows, most informative first. count: 1..n.
        probabilities: float (n, classes), needed with a rare_share.
        rare: classes of which examples are wanted. rare_share: 0..1, share of the count that goes to the rows most
            probably of one of these.
        audit_share: 0 < share <= 1, rounded up; what both shares leave goes to the ranking.
        seed: of the audit.

    Raises:
        ValueError: no permutation, a count or share out of range, or a quota without classes or probabilities.
    """
    ranked = np.asarray(order, dtype=np.int64)
    n = len(ranked)
    if ranked.ndim != 1 or (np.sort(ranked) != np.arange(n)).any():
        raise ValueError("order is no permutation of the rows")
    if not 1 <= count <= n:
        raise ValueError(f"count is {count}; there are {n} rows")
    if not (0 < audit_share <= 1 and 0 <= rare_share <= 1 and audit_share + rare_share <= 1):
        raise ValueError(f"shares {audit_share} (audit) and {rare_share} (rare): audit > 0, and their sum at most 1")
    by_lot = max(1, int(np.ceil(audit_share * count - 1e-9)))
    audit = np.random.default_rng(seed).choice(n, by_lot, replace=False)
    rest = ranked[~np.isin(ranked, audit)]
    wanted = min(int(np.ceil(rare_share * count - 1e-9)), count - by_lot)
    quota = _most_probable(probabilities, rare, rest, wanted) if wanted else np.empty(0, np.int64)
    uncertain = rest[~np.isin(rest, quota)][: count - by_lot - len(quota)]
    reasons = ["strategy"] * len(uncertain) + ["rare"] * len(quota) + ["audit"] * by_lot
    return Queries(np.concatenate([uncertain, quota, audit]).astype(np.int64), tuple(reasons))


def _most_probable(probabilities: ArrayLike | None, rare: Sequence[int], rest: Ints, wanted: int) -> Ints:
    """Rows of `rest` most probably of a rare class, each class in turn, so that none takes the whole quota."""
    if probabilities is None or not rare:
        raise ValueError("a quota for rare classes needs the classes and the probabilities")
    p = np.asarray(probabilities, dtype=np.float64)
    queues = [rest[np.argsort(-p[rest, k], kind="stable")].tolist() for k in rare]
    chosen: list[int] = []
    while len(chosen) < wanted:
        for queue in queues:
            taken = next((row for row in queue if row not in chosen), None)
            if taken is not None and len(chosen) < wanted:
                chosen.append(taken)
    return np.array(chosen, dtype=np.int64)
