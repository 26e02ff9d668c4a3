"""The run folder: what a training was told and what it left behind, for export, release and a later look."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.preprocess import PreprocessSpec
from calibration.scores import Scores
from trainer.data.loader import LoadedSplit, spec_for
from trainer.data.manifest import Dataset
from trainer.models.attention_crop import with_crops
from trainer.models.build import config_from_json
from trainer.models.classifier import ClassifierConfig
from trainer.models.committee import with_members
from trainer.models.tiles import with_tiles
from trainer.recipes import FRAME_BUDGET, PIXEL_BUDGET, Recipe, choose_input_size

VERSION = 1
MODEL, SETTINGS, LOG, CHECKPOINT = "model.safetensors", "run.json", "log.jsonl", "checkpoint/last.safetensors"


@dataclass(frozen=True)
class RunSettings:
    """What was trained and how. ``RunSettings.from_json(s.to_json()) == s``.

    Attributes:
        recipe, seed: as given. model: the network's configuration.
        spec: the preprocessing; size_reason: why its height and width, a sentence.
        classes, ok_class: in logit order. dataset, dataset_sha256, licence: what it was trained on.
        data: the DATA folder, empty for a dataset in memory.
        torch_version: bits are only the same with the same one.
    """

    recipe: Recipe
    seed: int
    model: ClassifierConfig
    spec: PreprocessSpec
    size_reason: str
    classes: tuple[str, ...]
    ok_class: str
    dataset: str
    dataset_sha256: str
    licence: str
    data: str
    torch_version: str

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the weights."""
        decides = {k: v for k, v in self.to_json().items() if k not in ("data", "dataset", "licence", "size_reason")}
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        parts = {name: plain[name].to_json() for name in ("recipe", "model", "spec")}
        return {"version": VERSION, **plain, **parts, "classes": list(self.classes)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RunSettings:
        """Inverse of :meth:`to_json`. Raises InputError, KeyError, TypeError or ValueError on anything
        else.
        """
        values = {name: values[name] for name in ("version", *cls.__dataclass_fields__)}
        if (version := values.pop("version")) != VERSION:
            raise InputError(f"version is {version}, this trainer reads {VERSION}; train again")
        values["recipe"] = Recipe.from_json(values["recipe"])
        values["model"] = config_from_json(values["model"])
        values["spec"] = PreprocessSpec.from_json(values["spec"])
        return cls(**{**values, "classes": tuple(values["classes"])})


def read_settings(run: Path) -> RunSettings:
    """The settings in RUN/run.json. Raises InputError where it is missing or not such a file."""
    path = run / SETTINGS
    try:
        return RunSettings.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; run `trainer train` first") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not the settings of a training run ({error}); train again") from error


def plan(dataset: Dataset, recipe: Recipe, seed: int, size: tuple[int, int] | None) -> RunSettings:
    """Settings of a new run; ``size`` is (height, width), or None to choose it from the frames.

    Raises InputError where fewer than two classes have training images, or a class has one image in all.
    """
    images = Counter(item.label for item in dataset.items)
    for name in dataset.classes:
        if images[name] == 1:
            raise InputError(
                f"{dataset.folder or dataset.name}: class {name!r} has one image, which cannot be learned from and "
                "measured on; add images of it, or merge it into another class"
            )
    present = np.unique(dataset.labels("train"))
    if len(present) < 2:
        names = ", ".join(repr(dataset.classes[i]) for i in present) or "none"
        raise InputError(
            f"{dataset.folder or dataset.name}: training images of one class only ({names}); "
            "a classifier needs at least two"
        )
    if size is None:
        budget = FRAME_BUDGET if recipe.crops or recipe.tiles else PIXEL_BUDGET
        height, width, reason = choose_input_size(dataset.frame_heights, dataset.frame_widths, budget)
    else:
        (height, width), reason = size, f"set by hand ({size[1]}x{size[0]})"
    settings = RunSettings(
        recipe=recipe,
        seed=seed,
        model=ClassifierConfig(
            classes=len(dataset.classes),
            channels=dataset.channels,
            backbone=recipe.backbone,
            pooling=recipe.pooling,
            dropout=recipe.dropout,
            flip_average=recipe.flip_average,
            anomaly=recipe.anomaly,
            places=recipe.places,
        ),
        spec=spec_for(dataset, height, width),
        size_reason=reason,
        classes=dataset.classes,
        ok_class=dataset.ok_class,
        dataset=dataset.name,
        dataset_sha256=dataset.sha256,
        licence=dataset.licence,
        data="" if dataset.folder is None else str(dataset.folder),
        torch_version=torch.__version__,
    )
    if recipe.tiles:
        return replace(settings, model=with_tiles(settings.model, height, width))
    if recipe.committee > 1:
        return replace(settings, model=with_members(settings.model, recipe.committee))
    return replace(settings, model=with_crops(settings.model, recipe.crops, height, width))


def claim(run: Path, settings: RunSettings) -> None:
    """Write run.json before training starts. Raises InputError where the folder holds another run."""
    path = run / SETTINGS
    if path.exists() and read_settings(run).fingerprint != settings.fingerprint:
        raise InputError(
            f"{run}: holds a run of another recipe, seed, input size, dataset or version; "
            "train into another folder, or delete this one"
        )
    write_json(path, settings.to_json())


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write readable JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def scores_of(settings: RunSettings, split: LoadedSplit, logits: NDArray[np.float32]) -> Scores:
    """Logits float32 (n, classes) of a split, with the names and labels of its images."""
    return Scores(settings.classes, settings.ok_class, split.paths, split.groups, split.labels, logits)
