"""What a student is: its recipe, its input size, and the weights it starts from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.preprocess import PreprocessSpec
from trainer.data.manifest import Dataset
from trainer.features import FORWARD_BATCH, Pixels, Progress
from trainer.fine_tune import Fold
from trainer.head import fit_head
from trainer.models import mobilenet_v3
from trainer.models.build import Network
from trainer.models.classifier import Classifier
from trainer.recipes import SHORT_SIDE, Recipe
from trainer.run import RunSettings, plan
from trainer.teacher import Teacher

SMALLER = Recipe(
    "student", dropout=0.2, epochs=16, frozen_stages=3, learning_rate=4e-4, head_rate=0.5, balance=0.0, patience=16
)
"""Of a student that starts from trained weights: its teacher's, or ImageNet's."""

SMALLEST = Recipe(
    "smallest student",
    backbone=mobilenet_v3.NAME,
    dropout=0.1,
    epochs=30,
    frozen_stages=0,
    batch=32,
    learning_rate=3e-3,
    weight_decay=0.05,
    balance=0.0,
    patience=30,
)
"""Of one that starts from nothing: more steps, at a higher rate."""


def student_recipe(backbone: str, teacher: Teacher, epochs: int | None = None) -> Recipe:
    """The recipe of a student. Raises InputError where ``epochs`` is out of range.

    A pretrained student answers from one view; the smallest one can afford all the views that its teacher averages.
    """
    recipe = replace(SMALLER, backbone=backbone, flips=teacher.settings.recipe.flips)
    if backbone == mobilenet_v3.NAME:
        average = teacher.settings.model.flip_average
        recipe = replace(SMALLEST, flips=teacher.settings.recipe.flips, flip_average=average)
    return replace(recipe, epochs=epochs) if epochs is not None else recipe


def student_size(spec: PreprocessSpec) -> tuple[int, int]:
    """(height, width) of a student's input: half its teacher's, but no short side below SHORT_SIDE for it."""
    scale = min(1.0, max(0.5, SHORT_SIDE / min(spec.height, spec.width)))
    return max(1, round(spec.height * scale)), max(1, round(spec.width * scale))


def student_settings(
    dataset: Dataset, teacher: Teacher, recipe: Recipe, seed: int, size: tuple[int, int] | None
) -> RunSettings:
    """Settings of the student's run; ``size`` is (height, width), or None for half the teacher's.

    Raises InputError where padded frames would lie differently in the two inputs.
    """
    theirs = teacher.settings.spec
    settings = plan(dataset, recipe, seed, size or student_size(theirs))
    ours = settings.spec
    if ours.fit == "pad" and abs(ours.height * theirs.width / (ours.width * theirs.height) - 1) > 0.02:
        raise InputError(
            f"size: {ours.height}x{ours.width} has another aspect ratio than the teacher's {theirs.height}x"
            f"{theirs.width}, and these frames are padded; give --size in its proportion"
        )
    if size is not None:
        return settings
    reason = f"about half the input of its teacher ({ours.width}x{ours.height} of {theirs.width}x{theirs.height})"
    return replace(settings, size_reason=reason)


def begin(model: Classifier, fold: Fold, teacher: Teacher | None, progress: Progress) -> None:
    """The student's first weights: its teacher's where they are of one kind, else ImageNet's with a fitted head, else
    the random ones it has.
    """
    if model.config.backbone == mobilenet_v3.NAME:
        return
    if teacher is not None and _same_layers(model, teacher.model):
        model.load_state_dict(teacher.model.state_dict())
        return
    model.load_imagenet()
    features, val = (
        _features(model, split.images, f"features ({name})", progress)
        for name, split in (("training", fold.train), ("validation", fold.val))
    )
    fit_head(model, features, fold.targets, val, fold.val.labels, fold.recipe, fold.class_weights)


def _same_layers(a: Network, b: Network) -> bool:
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in (a, b)]
    return shapes[0] == shapes[1]


def _features(model: Classifier, frames: Pixels, what: str, progress: Progress) -> NDArray[np.float32]:
    model.eval()
    found = np.empty((len(frames), model.features), np.float32)
    with torch.no_grad():
        for first in range(0, len(frames), FORWARD_BATCH):
            batch = torch.from_numpy(np.array(frames[first : first + FORWARD_BATCH]))
            found[first : first + len(batch)] = model.embed(model.lower(batch, 0), 0).numpy()
            progress(what, first + len(batch), len(frames))
    return found
