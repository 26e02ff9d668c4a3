"""What to label next: the parts the model is least certain of (Settles 2009, "Active Learning Literature Survey")."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

STRATEGIES = ("least_confident", "margin", "entropy")


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
