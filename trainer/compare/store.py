"""What recipes share: pixels, the frozen stages' activations and pooled features, each computed once for all cells."""

from __future__ import annotations

import fcntl
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from calibration.cli_support import Report
from trainer.compare.recipes import Candidate, input_size
from trainer.data.loader import LoadedSplit, load_split
from trainer.data.manifest import Dataset
from trainer.device import CPU
from trainer.features import Activations, Progress, embed_all, keep_freed_memory, predict
from trainer.models.build import build
from trainer.models.classifier import Classifier, Flips
from trainer.models.committee import of_a_member
from trainer.precision import as_computed
from trainer.recipes import Recipe
from trainer.run import RunSettings, plan

CACHE = "cache"
"""Folder of a comparison that a store may fill."""

TIMED_FRAMES = 8
"""Frames behind a recipe's speed; as many again warm it up."""


class Store:
    """Frames and features of a whole dataset, kept in ``folder`` between calls; its own split plays no part.

    Args:
        dataset: whose images are read on first use.
        folder: of the cached features: about 0.1 to 1 MB an image and input size. Several processes may use it at once;
            it may be deleted when none does.
        progress: called with (what is being done, how many are done, of how many).
        device: where upper stages learn; all else is done on the CPU.
    """

    def __init__(self, dataset: Dataset, folder: Path, progress: Progress, device: torch.device = CPU) -> None:
        keep_freed_memory()
        self.device = device
        self.dataset = whole(dataset)
        self.folder, self.progress = folder, progress
        self._frames: dict[str, LoadedSplit] = {}
        self._activations: dict[str, Activations] = {}
        self._features: dict[str, NDArray[np.float32]] = {}
        self._speeds: dict[str, float] = {}

    def settings(self, candidate: Candidate) -> RunSettings:
        """Network and preprocessing of a candidate on this dataset."""
        size = input_size(candidate, self.dataset.frame_heights, self.dataset.frame_widths)
        return plan(self.dataset, candidate.recipe, 0, size)

    def frames(self, candidate: Candidate) -> LoadedSplit:
        """Every image, in the order of the dataset's items."""
        spec = self.settings(candidate).spec
        if spec.sha256 not in self._frames:
            report = self._bar(f"reading images at {spec.width}x{spec.height}")
            self._frames[spec.sha256] = load_split(self.dataset, spec, "train", report)
        return self._frames[spec.sha256]

    def network(self, candidate: Candidate) -> Classifier:
        """A new network, or member of a committee, with ImageNet's weights, its lower stages frozen."""
        model = Classifier(of_a_member(self.settings(candidate).model))
        model.load_imagenet()
        model.backbone.freeze_lower(candidate.recipe.frozen_stages)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model.eval()

    def activations(self, candidate: Candidate, jitter: float, flips: Flips) -> Activations:
        """What the frozen stages compute of every image, lit as ``jitter`` says."""
        recipe = candidate.recipe
        key = self._key(candidate, recipe.frozen_stages, jitter, flips)
        if key not in self._activations:
            file = self.folder / f"stages-{key}.f16"
            network, frames = self.network(candidate), self.frames(candidate)
            with _one_at_a_time(file):
                made = Activations(network, frames.images, recipe.frozen_stages, flips, jitter, keep=file)
                made.fill(self.progress, f"frozen stages for {candidate.name}")
            self._activations[key] = made
        return self._activations[key]

    def features(self, candidate: Candidate, jitter: float, flips: Flips) -> NDArray[np.float32]:
        """Pooled features of the frozen network, float32 (copies, images, features), read-only."""
        recipe = candidate.recipe
        key = self._key(candidate, recipe.frozen_stages, jitter, flips, recipe.pooling)
        if key not in self._features:
            file = self.folder / f"features-{key}.npy"
            with _one_at_a_time(file):
                if not file.is_file():
                    network, lower = self.network(candidate), self.activations(candidate, jitter, flips)
                    _write(file, embed_all(network, lower, self.progress, f"features for {candidate.name}"))
            self._features[key] = np.load(file, mmap_mode="r")
        return self._features[key]

    def images_per_second(self, candidate: Candidate) -> float:
        """Images that one CPU second judges, float32, one at a time in PyTorch: to compare recipes by, no more."""
        recipe = candidate.recipe
        key = self._key(candidate, recipe.flip_average, recipe.pooling, recipe.committee)
        if key not in self._speeds:
            network, frames = build(self.settings(candidate).model), self.frames(candidate).images
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            some = np.resize(np.arange(len(frames)), TIMED_FRAMES)
            predict(network, frames[some])
            start = time.process_time()
            for row in some:
                predict(network, frames[row : row + 1])
            self._speeds[key] = TIMED_FRAMES / max(time.process_time() - start, 1e-9)
        return self._speeds[key]

    def fingerprint(self, candidate: Candidate) -> str:
        """Hash of all that decides what is learned from a split. The name takes no part, nor logit adjustment where it
        is one subtraction at the end; nor do fields at their default, so that a new field costs no new training.
        """
        adjusted_first = candidate.recipe.anomaly or candidate.recipe.places
        left_out = ("name",) if adjusted_first else ("name", "tau")
        recipe = as_computed(candidate.recipe, self.device).to_json()
        usual = Recipe("").to_json()
        unusual = {field: value for field, value in recipe.items() if value != usual[field]}
        decides = {field: value for field, value in unusual.items() if field not in left_out}
        if "tau" in decides:
            decides["tau"] = f"{decides['tau']} at the validated temperature"
        return self._key(candidate, version("lineguard"), decides)

    def backbone_fingerprint(self, candidate: Candidate) -> str:
        """Hash of all that decides how the upper stages learn, once: recipes that differ in the head alone, or in how
        many such networks are averaged, share them."""
        learned_by = replace(candidate.recipe.of_the_backbone, tau=0.0, anomaly=False, places=False, committee=1)
        return self.fingerprint(replace(candidate, recipe=learned_by))

    def _key(self, candidate: Candidate, *parts: object) -> str:
        settings = self.settings(candidate)
        decides = [self.dataset.sha256, settings.spec.sha256, settings.model.backbone, torch.__version__, *parts]
        return hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:24]

    def _bar(self, what: str) -> Report:
        return lambda done, total: self.progress(what, done, total)


def whole(dataset: Dataset) -> Dataset:
    """The dataset with every image in one split."""
    return replace(dataset, items=tuple(replace(item, split="train") for item in dataset.items))


def widest(recipe: Recipe) -> Flips:
    """The mirrored copies that serve learning and judging both."""
    return recipe.flips if recipe.flip_average in ("none", recipe.flips) else "both"


@contextmanager
def _one_at_a_time(file: Path) -> Iterator[None]:
    """One process makes the file, and others that want it wait."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f"{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(file: Path, array: NDArray[np.float32]) -> None:
    part = file.with_name(f"{file.name}.part")
    with part.open("wb") as stream:
        np.save(stream, array)
    part.replace(file)
