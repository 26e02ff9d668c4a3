"""One cell of a comparison: a recipe trained on one split, its logits on the validation and test rows, as a file."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.temperature import fit_temperature
from trainer.checkpoint import Checkpoints, State
from trainer.compare.folds import Split
from trainer.compare.recipes import Candidate
from trainer.compare.statistics import Outcome
from trainer.compare.store import Store, widest
from trainer.data.loader import LoadedSplit
from trainer.features import Activations, Progress, embed_all, silent
from trainer.fine_tune import Fold, learn
from trainer.head import adjust_bias, fit_head, learning_set
from trainer.losses import prior_offset
from trainer.models.classifier import FLIPS, Classifier, Views
from trainer.models.committee import views_of
from trainer.prepare import fit_anomaly, fit_places, start_pooling
from trainer.run import write_json
from trainer.train import start_head

VERSION = 1


@dataclass(frozen=True)
class Cell:
    """What one recipe came to on one split. ``read_cell(path)`` gives back what ``write_cell`` wrote.

    Attributes:
        val, test: logits of those rows before logit adjustment, float32 (rows, classes).
        log_prior: log of the share of each class in what was learned from, weights counted, float64 (classes,); zeros
            where the logits are adjusted already.
        epochs: in which the backbone learned.
        seconds: CPU time of training and scoring; shared features are not counted.
        images_per_second: judged by one CPU second, see `Store.images_per_second`.
    """

    val: NDArray[np.float32]
    test: NDArray[np.float32]
    log_prior: NDArray[np.float64]
    epochs: int
    seconds: float
    images_per_second: float

    def outcome(self, split: Split, tau: float, labels: NDArray[np.int64]) -> Outcome:
        """The cell as statistics see it, with logit adjustment of strength ``tau`` (see trainer.head); ``labels``
        int64 (images,) of the whole dataset."""
        offset = tau * fit_temperature(self.val, labels[split.val]) * self.log_prior
        val, test = (logits.astype(np.float64) - offset for logits in (self.val, self.test))
        return Outcome(split.seed, split.fold, split.val, split.test, val, test)


def run_cell(candidate: Candidate, split: Split, store: Store, progress: Progress) -> Cell:
    """Train and judge, as `trainer.train.train` does but for cached features; logit adjustment is left to the reader.

    Seeds torch's global generator; the same candidate and split give the same cell.
    """
    recipe, frames = candidate.recipe, store.frames(candidate)
    looks = [_Look(store.network(candidate), candidate, store) for _ in range(recipe.committee)]
    looks[0].prepare()
    begun = time.process_time()
    fold = Fold(_rows(frames, split.train), _rows(frames, split.val), recipe, split.seed * 1000 + split.fold)
    tuned = [_tune(look, fold, number, split, progress) for number, look in enumerate(looks)] if recipe.epochs else []
    if not recipe.epochs:
        _start(looks[0], fold, split)
    prior = fold.seen * fold.class_weights.numpy()
    log_prior = prior_offset(prior, 1.0).numpy()
    if recipe.anomaly or recipe.places:
        # the evidence is weighed against adjusted logits
        temperature = fit_temperature(_logits(looks, split.val, [FLIPS["none"]] * len(looks)), fold.val.labels)
        for look in looks:
            adjust_bias(look.model, prior, recipe.tau, temperature)
            _join_evidence(look, fold, split)
        log_prior = np.zeros_like(log_prior)
    views = [views_of(store.settings(candidate).model, number) for number in range(len(looks))]
    val, test = (_logits(looks, rows, views) for rows in (split.val, split.test))
    seconds = time.process_time() - begun + sum(earlier for _, earlier in tuned)
    return Cell(val, test, log_prior, sum(epochs for epochs, _ in tuned), seconds, store.images_per_second(candidate))


def _join_evidence(look: _Look, fold: Fold, split: Split) -> None:
    """The distance to good parts and the votes of places, as far as the recipe has them."""
    recipe = fold.recipe
    if recipe.anomaly:
        train, held_out = (look.at(rows, FLIPS["none"], recipe.jitter)[0] for rows in (split.train, split.val))
        ok_index = look.store.dataset.ok_index
        fit_anomaly(look.model, train, fold.train.labels, held_out, fold.val.labels, ok_index)
    if recipe.places:
        lower, lower_val = (
            look.lower(split.train, FLIPS[recipe.flips], recipe.jitter),
            look.lower(split.val, FLIPS["none"]),
        )
        fit_places(look.model, lower, fold.train.labels, lower_val, fold.val.labels, fold.seed)


class _Look:
    """Pooled features of any images: the shared ones while the network is as ImageNet left it, else its own.

    Attributes:
        is_own: the network has learned, or its pooling or places learn: what it computes is of this cell alone.
    """

    def __init__(self, model: Classifier, candidate: Candidate, store: Store) -> None:
        self.model, self.candidate, self.store = model, candidate, store
        self.copies = widest(candidate.recipe)
        self.is_own = next(model.pooling.parameters(), None) is not None or model.places is not None

    def prepare(self) -> None:
        """Have all that cells share computed, so that no cell's time holds it."""
        for jitter in {0.0, self.candidate.recipe.jitter}:
            if not self.is_own:
                self.store.features(self.candidate, jitter, self.copies)
            if self.is_own or self.candidate.recipe.epochs:
                self.store.activations(self.candidate, jitter, self.copies)

    def lower(self, rows: NDArray[np.int64], views: Views, jitter: float = 0.0) -> Activations:
        """What the frozen stages make of these views of ``rows``."""
        return self.store.activations(self.candidate, jitter, self.copies).of(rows, views)

    def at(self, rows: NDArray[np.int64], views: Views, jitter: float = 0.0) -> NDArray[np.float32]:
        """Features of these views of ``rows``, float32 (views, rows, features)."""
        if self.is_own:
            return embed_all(self.model.eval(), self.lower(rows, views, jitter), silent, "")
        shared = self.store.features(self.candidate, jitter, self.copies)
        return np.stack([shared[FLIPS[self.copies].index(axes)][rows] for axes in views])


