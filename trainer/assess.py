"""Judging a dataset with a finished model: a training run's network, or a bundle with its own rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.decision import DecisionRule
from calibration.errors import InputError
from calibration.preprocess import PreprocessSpec
from calibration.risk import wilson
from calibration.scores import Scores
from calibration.temperature import fit_temperature
from calibration.values import Interval
from deploy.bundle import open_bundle
from trainer.data.loader import LoadedSplit, load_split
from trainer.data.manifest import Dataset
from trainer.evaluate import SplitReport, report
from trainer.features import predict
from trainer.models.classifier import load_run_model
from trainer.onnx_graph import run_logits, session
from trainer.run import MODEL, read_settings

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class AtThresholds:
    """What a bundle's own thresholds do to these parts; each a share in 0..1 with its 95 % interval (Wilson).

    Attributes:
        escape: of the defects, those judged OK. None without defects.
        overkill: of the good parts, those not judged OK: on the line all of them are rejected. None without good parts.
        unsure: of all parts, those a person has to judge.
    """

    escape: Interval | None
    overkill: Interval | None
    unsure: Interval


@dataclass(frozen=True)
class Assessment:
    """A model's figures on one split of a dataset.

    Attributes:
        model: which model judged.
        dataset, split: what it judged.
        same_dataset: whether it was trained on this very dataset, so that its test split is known to be unseen.
        temperature: of the calibration; fitted on the validation split in training, never here.
        figures: see SplitReport.
        at_thresholds: None for a run, which has no thresholds yet.
    """

    model: str
    dataset: str
    split: str
    same_dataset: bool
    temperature: float
    figures: SplitReport
    at_thresholds: AtThresholds | None


def assess(model: Path, dataset: Dataset, split: str, variant: str, progress: Progress, draws: int = 200) -> Assessment:
    """Judge one split of a dataset.

    Args:
        model: a RUN folder, or a bundle file.
        variant: "cpu" or "trt", of a bundle.
        progress: called with (what is being done, how many are done, of how many).

    Raises:
        InputError: neither run nor bundle, other classes than the dataset's, or frames it was not made for.
    """
    if model.is_dir():
        return _assess_run(model, dataset, split, progress, draws)
    if model.is_file():
        return _assess_bundle(model, dataset, split, variant, progress, draws)
    raise InputError(f"{model}: no such run folder or bundle; give RUN of `trainer train` or FILE of `trainer release`")


def _assess_run(run: Path, dataset: Dataset, split: str, progress: Progress, draws: int) -> Assessment:
    settings = read_settings(run)
    classes = _same_classes(str(run), settings.classes, settings.ok_class, dataset)
    val = Scores.read(run / "scores.val.csv")
    temperature = fit_temperature(val.logits, val.labels)
    model, _ = load_run_model(run / MODEL)
    loaded = _load(str(run), dataset, settings.spec, split, progress)
    scores = _scores(classes, settings.ok_class, dataset, loaded, predict(model, loaded.images, progress))
    same = settings.dataset_sha256 == dataset.sha256
    figures = report(scores, temperature, draws)
    return Assessment(f"{run} (float32)", dataset.name, split, same, temperature, figures, None)


def _assess_bundle(
    file: Path, dataset: Dataset, split: str, variant: str, progress: Progress, draws: int
) -> Assessment:
    bundle = open_bundle(file)
    manifest = bundle.manifest
    rule = bundle.variant(variant).rule
    classes = _same_classes(str(file), manifest.classes, manifest.ok_class, dataset)
    loaded = _load(str(file), dataset, manifest.preprocess, split, progress)
    running = session(bundle.model(variant), fuse_integers=variant != "trt")
    scores = _scores(classes, manifest.ok_class, dataset, loaded, run_logits(running, loaded.images, progress))
    same = manifest.provenance.dataset_sha256 == dataset.sha256
    figures = report(scores, rule.temperature, draws)
    name = f"{file} ({variant})"
    return Assessment(name, dataset.name, split, same, rule.temperature, figures, at_thresholds(scores, rule))


def at_thresholds(scores: Scores, rule: DecisionRule) -> AtThresholds:
    """What the rule's thresholds do to scored parts. A part whose scores are not finite counts as unsure."""
    probability = rule.defect_probability(scores.logits)
    passed = probability <= rule.ok_below
    unsure = ~passed & ~(probability >= rule.defect_above)
    defect = scores.is_defect
    good, bad = int((~defect).sum()), int(defect.sum())
    return AtThresholds(
        escape=wilson(int((passed & defect).sum()), bad) if bad else None,
        overkill=wilson(int((~passed & ~defect).sum()), good) if good else None,
        unsure=wilson(int(unsure.sum()), len(unsure)),
    )


def _same_classes(model: str, classes: tuple[str, ...], ok_class: str, dataset: Dataset) -> tuple[str, ...]:
    """The model's classes. Raises InputError where the dataset's are not among them, or another one is OK."""
    unknown = [name for name in dataset.classes if name not in classes]
    if unknown:
        raise InputError(
            f"{model} knows the classes {', '.join(classes)}; {dataset.folder or dataset.name} also has "
            f"{', '.join(unknown)}: rename its folders to match, or train on it"
        )
    if dataset.ok_class != ok_class:
        raise InputError(
            f"{model} takes {ok_class!r} as OK, {dataset.folder or dataset.name} takes {dataset.ok_class!r}: "
            f"import it again with --ok {ok_class}"
        )
    return classes


def _load(model: str, dataset: Dataset, spec: PreprocessSpec, split: str, progress: Progress) -> LoadedSplit:
    if dataset.channels != spec.channels:
        kinds = {1: "grey", 3: "colour"}
        raise InputError(
            f"{model} was made for {kinds[spec.channels]} frames, {dataset.folder or dataset.name} has "
            f"{kinds[dataset.channels]} ones: they are from another camera"
        )
    return load_split(dataset, spec, split, lambda done, total: progress(f"reading {split}", done, total))


def _scores(
    classes: tuple[str, ...], ok_class: str, dataset: Dataset, loaded: LoadedSplit, logits: NDArray[np.float32]
) -> Scores:
    own = np.array([classes.index(name) for name in dataset.classes], dtype=np.int64)
    return Scores(classes, ok_class, loaded.paths, loaded.groups, own[loaded.labels], logits)
