"""Training, top to bottom: pixels, frozen features, head, then the upper backbone; into a run folder.

Everything random is drawn from (seed, epoch), so on the CPU a run is the same to the last bit on one machine with the
same number of threads, and a run that was killed and started again equals one that was not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.temperature import fit_temperature
from trainer.checkpoint import Checkpoints, Progressed
from trainer.data.loader import LoadedSplit, load_split
from trainer.data.manifest import Dataset
from trainer.device import CPU
from trainer.feature_noise import rounding_errors
from trainer.features import Activations, Progress, embed_all, keep_freed_memory, predict, silent
from trainer.fine_tune import Fold, learn, predict_lower
from trainer.head import adjust_bias, fit_head, learning_set, validation_score
from trainer.models.attention_crop import AttentionCrop
from trainer.models.build import build_one
from trainer.models.classifier import FLIPS, Classifier, save_run_model
from trainer.models.committee import Committee, CommitteeConfig
from trainer.models.efficientnet_lite import SIZES
from trainer.precision import as_computed
from trainer.prepare import fit_anomaly, fit_places, start_pooling
from trainer.recipes import Recipe
from trainer.run import CHECKPOINT, LOG, MODEL, SETTINGS, RunSettings, claim, plan, scores_of, write_json


@dataclass(frozen=True)
class TrainResult:
    """What a training run came to.

    Attributes:
        run: its folder. settings: what it was told, with the input size and its reason.
        epochs: done in all; kept_epoch: whose weights were kept (0: the head on the frozen backbone), the least of
            a committee.
        val_score: NLL of the validation split at its best temperature, nats, of the best epoch, of a whole committee or
            of the head fitted anew, before logit adjustment; lower is better.
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
    recipe = as_computed(recipe, device)
    settings = plan(dataset, recipe, seed, size)
    if recipe.tau:
        _check_every_class(dataset, recipe)
    claim(run, settings)
    splits = {name: _load(dataset, settings, name, progress) for name in ("train", "val", "test")}
    fold = Fold(splits["train"], splits["val"], recipe, seed)

    networks = [_network(settings, fold, dataset.ok_index, progress) for _ in range(recipe.committee)]
    lower = Activations(networks[0], fold.train.images, recipe.frozen_stages, recipe.flips, recipe.jitter, seed)
    lower.fill(progress, "frozen layers")
    lower_val = Activations(networks[0], fold.val.images, recipe.frozen_stages)
    lower_val.fill(progress, "frozen layers (validation)")
    checkpoints = Checkpoints(run / CHECKPOINT, settings.fingerprint)
    learned = [
        _learn(network, fold, number, lower, lower_val, checkpoints, progress, device)
        for number, network in enumerate(networks)
    ]
    trained, score = [at for at, _ in learned], learned[0][1]
    if recipe.committee > 1:
        score, _ = validation_score(mean_logits(networks, lower_val), fold.val.labels)
    finish(networks, fold, lower, lower_val, dataset.ok_index, progress)
    model = Committee(settings.model, networks) if isinstance(settings.model, CommitteeConfig) else networks[0]

    save_run_model(model, dataset.classes, run / MODEL)
    for name in ("val", "test"):
        logits = predict(model, splits[name].images, progress, f"scoring {name}")
        scores_of(settings, splits[name], logits).write(run / f"scores.{name}.csv")
    log = [{"network": number, **line} for number, at in enumerate(trained, 1) for line in at.history]
    (run / LOG).write_text("".join(json.dumps(line) + "\n" for line in log), encoding="utf-8")
    epochs, kept = sum(at.epoch for at in trained), min(at.kept_epoch for at in trained)
    result = TrainResult(run, settings, epochs, kept, score, time.monotonic() - started)
    outcome = {"epochs": epochs, "kept_epoch": kept, "val_score": score}
    write_json(run / SETTINGS, {**settings.to_json(), **outcome, "seconds": round(result.seconds, 1)})
    return result


def _network(settings: RunSettings, fold: Fold, ok_index: int, progress: Progress) -> Classifier:
    """A new one with ImageNet's weights, which knows where to look, its lower stages frozen."""
    model = build_one(settings.model)
    model.load_imagenet()
    if isinstance(model, AttentionCrop):
        model.fit_locator(fold.train.images, fold.train.labels == ok_index, progress)
    model.backbone.freeze_lower(fold.recipe.frozen_stages)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def _learn(
    model: Classifier,
    fold: Fold,
    number: int,
    lower: Activations,
    lower_val: Activations,
    checkpoints: Checkpoints,
    progress: Progress,
    device: torch.device,
) -> tuple[Progressed, float]:
    """Fit the head and let the upper backbone learn, from the checkpoint on where there is one; the best is kept, its
    head fitted anew where the recipe says so. Returns the validation score as well.
    """
    learned_by = replace(fold, recipe=fold.recipe.of_the_backbone)

    def begin() -> float:
        start_pooling(model, lower, fold.train.labels, fold.seed)
        return start_head(model, learned_by, lower, lower_val, progress)

    at = learn(model, learned_by, number, lower, lower_val, begin, checkpoints, device, progress, checkpoints.save)
    return at, start_head(model, fold, lower, lower_val, progress) if fold.recipe.retrain_head else at.best_score


def start_head(model: Classifier, fold: Fold, lower: Activations, lower_val: Activations, progress: Progress) -> float:
    """Fit the linear head on the backbone's features as it stands; returns its validation score.

    Fine-tuning starts from it too: a random head would first tear the pretrained features apart (Kumar et
    al., "Fine-Tuning can Distort Pretrained Features", ICLR 2022).
    """
    model.eval()
    features = embed_all(model, lower, progress, "features")
    errors = None
    if fold.recipe.int8_penalty and model.config.backbone in SIZES:
        errors = rounding_errors(model, fold.train, features, lower.copies, fold.seed, progress)
    return fit_head(
        model,
        *learning_set(features, fold.train.labels, fold.targets, fold.recipe, fold.seed),
        embed_all(model, lower_val, progress, "features (validation)")[0],
        fold.val.labels,
        fold.recipe,
        fold.class_weights,
        errors,
    ).score


def finish(
    networks: Sequence[Classifier],
    fold: Fold,
    lower: Activations,
    lower_val: Activations,
    ok_index: int,
    progress: Progress,
) -> None:
    """What joins the logits of each network of a committee, or of one alone, at last, weighed against what is there
    already: logit adjustment, the distance to good parts, the votes of places, as far as the recipe has them.
    """
    recipe, labels = fold.recipe, fold.train.labels
    temperature = fit_temperature(mean_logits(networks, lower_val), fold.val.labels) if recipe.tau else 1.0
    for model in networks:
        if recipe.tau:
            adjust_bias(model, fold.seen * fold.class_weights.numpy(), recipe.tau, temperature)
        if recipe.anomaly:
            frames = lower.of(np.arange(len(lower)), FLIPS["none"])
            features, val = (embed_all(model.eval(), part, progress, "good parts")[0] for part in (frames, lower_val))
            fit_anomaly(model, features, labels, val, fold.val.labels, ok_index)
        if recipe.places:
            fit_places(model, lower, labels, lower_val, fold.val.labels, fold.seed, progress)


def mean_logits(networks: Sequence[Classifier], lower: Activations) -> NDArray[np.float32]:
    """What networks say together of every frame: float32 (n, classes)."""
    logits: NDArray[np.float32] = np.mean([predict_lower(network, lower) for network in networks], axis=0)
    return logits


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
