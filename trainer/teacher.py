"""The teacher of a distillation: a finished run, and its answers to altered copies of the training frames."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from calibration.errors import InputError
from trainer.copies import Copies
from trainer.data.manifest import Dataset
from trainer.features import Pixels, Progress
from trainer.models.build import Network
from trainer.models.classifier import load_run_model
from trainer.models.committee import views_of
from trainer.onnx_graph import FRAMES, LOGITS, SCORE_BATCH, export_core, session, with_normalisation, with_views
from trainer.run import MODEL, RunSettings, read_settings


@dataclass(frozen=True)
class Teacher:
    """A finished run. sha256: of its weights' file."""

    run: Path
    settings: RunSettings
    model: Network
    sha256: str

    @cached_property
    def graph(self) -> ModelProto:
        """Its float32 model, `frames` to `logits`, as it is exported."""
        return float_graph(self.model, self.settings)


def float_graph(model: Network, settings: RunSettings) -> ModelProto:
    """ONNX of a run's network: `frames` uint8 (N, C, H, W) to `logits`, averaged over its mirrored views."""
    core = export_core(model, settings.spec.shape)
    return with_views(with_normalisation(core), views_of(settings.model))


def open_teacher(run: Path, dataset: Dataset) -> Teacher:
    """The teacher in the run folder.

    Raises:
        InputError: there is no finished run, or it was trained on other images: it could have seen those that the
            student is measured on.
    """
    settings = read_settings(run)
    if settings.dataset_sha256 != dataset.sha256:
        raise InputError(
            f"{run}: was trained on another dataset than {dataset.folder or dataset.name}, or on other splits of it; "
            "train the teacher on this one"
        )
    model, _ = load_run_model(run / MODEL)
    return Teacher(run, settings, model, hashlib.sha256((run / MODEL).read_bytes()).hexdigest())


def answers(
    teacher: Teacher, frames: Pixels, copies: Copies, known: Path, fingerprint: str, progress: Progress
) -> Tensor:
    """The teacher's logits for every copy of every frame: float32 (copies, n, classes).

    It answers as it would on a device, averaging over mirrored views where it does. ONNX Runtime runs it: two or three
    times as fast as torch.

    Args:
        frames: at the teacher's input size, uint8 (n, C, H, W).
        known: where the answers are kept, after each copy, for the next time. fingerprint: of all that they depend on.

    Raises:
        InputError: ``known`` is damaged, or an answer is not finite.
    """
    given = _kept(known, fingerprint)
    if given is None:
        given = np.full((len(copies), len(frames), teacher.model.config.classes), np.nan, np.float32)
    missing = [copy for copy in range(len(copies)) if np.isnan(given[copy]).any()]
    if not missing:
        return torch.from_numpy(given)
    running = session(teacher.graph, threads=torch.get_num_threads())
    for copy in missing:
        for start in range(0, len(frames), SCORE_BATCH):
            rows = np.arange(start, min(start + SCORE_BATCH, len(frames)))
            pictures = copies.render(frames, rows, np.full(len(rows), copy)).numpy()
            given[copy, rows] = running.run([LOGITS], {FRAMES: pictures})[0]
            progress("asking the teacher", copy * len(frames) + int(rows[-1]) + 1, len(copies) * len(frames))
        if not np.isfinite(given[copy]).all():
            raise InputError(f"{teacher.run}: its network answers with numbers that are not finite; train it again")
        _keep(known, given, fingerprint)
    return torch.from_numpy(given)


def _keep(known: Path, given: NDArray[np.float32], fingerprint: str) -> None:
    known.parent.mkdir(parents=True, exist_ok=True)
    part = known.with_suffix(".part")
    save_file({LOGITS: torch.from_numpy(given)}, part, {"fingerprint": fingerprint})
    os.replace(part, known)


def _kept(known: Path, fingerprint: str) -> NDArray[np.float32] | None:
    """The answers so far, NaN where there is none yet; None where there are none to this question."""
    if not known.is_file():
        return None
    try:
        with safe_open(known, "pt") as opened:
            metadata = opened.metadata() or {}
        return load_file(known)[LOGITS].numpy() if metadata.get("fingerprint") == fingerprint else None
    except (SafetensorError, KeyError) as error:
        raise InputError(f"{known}: is damaged ({error}); delete it, and the teacher is asked again") from error
