"""The folds of a comparison: every image is judged once a seed, by a model that has seen nothing of its part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from trainer.data.manifest import Dataset, class_groups
from trainer.data.splits import grouped_folds, grouped_split

Ints = NDArray[np.int64]
Protocol = Literal["grouped", "random"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

LEAST_FOLDS = 3
"""A class needs a group to learn from, one to choose by and one to be judged by."""

INNER = 0.2
"""Share of the training images that stops training, chooses penalty, temperature and recipe."""


@dataclass(frozen=True)
class Split:
    """What one cell learns from, chooses by and is judged by: rows of the dataset's items, int64, disjoint, together
    all of them.
    """

    protocol: Protocol
    seed: int
    fold: int
    train: Ints
    val: Ints
    test: Ints

    @property
    def name(self) -> str:
        """For file names: unique in a comparison."""
        return f"{self.protocol}-seed{self.seed}-fold{self.fold}"


def make_splits(dataset: Dataset, protocol: Protocol, folds: int, seeds: int) -> tuple[Split, ...]:
    """All splits of one protocol: ``folds`` a seed, stratified by class; the dataset's own split is ignored.

    Inside each training part a validation fold is cut in the same manner. "grouped" never cuts a group; "random" takes
    every image for a part of its own, which is how leakage is made visible.

    Raises:
        InputError: a class without enough images or groups for ``folds``.
    """
    check_classes(dataset, folds)
    labels = dataset.labels()
    names = [item.group if protocol == "grouped" else item.path for item in dataset.items]
    found = []
    for seed in range(seeds):
        fold_of = grouped_folds(labels, names, folds, seed)
        for fold in range(folds):
            learn, test = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
            train, val = _inner(labels, names, learn, seed * folds + fold)
            _check_learned(dataset, labels[train], folds)
            found.append(Split(protocol, seed, fold, train, val, test))
    return tuple(found)


def check_classes(dataset: Dataset, folds: int) -> None:
    """Raise InputError where a class has too few images or groups to be in every one of ``folds``."""
    where = dataset.folder or dataset.name
    groups = class_groups(dataset.items)
    for label, name in enumerate(dataset.classes):
        images = int((dataset.labels() == label).sum())
        parts = len(groups.get(name, ()))
        more = "photograph more parts of it, or import again without its folder"
        if images <= 1:
            raise InputError(f"{where}: class {name!r} has {('no', 'one')[images]} image; {more}")
        if parts < LEAST_FOLDS:
            raise InputError(
                f"{where}: the {images} images of class {name!r} lie in {parts} group(s); learning, choosing and "
                f"judging need {LEAST_FOLDS}: {more}"
            )
        if parts < folds:
            raise InputError(
                f"{where}: --folds {folds}, but the {images} images of class {name!r} lie in {parts} groups, which are "
                f"never cut: use --folds {parts} or fewer, or {more}"
            )


def _check_learned(dataset: Dataset, learned: Ints, folds: int) -> None:
    for label, name in enumerate(dataset.classes):
        if label not in learned:
            raise InputError(
                f"{dataset.folder or dataset.name}: --folds {folds} leaves no group of class {name!r} to learn from, "
                "since its groups also hold other classes; use another number of folds, or photograph more parts of it"
            )


def _inner(labels: Ints, names: Sequence[str], learn: Ints, seed: int) -> tuple[Ints, Ints]:
    part = grouped_split(labels[learn], [names[row] for row in learn], seed, (1 - INNER, INNER, 0.0))
    return learn[part == 0], learn[part == 1]
