"""Training, top to bottom: pixels, frozen features, head, then the upper backbone; into a run folder.

Everything random is drawn from (seed, epoch), so on the CPU a run is the same to the last bit on one machine with the
same number of threads, and a run that was killed and started again equals one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calibration.errors import InputError
from calibration.temperature import fit_temperature
from trainer.checkpoint import Progressed, State
from trainer.data.loader import LoadedSplit, load_split
from trainer.data.manifest import Dataset
from trainer.data.sampling import draw_batches, sample_rows, seen_counts
from trainer.device import CPU, device_of, learning_on
from trainer.features import Activations, Progress, embed_all, keep_freed_memory, predict, silent
from trainer.head import adjust_bias, fit_head, learning_set, validation_score
from trainer.losses import focal_loss, sample_weights
from trainer.models.attention_crop import AttentionCrop
from trainer.models.build import build
from trainer.models.classifier import Classifier, save_run_model
from trainer.prepare import fit_anomaly, fit_places, start_pooling
from trainer.recipes import Recipe
from trainer.run import CHECKPOINT, LOG, MODEL, SETTINGS, RunSettings, claim, plan, scores_of, write_json

LEAST_STEPS = 16
"""Steps an epoch has at least: a set of forty frames learns nothing from two."""


@dataclass(frozen=True)
class TrainResult:
    """What a training run came to.

    Attributes:
        run: its folder. settings: what it was told, with the input size and its reason.
        epochs: done in all; kept_epoch: whose weights were kept (0: the head on the frozen backbone).
        val_score: NLL of the validation split at its best temperature, nats, of the best epoch or of the head fitted
            anew, before logit adjustment; lower is better.
        seconds: wall time of this call.
    """

    run: Path
    settings: RunSettings
    epochs: int
    kept_epoch: int
    val_score: float
    seconds: float


def train(
    dataset: Dataset,
    run: Path,
    recipe: Recipe,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    progress: Progress = silent,
    device: torch.device = CPU,
) -> TrainResult:
    """Train a classifier on the dataset's train split, choose by its val split, score val and test.

    Writes into ``run``: run.json, model.safetensors, log.jsonl, scores.val.csv, scores.test.csv and, where
    the backbone learns, checkpoint/. Started again after a kill it goes on from the last whole epoch. Seeds
    torch's global generator.

    Args:
        size: (height, width) of the input instead of the one chosen from the frames.
        progress: called with (what is being done, how many are done, of how many).
        device: where the upper backbone learns; everything else is done on the CPU.

    Raises:
        InputError: the dataset cannot be trained on (by this recipe), or the run folder holds another training.
    """
    started = time.monotonic()
    keep_freed_memory()
    settings = plan(dataset, recipe, seed, size)
    if recipe.tau:
        _check_every_class(dataset, recipe)
    claim(run, settings)
    splits = {name: _load(dataset, settings, name, progress) for name in ("train", "val", "test")}
    fold = Fold(splits["train"], splits["val"], recipe, seed)

    model = _network(settings, fold, dataset.ok_index, progress)
    lower = Activations(model, fold.train.images, recipe.frozen_stages, recipe.flips, recipe.jitter, seed)
    lower.fill(progress, "frozen layers")
    lower_val = Activations(model, fold.val.images, recipe.frozen_stages)
    lower_val.fill(progress, "frozen layers (validation)")
    at = _learn(model, fold, lower, lower_val, run / CHECKPOINT, settings.fingerprint, progress, device)

    score = at.best_score
    if recipe.retrain_head:
        score = start_head(model, fold, lower, lower_val, progress)
    finish(model, fold, lower, lower_val, dataset.ok_index, progress)
    save_run_model(model, dataset.classes, run / MODEL)
    for name in ("val", "test"):
        logits = predict(model, splits[name].images, progress, f"scoring {name}")
        scores_of(settings, splits[name], logits).write(run / f"scores.{name}.csv")
    (run / LOG).write_text("".join(json.dumps(line) + "\n" for line in at.history), encoding="utf-8")
    result = TrainResult(run, settings, at.epoch, at.kept_epoch, score, time.monotonic() - started)
    outcome = {"epochs": at.epoch, "kept_epoch": at.kept_epoch, "val_score": score}
    write_json(run / SETTINGS, {**settings.to_json(), **outcome, "seconds": round(result.seconds, 1)})
    return result


def _network(settings: RunSettings, fold: Fold, ok_index: int, progress: Progress) -> Classifier:
    """A new one with ImageNet's weights, which knows where to look, its lower stages frozen."""
    model = build(settings.model)
    model.load_imagenet()
    if isinstance(model, AttentionCrop):
        model.fit_locator(fold.train.images, fold.train.labels == ok_index, progress)
    model.backbone.freeze_lower(fold.recipe.frozen_stages)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def _learn(
    model: Classifier,
    fold: Fold,
    lower: Activations,
    lower_val: Activations,
    checkpoint: Path,
    fingerprint: str,
    progress: Progress,
    device: torch.device,
) -> Progressed:
    """Fit the head and let the upper backbone learn, from the checkpoint on where there is one; the best is kept."""
    state, learned_by = start(model, fold.recipe), replace(fold, recipe=fold.recipe.of_the_backbone)
    if not state.restore(checkpoint, fingerprint):
        start_pooling(model, lower, fold.train.labels, fold.seed)
        state.at.best_score = start_head(model, learned_by, lower, lower_val, progress)
        state.keep_best()
    with learning_on(device, model, state):
        for _ in fine_tune(model, learned_by, lower, lower_val, state, progress):
            state.save(checkpoint, fingerprint)
    state.load(state.best)
    return state.at


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


