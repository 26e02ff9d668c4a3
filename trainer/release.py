"""`trainer release`: the exported models' scores -> temperature, thresholds, baseline, goldens -> bundle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.appearance import appearance
from calibration.cli_support import plain
from calibration.errors import InputError
from calibration.histogram import confidence_histogram
from calibration.risk import Costs
from calibration.scores import Scores
from calibration.values import Interval
from deploy.bundle import write_bundle
from deploy.manifest import AppearanceBaseline, Baseline, EscapeBound, Manifest, Parity, Provenance, Variant, printable
from trainer.data.manifest import Dataset
from trainer.export import EXPORT, FOLDS, MODELS, check_unchanged, dataset_of
from trainer.features import Progress, silent
from trainer.figures import Fitted, Measured, fit, measure, warnings_of
from trainer.goldens import COUNT, GoldenMember, choose, frame_of, load
from trainer.models.committee import views_of
from trainer.onnx_graph import MAX_BATCH, run_logits, session
from trainer.parity import ParityFigures, compare
from trainer.provenance import code_revision, created, versions
from trainer.report import Content, render
from trainer.run import RunSettings, read_settings, write_json
from trainer.sbom import Subject, sbom

VARIANTS = ("cpu", "trt")
MAIN = "cpu"
"""The variant whose figures stand in the manifest without a prefix."""


@dataclass(frozen=True)
class ReleaseResult:
    """What a release came to.

    Attributes:
        bundle, sha256, size, name: of the file.
        costs: that the thresholds were chosen for.
        fitted: by model ("fp32", "cpu", "trt"), on the validation fold.
        measured: by model, once, on the test fold.
        parity: of each INT8 model with FP32 on the validation fold, each judged by its own rule.
        parity_test: the same on the test fold.
        goldens: how many golden frames the bundle holds.
        warnings: sentences.
    """

    bundle: Path
    sha256: str
    size: int
    name: str
    costs: Costs
    fitted: dict[str, Fitted]
    measured: dict[str, Measured]
    parity: dict[str, ParityFigures]
    parity_test: dict[str, ParityFigures]
    goldens: int
    warnings: list[str]


def release_run(
    run: Path,
    out: Path,
    costs: Costs | None = None,
    name: str | None = None,
    progress: Progress = silent,
    prevalence: float | None = None,
    max_escape: float | None = None,
) -> ReleaseResult:
    """Write the bundle of an exported run, and RUN/report.html and RUN/release.json.

    Args:
        out: the `.lgb` file. costs: of escape, overkill and review; None takes the defaults of Costs.
        name: of the bundle, 1 to 64 printable characters; None takes the dataset's.
        prevalence: share of defects on the line; None takes the validation fold's.
        max_escape: bound on the expected escape rate that the thresholds must keep, in (0, 1); None states none.

    Raises:
        InputError: not exported, exported files that were changed since, a validation fold without defects or good
            parts or with too few defects for max_escape, or a name that no screen should show.
    """
    costs = costs or Costs()
    settings = read_settings(run)
    name = _named(name or settings.dataset)
    check_unchanged(run)
    dataset = dataset_of(settings, run)
    models = {model: (run / EXPORT / f"model.{model}.onnx").read_bytes() for model in VARIANTS}
    scores = {m: {fold: Scores.read(run / EXPORT / f"scores.{m}.{fold}.csv") for fold in FOLDS} for m in MODELS}
    fitted, measured = _calibrated(settings, models, scores, (costs, prevalence, max_escape), progress)
    parity, parity_test = (_parities(scores, fitted, fold) for fold in ("val", "test"))
    warnings = warnings_of(scores[MAIN]["val"], scores[MAIN]["test"], measured[MAIN])

    progress("goldens", 0, 1)
    golden = _goldens(dataset, settings, models, fitted, scores)
    progress("goldens", 1, 1)
    manifest = _manifest(
        name, settings, _appearance(dataset, settings, scores[MAIN]["val"].paths, progress), fitted, measured, parity
    )
    content = Content(manifest, costs, fitted, measured, parity, scores[MAIN]["test"], warnings, settings.licence)
    report = render(content, lambda path: frame_of(dataset, path))
    files = {f"model.{m}.onnx": data for m, data in models.items()}
    papers = {"report.html": report.encode(), "sbom.cdx.json": sbom(_subject(manifest, settings, files))}
    digest = write_bundle(out, manifest, {**golden, **files, **papers})
    result = ReleaseResult(
        bundle=out,
        sha256=digest,
        size=out.stat().st_size,
        name=name,
        costs=costs,
        fitted=fitted,
        measured=measured,
        parity=parity,
        parity_test=parity_test,
        goldens=len(golden) - 1,
        warnings=warnings,
    )
    (run / "report.html").write_text(report, encoding="utf-8")
    write_json(run / "release.json", plain(result))
    return result


def _calibrated(
    settings: RunSettings,
    models: Mapping[str, bytes],
    scores: Mapping[str, Mapping[str, Scores]],
    wishes: tuple[Costs, float | None, float | None],
    progress: Progress,
) -> tuple[dict[str, Fitted], dict[str, Measured]]:
    """Rule and baseline of each model from the validation fold, and its figures on the test fold, which are read once.

    Args:
        wishes: costs, prevalence and bound on the escape rate, as of `release_run`.
    """
    costs, prevalence, max_escape = wishes
    fitted: dict[str, Fitted] = {}
    measured: dict[str, Measured] = {}
    for i, model in enumerate(MODELS):
        sha256 = hashlib.sha256(models[model]).hexdigest() if model in models else ""
        first = fitted["fp32"].rule if fitted else None
        fitted[model] = fit(scores[model]["val"], costs, prevalence, sha256, settings.spec, max_escape, first)
        measured[model] = measure(scores[model]["test"], fitted[model].rule)
        progress("calibrating", i + 1, len(MODELS))
    return fitted, measured


def _parities(
    scores: Mapping[str, Mapping[str, Scores]], fitted: Mapping[str, Fitted], fold: str
) -> dict[str, ParityFigures]:
    """Each INT8 model against FP32 on a fold, each judged by its own rule."""
    reference, rule = scores["fp32"][fold], fitted["fp32"].rule
    return {m: compare(m, reference, scores[m][fold], rule, fitted[m].rule) for m in VARIANTS}


def _subject(manifest: Manifest, settings: RunSettings, files: Mapping[str, bytes]) -> Subject:
    return Subject(
        name=manifest.name,
        models=files,
        classes=settings.classes,
        dataset=settings.dataset,
        dataset_sha256=settings.dataset_sha256,
        licence=settings.licence,
        created=manifest.created.isoformat().replace("+00:00", "Z"),
    )


def _named(name: str) -> str:
    try:
        return printable(name)
    except ValueError as error:
        raise InputError(f"--name: {error}") from None


def _goldens(
    dataset: Dataset,
    settings: RunSettings,
    models: Mapping[str, bytes],
    fitted: Mapping[str, Fitted],
    scores: Mapping[str, Mapping[str, Scores]],
) -> dict[str, bytes]:
    """The golden members: frames of the validation fold, and the logits that each variant gives for them now."""
    val = scores[MAIN]["val"]
    rules = {m: fitted[m].rule for m in models}
    rows = choose(rules, {m: scores[m]["val"].logits for m in models}, val.labels, COUNT)
    members: list[GoldenMember] = load(dataset, val.paths, val.labels, rows)
    tensors = np.stack([settings.spec.apply(frame_of(dataset, val.paths[member.row])) for member in members])
    logits: dict[str, NDArray[np.float32]] = {
        m: run_logits(session(data, fuse_integers=m != "trt"), tensors) for m, data in models.items()
    }
    expected = [
        {
            "frame": f"golden/{i:03d}.png",
            "label": member.label,
            "logits": {m: [float(value) for value in logits[m][i]] for m in models},
        }
        for i, member in enumerate(members)
    ]
    files = {f"golden/{i:03d}.png": member.png for i, member in enumerate(members)}
    return {**files, "golden/expected.json": json.dumps(expected, indent=1, ensure_ascii=False).encode()}


def _appearance(
    dataset: Dataset, settings: RunSettings, paths: Sequence[str], progress: Progress
) -> AppearanceBaseline:
    """How the frames of the validation fold were taken."""
    found = np.empty((len(paths), 2))
    for i, path in enumerate(paths):
        found[i] = appearance(settings.spec.apply(frame_of(dataset, path)))
        progress("light and focus", i + 1, len(paths))
    brightness, sharpness = (
        Baseline(counts=tuple(confidence_histogram(column).tolist())) for column in (found[:, 0], found[:, 1])
    )
    return AppearanceBaseline(brightness=brightness, sharpness=sharpness)


def _manifest(
    name: str,
    settings: RunSettings,
    looks: AppearanceBaseline,
    fitted: Mapping[str, Fitted],
    measured: Mapping[str, Measured],
    parity: Mapping[str, ParityFigures],
) -> Manifest:
    variants = {}
    for variant in VARIANTS:
        figures = parity[variant]
        variants[variant] = Variant(
            model="model.cpu.onnx" if variant == "cpu" else "model.trt.onnx",
            rule=fitted[variant].rule,
            parity=Parity(
                parts=figures.parts,
                defects=figures.defects,
                agreement=figures.agreement.value,
                mean_deviation=figures.mean_deviation,
                max_deviation=figures.max_deviation,
                paired_escapes=figures.paired_escapes,
                paired_catches=figures.paired_catches,
            ),
            baseline=Baseline(counts=fitted[variant].baseline),
            escape_bound=_stated(fitted[variant]),
        )
    return Manifest(
        name=name,
        created=created(),
        classes=settings.classes,
        ok_class=settings.ok_class,
        preprocess=settings.spec,
        appearance=looks,
        max_batch=MAX_BATCH,
        views=len(views_of(settings.model)),
        variants=variants,
        metrics=_metrics(measured),
        provenance=Provenance(
            dataset=settings.dataset,
            dataset_sha256=settings.dataset_sha256,
            code_revision=code_revision(),
            seed=settings.seed,
            recipe=settings.recipe.name,
            versions=versions(),
            input_size_reason=settings.size_reason,
        ),
    )


def _stated(fitted: Fitted) -> EscapeBound | None:
    if fitted.bound is None:
        return None
    bound = fitted.bound
    return EscapeBound(
        alpha=bound.alpha, method="conformal risk control", defects=bound.defects, threshold=bound.threshold
    )


def _metrics(measured: Mapping[str, Measured]) -> dict[str, Interval]:
    """Test figures by name: of the main variant as they are, of the others behind "fp32." and "trt."."""
    return {
        name if model == MAIN else f"{model}.{name}": value
        for model, found in measured.items()
        for name, value in found.figures.items()
    }
