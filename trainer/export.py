"""`trainer export`: a trained run -> FP32 ONNX -> two INT8 variants, each measured against FP32 before it may go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from calibration.cli_support import plain
from calibration.errors import InputError
from calibration.scores import Scores
from trainer.data.loader import LoadedSplit, load_split
from trainer.data.manifest import Dataset, read_dataset
from trainer.features import Progress, silent
from trainer.models.classifier import load_run_model
from trainer.models.committee import views_of
from trainer.onnx_graph import MAX_BATCH, export_core, run_logits, session, with_normalisation, with_views
from trainer.parity import ParityFigures, check, compare, reference_rule
from trainer.quantise import check_integer, quantise
from trainer.run import MODEL, RunSettings, read_settings, scores_of, write_json
from trainer.tensorrt_plan import Plan, build_plans

EXPORT = "export"
MODELS = ("fp32", "cpu", "trt")
FOLDS = ("val", "test")
PARITY = "parity.json"
BATCHES = (1, 5, MAX_BATCH)
EXPORT_TOLERANCE = 1e-3
"""Largest difference of logits between torch and the FP32 ONNX model, relative to the largest logit (at least 1)."""


@dataclass(frozen=True)
class ExportResult:
    """What an export came to.

    Attributes:
        folder: RUN/export.
        sizes: bytes of each model file, by name.
        convolutions: how many each INT8 variant has, all of them in INT8.
        parity: each INT8 variant against FP32 on the validation fold, at the FP32 model's thresholds.
        plans: TensorRT-RTX plans, where asked for.
    """

    folder: Path
    sizes: dict[str, int]
    convolutions: dict[str, int]
    parity: dict[str, ParityFigures]
    plans: list[Plan] = field(default_factory=list)


def export_run(
    run: Path,
    progress: Progress = silent,
    tensorrt: Sequence[str] = (),
    max_paired_escapes: int | None = None,
) -> ExportResult:
    """Export a run into RUN/export: the three models, their scores on val and test, parity.json.

    Args:
        run: folder of `trainer train`.
        progress: called with (what is being done, how many are done, of how many).
        tensorrt: GPU generations ("sm_86") to build TensorRT-RTX plans for.
        max_paired_escapes: validation defects that FP32 rejects and an INT8 model may pass; None: 3 % of the
            defects, at least two.

    Raises:
        InputError: no such run, its dataset is gone or has changed, a convolution does not fit INT8, or an INT8
            model passes too many defects. An earlier export is left as it was in the first two cases.
    """
    settings = read_settings(run)
    model, _ = load_run_model(run / MODEL)
    dataset = dataset_of(settings, run)
    train = load_split(dataset, settings.spec, "train")
    folds = {name: load_split(dataset, settings.spec, name) for name in FOLDS}

    progress("exporting FP32", 0, 1)
    core = export_core(model, settings.spec.shape)
    views = views_of(settings.model)
    models = {"fp32": with_views(with_normalisation(core), views)}
    _check_against_torch(run, settings, models["fp32"], folds["val"])
    progress("exporting FP32", 1, 1)
    variants = quantise(core, train.images, train.labels, settings.seed, progress, views)
    models |= {name: with_views(variant.model, views) for name, variant in variants.items()}
    convolutions = {str(name): check_integer(models[name], name) for name in variants}

    folder = run / EXPORT
    folder.mkdir(exist_ok=True)
    (folder / PARITY).unlink(missing_ok=True)  # the mark of a whole export: written last
    sizes = {}
    for name, onnx_model in models.items():
        data = onnx_model.SerializeToString(deterministic=True)
        (folder / f"model.{name}.onnx").write_bytes(data)
        sizes[name] = len(data)
    scores = {name: _score(folder, name, models[name], settings, folds, progress) for name in models}
    parity = _parity(scores)
    for figures in parity.values():
        check(figures, max_paired_escapes)
    plans = []
    if tensorrt:
        data = (folder / "model.trt.onnx").read_bytes()
        plans = build_plans(data, settings.spec.shape, tuple(tensorrt), folder / "plans", progress)
    result = ExportResult(folder, sizes, convolutions, parity, plans)
    figures_json = plain({name: asdict(found) for name, found in parity.items()})
    write_json(folder / PARITY, {"variants": figures_json, "files": _digests(run)})
    return result


def _digests(run: Path) -> dict[str, str]:
    """SHA-256 of everything that a release is made from, by its path inside the run."""
    scores = [f"{EXPORT}/scores.{model}.{fold}.csv" for model in MODELS for fold in FOLDS]
    names = [MODEL, *(f"{EXPORT}/model.{model}.onnx" for model in MODELS), *scores]
    return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in names}


def check_unchanged(run: Path) -> None:
    """Raise InputError unless RUN holds a whole export of the very network that is in it."""
    path = run / EXPORT / PARITY
    remedy = f"run `trainer export {run}`"
    try:
        recorded: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["files"]
        changed = [name for name, digest in _digests(run).items() if recorded.get(name) != digest]
    except FileNotFoundError:
        raise InputError(f"{run}: not exported, or the export was refused; {remedy} first") from None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not written by this program ({error}); {remedy} again") from None
    if changed:
        raise InputError(f"{run}: {changed[0]} has changed since the export; {remedy} again")


def dataset_of(settings: RunSettings, run: Path) -> Dataset:
    """The dataset that a run was trained on.

    Raises:
        InputError: it is not there any more, or not the same.
    """
    if not settings.data:
        raise InputError(f"{run}: was trained on a dataset in memory; train from a folder made by `trainer import`")
    dataset = read_dataset(Path(settings.data))
    if dataset.sha256 != settings.dataset_sha256:
        raise InputError(
            f"{settings.data}: has changed since {run} was trained on it; "
            "put the images and labels back as they were, or train again"
        )
    return dataset


def _check_against_torch(run: Path, settings: RunSettings, model: ModelProto, fold: LoadedSplit) -> None:
    """The exported graph must say what the trained network said, at every batch size in use."""
    known = Scores.read(run / "scores.val.csv").logits
    scale = max(1.0, float(np.abs(known).max()))
    running = session(model)
    for batch in BATCHES:
        frames = np.ascontiguousarray(fold.images[:batch])
        logits = np.asarray(running.run(["logits"], {"frames": frames})[0])
        worst = float(np.abs(logits - known[:batch]).max())
        if worst > EXPORT_TOLERANCE * scale:
            raise InputError(
                f"{run}: the exported model differs from the trained one by {worst:.4g} at batch {len(frames)} "
                f"(logits reach {scale:.3g}); the run folder was changed after training: train again"
            )


def _score(
    folder: Path,
    name: str,
    model: ModelProto,
    settings: RunSettings,
    folds: dict[str, LoadedSplit],
    progress: Progress,
) -> dict[str, Scores]:
    # TensorRT's integer arithmetic is what the pairs compute in float; ONNX Runtime's own fusion of them is slow
    running = session(model, fuse_integers=name != "trt")
    scores = {}
    for fold, split in folds.items():
        logits: NDArray[np.float32] = run_logits(running, split.images, progress, f"scoring {name} on {fold}")
        scores[fold] = scores_of(settings, split, logits)
        scores[fold].write(folder / f"scores.{name}.{fold}.csv")
    return scores


def _parity(scores: dict[str, dict[str, Scores]]) -> dict[str, ParityFigures]:
    reference = scores["fp32"]["val"]
    rule = reference_rule(reference)
    return {name: compare(name, reference, scores[name]["val"], rule) for name in ("cpu", "trt")}
