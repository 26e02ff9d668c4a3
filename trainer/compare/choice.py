"""The nested choice: which recipe a cell takes where it may look at its validation fold alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calibration.metrics import balanced_accuracy, resamples, softmax
from calibration.risk import mean_escape
from trainer.compare.calls import called, ok_offset
from trainer.compare.statistics import Floats, Ints, Outcome, Truth

DRAWS = 200
"""Bootstrap resamples behind each standard error."""


def selection_score(p: Floats, calls: Ints, y: Ints, truth: Truth, overkill: float) -> float:
    """What a recipe is chosen by, 0..1, higher is better: the mean of balanced accuracy and of 1 - the mean escape over
    overkill up to twice ``overkill``; balanced accuracy alone where defects or good parts are missing.

    The escape at ``overkill`` itself would hang on a handful of parts of a validation fold.

    Args:
        p: probabilities, float64 (n, classes). calls, y: classes called, and labels, int64 (n,).
    """
    caught = 1 - mean_escape(1 - p[:, truth.ok_index], y != truth.ok_index, 2 * overkill)
    return float(np.nanmean((balanced_accuracy(calls, y, len(truth.classes)), caught)))


def chosen_by_validation(
    outcomes: dict[str, Sequence[Outcome]], truth: Truth, overkill: float, standard_errors: float = 1.0
) -> tuple[list[Outcome], list[str]]:
    """For each cell a recipe that its validation fold speaks for, judged on that cell's test fold.

    It is the last one whose selection score lies within one standard error below the highest (the rule of Breiman et
    al., Classification and Regression Trees, 1984; the error is of the paired difference, by bootstrap over groups): a
    small fold cannot tell such recipes apart, and their order says what to expect of each without it.

    Args:
        outcomes: by recipe, from the least expected to the most, each with the same cells in the same order.
        standard_errors: >= 0; with 0 the highest score alone counts, ties going to the last.

    Returns:
        The outcome of each cell, and the name of the recipe that it is from.
    """
    names = list(outcomes)
    best = [
        names[_last_within([outcomes[name][cell] for name in names], truth, overkill, standard_errors)]
        for cell in range(len(outcomes[names[0]]))
    ]
    return [outcomes[name][cell] for cell, name in enumerate(best)], best


def _last_within(rivals: Sequence[Outcome], truth: Truth, overkill: float, standard_errors: float) -> int:
    """Position of the recipe to take in one cell."""
    y = truth.labels[rivals[0].val]
    groups = [truth.groups[row] for row in rivals[0].val]
    probabilities = [softmax(rival.val_logits / rival.temperature(truth)) for rival in rivals]
    said = [(p, called(p, ok_offset(p, y, truth.ok_index), truth.ok_index)) for p in probabilities]

    def scores(rows: Ints) -> Floats:
        return np.array([selection_score(p[rows], calls[rows], y[rows], truth, overkill) for p, calls in said])

    whole = scores(np.arange(len(y)))
    behind = whole.max() - whole
    allowed: Floats | float = 0.0
    if standard_errors:
        drawn = np.stack([scores(rows) for rows in resamples(len(y), groups, DRAWS)])
        allowed = standard_errors * (drawn - drawn[:, [whole.argmax()]]).std(axis=0, ddof=1)
    return int(np.flatnonzero(behind <= allowed)[-1])