def start_head(model: Classifier, fold: Fold, lower: Activations, lower_val: Activations, progress: Progress) -> float:
    """Fit the linear head on the backbone's features as it stands; returns its validation score.

    Fine-tuning starts from it too: a random head would first tear the pretrained features apart (Kumar et
    al., "Fine-Tuning can Distort Pretrained Features", ICLR 2022).
    """
    model.eval()
    features = embed_all(model, lower, progress, "features")
    return fit_head(
        model,
        *learning_set(features, fold.train.labels, fold.targets, fold.recipe, fold.seed),
        embed_all(model, lower_val, progress, "features (validation)")[0],
        fold.val.labels,
        fold.recipe,
        fold.class_weights,
    ).score


def finish(
    model: Classifier, fold: Fold, lower: Activations, lower_val: Activations, ok_index: int, progress: Progress
) -> None:
    """What joins the logits of the network as it is at last, each weighed against what is there already: logit
    adjustment, the distance to good parts, the votes of places, as far as the recipe has them.
    """
    recipe, labels = fold.recipe, fold.train.labels
    if recipe.tau:
        temperature = fit_temperature(predict_lower(model, lower_val), fold.val.labels)
        adjust_bias(model, fold.seen * fold.class_weights.numpy(), recipe.tau, temperature)
    if recipe.anomaly:
        frames = lower.of(np.arange(len(lower)), "none")
        features, val = (embed_all(model.eval(), part, progress, "good parts")[0] for part in (frames, lower_val))
        fit_anomaly(model, features, labels, val, fold.val.labels, ok_index)
    if recipe.places:
        fit_places(model, lower, labels, lower_val, fold.val.labels, fold.seed, progress)


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


def fine_tune(
    model: Classifier, fold: Fold, lower: Activations, lower_val: Activations, state: State, progress: Progress
) -> Iterator[Progressed]:
    """Train everything above the frozen stages, yielding after each epoch; the best weights are
    ``state.best``.

    AdamW (Loshchilov & Hutter, ICLR 2019), cosine learning rate after a warm-up, running average of the
    weights; stops early when the validation score has not improved for ``recipe.patience`` epochs. With
    ``recipe.keep_last`` the best weights are the last.
    """
    recipe, device = fold.recipe, device_of(model)
    targets, class_weights = torch.from_numpy(fold.targets).to(device), fold.class_weights.to(device)
    steps = max(len(fold.train.labels) // recipe.batch, LEAST_STEPS)

    def rows_of_a_round(rng: np.random.Generator) -> NDArray[np.int64]:
        return sample_rows(fold.train.labels, recipe.sampling, rng)

    while state.at.epoch < recipe.epochs and state.at.epoch - state.at.best_epoch < recipe.patience:
        epoch, losses = state.at.epoch, []
        torch.manual_seed(fold.seed * 10_007 + epoch)  # of dropout
        model.train()
        if model.places is not None:
            model.places.eval()  # its turn comes later; its dropout would change the backbone's
        key, light = (fold.seed, epoch), np.random.default_rng([3, fold.seed, epoch])
        for rows, copies in draw_batches(len(targets), len(lower.copies), steps, recipe.batch, key, rows_of_a_round):
            set_rate(state.optimiser, recipe, state.at.step / (recipe.epochs * steps))
            shown = lower.relit(rows, copies, light) if recipe.relight else lower.get(rows, copies)
            logits = model.classify(model.embed(shown.to(device), recipe.frozen_stages))
            loss = focal_loss(logits, targets[torch.from_numpy(rows)], recipe.gamma, class_weights)
            state.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            state.optimiser.step()
            state.step(recipe.ema)
            losses.append(loss.item())
            progress(f"epoch {epoch + 1} of {recipe.epochs}", len(losses), steps)
        with state.averaged_weights():
            val_logits = predict_lower(model, lower_val)
            score, error = validation_score(val_logits, fold.val.labels)
            accuracy = float((val_logits.argmax(1) == fold.val.labels).mean())
            allowed = math.inf if recipe.keep_last else error
            state.finish_epoch(score, allowed, {"loss": float(np.mean(losses)), "val_accuracy": accuracy})
        yield state.at


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


def _check_every_class(dataset: Dataset, recipe: Recipe) -> None:
    present = {item.label for item in dataset.of("train")}
    for name in dataset.classes:
        if name not in present:
            raise InputError(
                f"{dataset.folder or dataset.name}: class {name!r} has no training image, so logit adjustment knows no "
                f"share of it; add images of it, or set tau of recipe {recipe.name} to 0"
            )


def _load(dataset: Dataset, settings: RunSettings, name: str, progress: Progress) -> LoadedSplit:
    return load_split(dataset, settings.spec, name, lambda done, total: progress(f"reading {name}", done, total))
