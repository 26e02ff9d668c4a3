"""The upper backbone learns, epoch by epoch, from what the frozen stages make of the frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.checkpoint import Checkpoints, Progressed, State
from trainer.data.loader import LoadedSplit
from trainer.data.sampling import draw_batches, sample_rows, seen_counts
from trainer.device import device_of, learning_on
from trainer.features import Activations, Progress, embed_all, silent
from trainer.head import validation_score
from trainer.losses import focal_loss, sample_weights
from trainer.models.classifier import Classifier
from trainer.precision import learns_in
from trainer.recipes import Recipe

LEAST_STEPS = 16
"""Steps an epoch has at least: a set of forty frames learns nothing from two."""


SEEDS_APART = 1_000_000
"""Between the seeds of two members of a committee."""


@dataclass(frozen=True)
class Fold:
    """What is learned from, and what it is chosen by."""

    train: LoadedSplit
    val: LoadedSplit
    recipe: Recipe
    seed: int

    @property
    def targets(self) -> NDArray[np.float32]:
        """float32 (n, classes): the doubt of the annotators, or one-hot labels where the recipe ignores
        it.
        """
        one_hot = np.eye(self.train.soft.shape[1], dtype=np.float32)[self.train.labels]
        return self.train.soft.copy() if self.recipe.soft_labels else one_hot

    @property
    def seen(self) -> NDArray[np.int64]:
        """int64 (classes,): samples of each class that an epoch shows, after resampling or SMOTE."""
        counts = seen_counts(self.train.labels, self.train.soft.shape[1], self.recipe.sampling)
        return np.where(counts > 0, counts.max(), 0) if self.recipe.smote else counts

    @property
    def class_weights(self) -> Tensor:
        """float32 (classes,), mean 1 over the samples seen."""
        return sample_weights(self.seen, self.recipe.balance)


def start(model: Classifier, recipe: Recipe) -> State:
    """A state at epoch 0: AdamW without decay on biases and norms, a gentler rate for the fitted head."""
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    groups = []
    for in_head in (False, True):
        for decays in (True, False):
            chosen = [p for n, p in weights.items() if n.startswith("linear.") == in_head and (p.ndim > 1) == decays]
            decay = recipe.weight_decay if decays else 0.0
            groups.append({"params": chosen, "weight_decay": decay, "share": recipe.head_rate if in_head else 1.0})
    fixed = {"feature_mean": model.feature_mean, "feature_scale": model.feature_scale}
    return State(weights, fixed, torch.optim.AdamW(groups, lr=recipe.learning_rate), Progressed())


def learn(
    model: Classifier,
    fold: Fold,
    number: int,
    lower: Activations,
    lower_val: Activations,
    begin: Callable[[], float],
    checkpoints: Checkpoints,
    device: torch.device,
    progress: Progress,
    after_epoch: Callable[[State, int], None],
) -> Progressed:
    """Train a member of a committee, or a network that is alone, from its checkpoint on where there is one; the model
    gets the weights that are kept.

    Args:
        model: with ImageNet's weights, on the CPU.
        number: of the member, from 0 on: members start alike and see the frames in another order each.
        begin: fits what training starts from besides ImageNet's weights; returns its validation score.
        device: where it learns.
        after_epoch: called with the state and the number; is to save it, so that a kill costs one epoch at most.

    Raises:
        InputError: the checkpoint is damaged, or of another training.
    """
    state, recipe = start(model, fold.recipe), fold.recipe
    if not checkpoints.restore(state, number):
        state.at.best_score = begin()
        state.keep_best()

    def of_members(what: str, done: int, total: int) -> None:
        progress(what if recipe.committee == 1 else f"network {number + 1} of {recipe.committee}, {what}", done, total)

    seeded = replace(fold, seed=fold.seed + number * SEEDS_APART)
    with learning_on(device, model, state):
        for _ in fine_tune(model, seeded, lower, lower_val, state, of_members):
            after_epoch(state, number)
    state.load(state.best)
    return state.at


def fine_tune(
    model: Classifier, fold: Fold, lower: Activations, lower_val: Activations, state: State, progress: Progress
) -> Iterator[Progressed]:
    """Train everything above the frozen stages, yielding after each epoch; the best weights are
    ``state.best``.

    AdamW (Loshchilov & Hutter, ICLR 2019), cosine learning rate after a warm-up, running average of the
    weights; stops early when the validation score has not improved for ``recipe.patience`` epochs. With
    ``recipe.keep_last`` the best weights are the last, and no epoch but that is validated.
    """
    recipe, device = fold.recipe, device_of(model)
    precision = learns_in(recipe, device)
    targets, class_weights = torch.from_numpy(fold.targets).to(device), fold.class_weights.to(device)
    steps = max(len(fold.train.labels) // recipe.batch, LEAST_STEPS)

    def rows_of_a_round(rng: np.random.Generator) -> NDArray[np.int64]:
        return sample_rows(fold.train.labels, recipe.sampling, rng)

    while not _is_over(state.at, recipe):
        epoch, losses = state.at.epoch, []
        torch.manual_seed(fold.seed * 10_007 + epoch)  # of dropout
        model.train()
        if model.places is not None:
            model.places.eval()  # its turn comes later; its dropout would change the backbone's
        key = (fold.seed, epoch)
        for rows, copies in draw_batches(len(targets), len(lower.copies), steps, recipe.batch, key, rows_of_a_round):
            set_rate(state.optimiser, recipe, state.at.step / (recipe.epochs * steps))
            shown = lower.get(rows, copies).to(device, precision)
            maps = model.backbone.upper(shown, recipe.frozen_stages)
            logits = model.classify(model.pool(*(part.float() for part in maps)))
            loss = focal_loss(logits, targets[torch.from_numpy(rows)], recipe.gamma, class_weights)
            losses.append(state.descend(loss, recipe.ema))
            progress(f"epoch {epoch + 1} of {recipe.epochs}", len(losses), steps)
        notes = {"loss": float(np.mean(losses))}
        if recipe.keep_last and epoch + 1 < recipe.epochs:
            state.count_epoch(notes)
        else:
            _judge(model, fold, lower_val, state, notes)
        yield state.at


def _is_over(at: Progressed, recipe: Recipe) -> bool:
    """Whether no epoch is left, or patience has run out."""
    return at.epoch >= recipe.epochs or (not recipe.keep_last and at.epoch - at.best_epoch >= recipe.patience)


def _judge(model: Classifier, fold: Fold, lower_val: Activations, state: State, notes: dict[str, float]) -> None:
    """Finish an epoch by the validation score of the averaged weights."""
    with state.averaged_weights():
        logits = predict_lower(model, lower_val)
    score, error = validation_score(logits, fold.val.labels)
    accuracy = float((logits.argmax(1) == fold.val.labels).mean())
    state.finish_epoch(score, math.inf if fold.recipe.keep_last else error, {**notes, "val_accuracy": accuracy})


def predict_lower(model: Classifier, lower: Activations) -> NDArray[np.float32]:
    """Logits of every frame from its cached activations: float32 (n, classes)."""
    model.eval()
    features = embed_all(model, lower, silent, "")[0]
    with torch.no_grad():
        logits: NDArray[np.float32] = model.classify(torch.from_numpy(features).to(device_of(model))).cpu().numpy()
    return logits


def set_rate(optimiser: torch.optim.Optimizer, recipe: Recipe, done: float) -> None:
    """Learning rate after the share ``done`` (0..1) of all steps: linear warm-up, cosine to zero."""
    warm = min(1.0, done / recipe.warmup) if recipe.warmup else 1.0
    rate = recipe.learning_rate * warm * (1 + math.cos(math.pi * done)) / 2
    for group in optimiser.param_groups:
        group["lr"] = rate * group["share"]