def _start(look: _Look, fold: Fold, split: Split) -> float:
    """Fit the head, and give pooling that learns its start, on the network as it is; returns the validation score."""
    recipe = fold.recipe
    if look.is_own:
        start_pooling(
            look.model, look.lower(split.train, FLIPS[recipe.flips], recipe.jitter), fold.train.labels, fold.seed
        )
    features = look.at(split.train, FLIPS[recipe.flips], recipe.jitter)
    learned_from = learning_set(features, fold.train.labels, fold.targets, recipe, fold.seed)
    val = look.at(split.val, FLIPS["none"])[0]
    return fit_head(look.model, *learned_from, val, fold.val.labels, recipe, fold.class_weights).score


def _tune(look: _Look, fold: Fold, number: int, split: Split, progress: Progress) -> tuple[int, float]:
    """Let the upper stages of a committee's member learn. A kill costs one epoch at most, and what has learned once
    serves every recipe that differs in the head alone, or in how many members there are.

    Returns:
        How many epochs there were, and the CPU seconds of those that an earlier call had done, with their start.
    """
    recipe, model, store = fold.recipe, look.model, look.store
    learned_by = replace(fold, recipe=recipe.of_the_backbone)
    lower, lower_val = look.lower(split.train, FLIPS[recipe.flips], recipe.jitter), look.lower(split.val, FLIPS["none"])
    fingerprint = store.backbone_fingerprint(look.candidate)
    checkpoints = Checkpoints(store.folder / f"{fingerprint}-{split.name}.safetensors", fingerprint)
    mark, now = time.process_time(), 0.0

    def begin() -> float:
        return _start(look, learned_by, split)

    def after_epoch(state: State, member: int) -> None:
        nonlocal mark, now
        mark, begun = time.process_time(), mark
        state.at.history[-1]["cpu_seconds"] = mark - begun
        now += mark - begun
        checkpoints.save(state, member)
        progress("epochs of this cell", member * recipe.epochs + state.at.epoch, recipe.committee * recipe.epochs)

    at = learn(model, learned_by, number, lower, lower_val, begin, checkpoints, store.device, silent, after_epoch)
    look.is_own = True
    if recipe.retrain_head:
        start_head(model, fold, lower, lower_val, silent)
    return at.epoch, sum(line["cpu_seconds"] for line in at.history) - now


def _logits(looks: Sequence[_Look], rows: NDArray[np.int64], views: Sequence[Views]) -> NDArray[np.float32]:
    """Mean over the networks, each over its views: float32 (rows, classes)."""
    each = [_classify(look.model, look.at(rows, own)) for look, own in zip(looks, views, strict=True)]
    logits: NDArray[np.float32] = np.mean(each, axis=0)
    return logits


def _classify(model: Classifier, views: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean logits over the views: float32 (views, rows, features) -> (rows, classes)."""
    with torch.no_grad():
        logits: NDArray[np.float32] = model.classify(torch.from_numpy(views)).mean(0).numpy()
    return logits


def _rows(frames: LoadedSplit, rows: NDArray[np.int64]) -> LoadedSplit:
    return LoadedSplit(
        images=frames.images[rows],
        labels=frames.labels[rows],
        soft=frames.soft[rows],
        paths=tuple(frames.paths[row] for row in rows),
        groups=tuple(frames.groups[row] for row in rows),
    )


def cell_file(out: Path, fingerprint: str, split: Split) -> Path:
    """Where the comparison ``out`` keeps the cell; ``fingerprint`` as `Store.fingerprint` says."""
    return out / "cells" / fingerprint / f"{split.name}.json"


def write_cell(path: Path, cell: Cell) -> None:
    """Write whole or not at all."""
    plain = {name: getattr(cell, name) for name in Cell.__dataclass_fields__}
    tables = {name: plain[name].tolist() for name in ("val", "test", "log_prior")}
    write_json(path, {"version": VERSION, **plain, **tables})


def read_cell(path: Path, split: Split) -> Cell | None:
    """The cell in ``path``; None where there is none.

    Raises:
        InputError: not such a file, or not of this split.
    """
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if (version := values.pop("version")) != VERSION:
            raise ValueError(f"version {version}")
        val, test = (np.array(values.pop(name), np.float32) for name in ("val", "test"))
        log_prior = np.array(values.pop("log_prior"), np.float64)
        shapes = [(len(rows), len(log_prior)) for rows in (split.val, split.test)]
        if [val.shape, test.shape] != shapes or not all(np.isfinite(z).all() for z in (val, test, log_prior)):
            raise ValueError("its logits are not one finite row for each image")
        return Cell(val=val, test=test, log_prior=log_prior, **values)
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a finished cell ({error}); delete it, and it is computed again") from None
