"""One cell of a comparison: a recipe trained on one split, its logits on the validation and test rows, as a file."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calibration.errors import InputError
from trainer.compare.folds import Split
from trainer.compare.recipes import Candidate
from trainer.compare.statistics import Outcome
from trainer.compare.store import Store, widest
from trainer.data.loader import LoadedSplit
from trainer.features import Progress, embed_all, silent
from trainer.head import fit_head, learning_set
from trainer.losses import prior_offset
from trainer.models.classifier import FLIPS, Classifier, Flips
from trainer.run import write_json
from trainer.train import Fold, fine_tune, start, start_head

VERSION = 1


@dataclass(frozen=True)
class Cell:
    """What one recipe came to on one split. ``read_cell(path)`` gives back what ``write_cell`` wrote.

    Attributes:
        val, test: logits of those rows before logit adjustment, float32 (rows, classes).
        log_prior: log of the share of each class in what was learned from, weights counted, float64 (classes,).
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

    def outcome(self, split: Split, tau: float) -> Outcome:
        """The cell as statistics see it, with logit adjustment of strength ``tau`` (see trainer.head)."""
        val, test = (logits.astype(np.float64) - tau * self.log_prior for logits in (self.val, self.test))
        return Outcome(split.seed, split.fold, split.val, split.test, val, test)


def run_cell(candidate: Candidate, split: Split, store: Store, progress: Progress) -> Cell:
    """Train and judge, as `trainer.train.train` does but for cached features; logit adjustment is left to the reader.

    Seeds torch's global generator; the same candidate and split give the same cell.
    """
    recipe, frames, copies = candidate.recipe, store.frames(candidate), widest(candidate.recipe)
    features = store.features(candidate, recipe.jitter, copies)
    clean = store.features(candidate, 0.0, copies)
    begun = time.process_time()
    fold = Fold(_rows(frames, split.train), _rows(frames, split.val), recipe, split.seed * 1000 + split.fold)
    learned_by = replace(fold, recipe=recipe.of_the_backbone)
    model = store.network(candidate)
    learned = _copies(features, copies, recipe.flips)[:, split.train]
    score = fit_head(
        model,
        *learning_set(learned, fold.train.labels, fold.targets, learned_by.recipe, fold.seed),
        np.array(clean[0, split.val]),
        fold.val.labels,
        learned_by.recipe,
        learned_by.class_weights,
    ).score
    epochs = 0
    if recipe.epochs:
        epochs = _tune(model, fold, split, score, candidate, store, progress)
        val, test = (_judge(model, candidate, store, rows) for rows in (split.val, split.test))
    else:
        views = _copies(clean, copies, recipe.flip_average)
        val, test = (_classify(model, views[:, rows]) for rows in (split.val, split.test))
    log_prior = prior_offset(fold.seen * fold.class_weights.numpy(), 1.0).numpy()
    seconds = time.process_time() - begun
    return Cell(val, test, log_prior, epochs, seconds, store.images_per_second(candidate))


def _tune(
    model: Classifier,
    fold: Fold,
    split: Split,
    score: float,
    candidate: Candidate,
    store: Store,
    progress: Progress,
) -> int:
    """Let the upper stages learn, keep the best epoch; returns how many epochs there were."""
    recipe, copies = candidate.recipe, widest(candidate.recipe)
    learned_by = replace(fold, recipe=recipe.of_the_backbone)
    lower = store.activations(candidate, recipe.jitter, copies).of(split.train, recipe.flips)
    lower_val = store.activations(candidate, 0.0, copies).of(split.val, "none")
    state = start(model, recipe)
    state.at.best_score = score
    state.keep_best()
    for at in fine_tune(model, learned_by, lower, lower_val, state, silent):
        progress("epochs of this cell", at.epoch, recipe.epochs)
    state.load(state.best)
    if recipe.retrain_head:
        start_head(model, fold, lower, lower_val, silent)
    return state.at.epoch


def _judge(model: Classifier, candidate: Candidate, store: Store, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Logits of ``rows`` by a network whose upper stages have learned."""
    recipe = candidate.recipe
    lower = store.activations(candidate, 0.0, widest(recipe)).of(rows, recipe.flip_average)
    model.eval()
    return _classify(model, embed_all(model, lower, silent, ""))


def _classify(model: Classifier, views: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean logits over the views: float32 (views, rows, features) -> (rows, classes)."""
    with torch.no_grad():
        logits: NDArray[np.float32] = model.classify(torch.from_numpy(np.ascontiguousarray(views))).mean(0).numpy()
    return logits


def _copies(features: NDArray[np.float32], have: Flips, wanted: Flips) -> NDArray[np.float32]:
    """The mirrored copies ``wanted`` of float32 (copies, rows, features)."""
    return features[[FLIPS[have].index(axes) for axes in FLIPS[wanted]]]


def _rows(frames: LoadedSplit, rows: NDArray[np.int64]) -> LoadedSplit:
    return LoadedSplit(
        images=frames.images[rows],
        labels=frames.labels[rows],
        soft=frames.soft[rows],
        paths=tuple(frames.paths[row] for row in rows),
        groups=tuple(frames.groups[row] for row in rows),
    )


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
