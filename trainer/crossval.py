"""Probabilities of each image by a model that has not seen it: what confident learning needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.metrics import softmax
from calibration.temperature import fit_temperature
from trainer.data.loader import load_split
from trainer.data.manifest import SPLITS, Dataset, class_groups
from trainer.data.splits import grouped_folds
from trainer.features import FORWARD_BATCH, Pixels, Progress, keep_freed_memory, silent
from trainer.head import fit_head
from trainer.models.build import Network
from trainer.models.classifier import Classifier
from trainer.recipes import FROZEN
from trainer.run import plan

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold probabilities, in the order of the dataset's items.

    Attributes:
        probabilities: float64 (n, classes), rows sum to one; calibrated by one temperature over all folds.
        fold: int64 (n,): the fold whose model never saw the row's group.
        penalty: of the head. temperature: of the probabilities.
    """

    probabilities: NDArray[np.float64]
    fold: Ints
    penalty: float
    temperature: float


def out_of_fold_probabilities(
    dataset: Dataset,
    folds: int = 5,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    progress: Progress = silent,
) -> OutOfFold:
    """Judge every image by a head fitted on the other folds, over features of the frozen ImageNet backbone.

    Folds never cut a group; the dataset's own split is ignored. Labels are taken as given (soft labels are not used:
    the label is what is in doubt) and every image weighs alike, so that probabilities mean frequencies. The head's
    penalty is chosen on the first fold and used for all.

    Args:
        folds: number of folds, at least 2. seed: of the folds.
        size: (height, width) of the input instead of the one chosen from the frames.
        progress: called with (what is being done, how many are done, of how many).

    Raises:
        InputError: a class too small for it, more folds than groups, or images that cannot be read.
    """
    fold = checked_folds(dataset, folds, seed)
    keep_freed_memory()
    settings = plan(dataset, FROZEN, seed, size)
    model = Classifier(settings.model)
    model.load_imagenet()
    model.eval()
    features = np.empty((len(dataset.items), model.features), np.float32)
    for split in SPLITS:
        rows = np.array([i for i, item in enumerate(dataset.items) if item.split == split], dtype=np.int64)
        if len(rows):
            loaded = load_split(dataset, settings.spec, split, partial(progress, f"reading {split}"))
            features[rows] = embed(model, loaded.images, progress, f"features of {split}")
    labels = dataset.labels()
    logits = np.empty((len(labels), len(dataset.classes)), np.float32)
    recipe, penalty = FROZEN, np.nan
    for held_out in range(folds):
        learn, judge = fold != held_out, fold == held_out
        targets = np.eye(len(dataset.classes), dtype=np.float32)[labels[learn]]
        weights = torch.ones(len(dataset.classes))
        fit = fit_head(model, features[learn], targets, features[judge], labels[judge], recipe, weights)
        recipe, penalty = replace(FROZEN, head_penalties=(fit.penalty,)), fit.penalty
        with torch.no_grad():
            logits[judge] = model.classify(torch.from_numpy(features[judge])).numpy()
        progress("folds", held_out + 1, folds)
    temperature = fit_temperature(logits, labels)
    return OutOfFold(softmax(logits / temperature), fold, penalty, temperature)


def checked_folds(dataset: Dataset, folds: int, seed: int) -> Ints:
    """Fold of each image: int64 (n,); every class can be learned without any one of them.

    Raises:
        InputError: a class with fewer than two images or groups, or more folds than groups, with the remedy.
    """
    where = dataset.folder or dataset.name
    names = [item.group for item in dataset.items]
    groups = class_groups(dataset.items)
    labels = dataset.labels()
    for label, name in enumerate(dataset.classes):
        images, parts = int((labels == label).sum()), len(groups.get(name, ()))
        if parts < 2:
            raise InputError(
                f"{where}: class {name!r} has {images} image(s) in {parts} group(s); judging one needs another to "
                "learn from: photograph more parts of it, or take the class out of the dataset"
            )
    if folds > len(set(names)):
        raise InputError(f"{where}: --folds {folds}, but there are {len(set(names))} groups, which are never cut")
    fold = grouped_folds(labels, names, folds, seed)
    for held_out in range(folds):
        for label in np.setdiff1d(labels, labels[fold != held_out]).tolist():
            raise InputError(
                f"{where}: --folds {folds} leaves no group of class {dataset.classes[label]!r} to learn from; "
                "use another number of folds, or photograph more parts of it"
            )
    return fold


def embed(model: Network, frames: Pixels, progress: Progress, what: str) -> Floats:
    """Pooled features of frames uint8 (n, C, H, W): float32 (n, model.features)."""
    features = np.empty((len(frames), model.features), np.float32)
    with torch.no_grad():
        for start in range(0, len(frames), FORWARD_BATCH):
            batch = torch.from_numpy(np.array(frames[start : start + FORWARD_BATCH]))
            features[start : start + FORWARD_BATCH] = model.seen(batch.contiguous(memory_format=torch.channels_last))
            progress(what, min(start + FORWARD_BATCH, len(frames)), len(frames))
    return features
