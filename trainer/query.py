"""Judging unlabelled images with a trained run, to choose which of them to label."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.images import ImageError, read_image
from calibration.metrics import softmax
from calibration.preprocess import GeometryError
from calibration.scores import Scores
from calibration.temperature import fit_temperature
from trainer.crossval import embed
from trainer.data.loader import load_split
from trainer.data.manifest import read_dataset
from trainer.data.scan import list_images
from trainer.features import FORWARD_BATCH, Progress, predict, silent
from trainer.labels import k_centre, rank_queries
from trainer.models.build import Network
from trainer.models.classifier import load_run_model
from trainer.run import MODEL, RunSettings, read_settings

K_CENTRE = "k_centre"


@dataclass(frozen=True)
class Ranked:
    """Unlabelled images, ranked.

    Attributes:
        classes: of the run. paths: (n,) POSIX, relative to the folder.
        skipped: why other images could not be judged, by path.
        probabilities: float64 (n, classes), at the run's temperature.
        order: int64 (n,), most informative first.
    """

    classes: tuple[str, ...]
    paths: tuple[str, ...]
    skipped: dict[str, str]
    probabilities: NDArray[np.float64]
    order: NDArray[np.int64]


def rank_folder(run: Path, folder: Path, strategy: str, progress: Progress = silent) -> Ranked:
    """Judge every image below a folder and rank them by one of `trainer.labels.STRATEGIES` or "k_centre".

    k-centre looks for images unlike those the run learned from, so it needs the run's dataset at its place.

    Raises:
        InputError: no such run or folder, no image that the run can judge, or its dataset is gone (k-centre).
    """
    settings = read_settings(run)
    model, _ = load_run_model(run / MODEL)
    model.eval()
    val = Scores.read(run / "scores.val.csv")
    temperature = fit_temperature(val.logits, val.labels)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the one that holds the unlabelled images")
    listing = list_images(folder)
    if not listing.images:
        raise InputError(f"{folder}: no images in it (bmp, jpg, png, tif)")
    wants_features = strategy == K_CENTRE
    judged = _judge(model, settings, folder, listing.images, wants_features, progress)
    if not judged.paths:
        path, reason = next(iter(judged.skipped.items()))
        raise InputError(f"{folder}: {run} can judge none of {len(judged.skipped)} images ({path}: {reason})")
    probabilities = softmax(judged.logits / temperature)
    if wants_features:
        known = embed(model, _learned_from(run, settings, progress), progress, "features of the labelled images")
        order = k_centre(judged.features, len(judged.paths), known)
    else:
        order = rank_queries(probabilities, strategy)
    return Ranked(settings.classes, judged.paths, judged.skipped, probabilities, order)


@dataclass(frozen=True)
class _Judged:
    """Logits float32 (n, classes) and, where wanted, features float32 (n, d) of the images that could be read."""

    paths: tuple[str, ...]
    skipped: dict[str, str]
    logits: NDArray[np.float32]
    features: NDArray[np.float32]


def _judge(
    model: Network, settings: RunSettings, folder: Path, images: tuple[str, ...], features: bool, progress: Progress
) -> _Judged:
    paths: list[str] = []
    skipped: dict[str, str] = {}
    logits = [np.empty((0, len(settings.classes)), np.float32)]
    found = [np.empty((0, model.features), np.float32)]
    for start in range(0, len(images), FORWARD_BATCH):
        frames = []
        for path in images[start : start + FORWARD_BATCH]:
            try:
                frames.append(settings.spec.apply(read_image(folder / path, settings.spec.channels)))
                paths.append(path)
            except (ImageError, GeometryError) as error:
                skipped[path] = str(error).removeprefix(f"{folder / path}: ")
        if frames:
            batch = np.stack(frames)
            logits.append(predict(model, batch))
            if features:
                found.append(embed(model, batch, silent, ""))
        progress("judging", min(start + FORWARD_BATCH, len(images)), len(images))
    return _Judged(tuple(paths), skipped, np.concatenate(logits), np.concatenate(found))


def _learned_from(run: Path, settings: RunSettings, progress: Progress) -> NDArray[np.uint8]:
    """Frames of the run's train split."""
    try:
        dataset = read_dataset(Path(settings.data))
    except InputError as error:
        raise InputError(f"{run}: k-centre needs the dataset the run learned from ({error})") from None
    return load_split(dataset, settings.spec, "train", partial(progress, "reading train")).images
