"""report.html: what a quality engineer reads before a bundle goes on a line. One file that needs nothing beside it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.charts import (
    confidence_histogram_chart,
    confusion_chart,
    escape_overkill_chart,
    reliability_diagram,
)
from calibration.histogram import confidence_histogram
from calibration.metrics import reliability_bins, softmax
from calibration.preprocess import Frame
from calibration.report_html import STYLE
from calibration.risk import Costs, escape_overkill_curve
from calibration.scores import Scores
from calibration.values import BINS, Interval
from deploy.manifest import Manifest
from trainer.figures import Fitted, Measured
from trainer.parity import ParityFigures

MAIN = "cpu"
TITLES = {"fp32": "FP32", "cpu": "INT8, CPU", "trt": "INT8, TensorRT"}
ROWS = {
    "accuracy": "accuracy",
    "auroc": "AUROC of defects",
    "escape": "escape at the thresholds",
    "overkill": "overkill at the thresholds",
    "unsure": "to be looked at by a person",
    "escape_at_10_overkill": "escape at 10 % overkill",
    "ece_before": "ECE without temperature",
    "ece": "ECE with temperature",
}
PLAIN = ("auroc", "ece_before", "ece")
WORST = 8
THUMBNAIL = 160

MORE_STYLE = """
.warning { background: #fff8e6; border-left: 4px solid #b7791f; padding: .4rem .8rem; margin: .4rem 0 }
.pictures { display: flex; flex-wrap: wrap; gap: .8rem } .pictures figure { margin: 0; width: 160px }
.pictures img { max-width: 160px; border: 1px solid #c9d1dc } figcaption { font-size: 12px; overflow-wrap: anywhere }
.charts { display: flex; flex-wrap: wrap; gap: 1.5rem } .charts figure { margin: 0 }
"""


@dataclass(frozen=True)
class Content:
    """Everything the report tells. `test` are the main variant's scores of the test fold."""

    manifest: Manifest
    costs: Costs
    fitted: Mapping[str, Fitted]
    measured: Mapping[str, Measured]
    parity: Mapping[str, ParityFigures]
    test: Scores
    warnings: Sequence[str]
    licence: str


def render(content: Content, frame_of: Callable[[str], Frame]) -> str:
    """The whole page.

    Args:
        frame_of: the original frame behind a path of the scores.
    """
    manifest = content.manifest
    title = f"Release report: {manifest.name}"
    measured = content.measured[MAIN]
    about = (
        f"Classes {', '.join(manifest.classes)} (good: {manifest.ok_class}). "
        f"Made {manifest.created:%Y-%m-%d %H:%M} UTC from dataset {manifest.provenance.dataset}."
    )
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        f"<style>{STYLE}{MORE_STYLE}</style></head><body><h1>{escape(title)}</h1><p>{escape(about)}</p>",
        *(f'<p class="warning">{escape(text)}</p>' for text in content.warnings),
        f"<h2>Measured once, on {measured.parts} test parts ({measured.defects} defects)</h2>",
        _measured(content),
        _note(
            "No test part took part in training, calibration or the choice of thresholds. Escape: share of defects "
            "passed; overkill: share of good parts not passed. Brackets hold 95 % intervals: Wilson for rates at the "
            "thresholds, bootstrap over groups for the rest. Escape at 10 % overkill reads its threshold off these "
            f"parts, like a point on a ROC curve. A perfectly calibrated model would show an ECE of "
            f"{measured.ece_floor:.3f} here. Accuracy without the temperature is {measured.accuracy_before:.4f}."
        ),
        "<h2>Fitted on the validation fold</h2>",
        _fitted(content),
        _note(
            f"Costs: escape {content.costs.escape:g}, overkill {content.costs.overkill:g}, review "
            f"{content.costs.review:g}. These figures were optimised on the parts they are shown for; they are no "
            "evidence of quality. Agreement and paired escapes hold each INT8 model against FP32 on the same parts, "
            "at the thresholds of FP32."
        ),
        "<h2>Diagrams (test parts, INT8 for CPUs)</h2>",
        _charts(content),
        "<h2>Worst mistakes (test parts)</h2>",
        _mistakes(content, frame_of),
        "<h2>Provenance</h2>",
        _provenance(content),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _measured(content: Content) -> str:
    models = [model for model in TITLES if model in content.measured]
    rows = []
    for name, label in ROWS.items():
        cells = [_interval(content.measured[model].figures.get(name), name in PLAIN) for model in models]
        rows.append([label, *cells])
    return _table(["", *(TITLES[model] for model in models)], rows)


def _interval(value: Interval | None, plain: bool) -> str:
    if value is None:
        return "n/a"
    return f"{value:.3f}" if plain else f"{value:.1%}"


def _fitted(content: Content) -> str:
    models = [model for model in TITLES if model in content.fitted]
    found = [content.fitted[model] for model in models]
    rows = [
        ["parts (defects)", *(f"{fit.parts} ({fit.defects})" for fit in found)],
        ["temperature", *(f"{fit.rule.temperature:.4f}" for fit in found)],
        ["OK up to a defect probability of", *(f"{fit.rule.ok_below:.4f}" for fit in found)],
        ["DEFECT from", *(f"{fit.rule.defect_above:.4f}" for fit in found)],
        ["expected escape at most", *(_bound(fit) for fit in found)],
        ["expected cost per part", *(f"{fit.cost_per_part:.4f}" for fit in found)],
        ["ECE without / with temperature", *(f"{fit.ece_before:.3f} / {fit.ece_after:.3f}" for fit in found)],
    ]
    parities = [content.parity.get(model) for model in models]
    rows.append(["verdicts as FP32", *(_interval(p.agreement, False) if p else "" for p in parities)])
    rows.append(
        ["paired escapes / catches", *(f"{p.paired_escapes} / {p.paired_catches}" if p else "" for p in parities)]
    )
    deviations = (f"{p.mean_deviation:.4f} / {p.max_deviation:.3f}" if p else "" for p in parities)
    rows.append(["deviation of the probability, mean / max", *deviations])
    return _table(["", *(TITLES[model] for model in models)], rows)


def _bound(fit: Fitted) -> str:
    if fit.bound is None:
        return "no bound stated"
    bound = fit.bound
    return f"{bound.alpha:.4g} (by {bound.method}, {bound.defects} defects: OK up to {bound.threshold:.4f})"


def _charts(content: Content) -> str:
    test, rule = content.test, content.fitted[MAIN].rule
    after = rule.probabilities(test.logits)
    defect = rule.defect_probability(test.logits)
    figures = content.measured[MAIN].figures
    chosen = (figures["escape"], figures["overkill"]) if {"escape", "overkill"} <= figures.keys() else None
    bins = [
        ("without temperature", reliability_bins(softmax(test.logits), test.labels)),
        (f"with temperature {rule.temperature:.2f}", reliability_bins(after, test.labels)),
    ]
    good, bad = (confidence_histogram(defect[kind], BINS) for kind in (~test.is_defect, test.is_defect))
    charts = [
        reliability_diagram(bins),
        confidence_histogram_chart(good, bad, rule.ok_below, rule.defect_above),
        confusion_chart(content.measured[MAIN].detail.confusion, test.classes),
    ]
    if test.is_defect.any() and not test.is_defect.all():
        charts.append(escape_overkill_chart(escape_overkill_curve(defect, test.is_defect), chosen))
    return '<div class="charts">' + "".join(f"<figure>{svg}</figure>" for svg in charts) + "</div>"


def _mistakes(content: Content, frame_of: Callable[[str], Frame]) -> str:
    test, rule = content.test, content.fitted[MAIN].rule
    defect = rule.defect_probability(test.logits)
    escapes = np.flatnonzero(test.is_defect & (defect <= rule.ok_below))
    overkill = np.flatnonzero(~test.is_defect & (defect > rule.ok_below))
    rows = [
        ("Escapes: defects that passed, most confident first", escapes[np.argsort(defect[escapes], kind="stable")]),
        (
            "Overkill: good parts that did not pass, most confident first",
            overkill[np.argsort(-defect[overkill], kind="stable")],
        ),
    ]
    return "".join(_pictures(title, chosen, test, defect, frame_of) for title, chosen in rows)


def _pictures(
    title: str,
    rows: NDArray[np.int64],
    test: Scores,
    defect: NDArray[np.float64],
    frame_of: Callable[[str], Frame],
) -> str:
    figures = []
    for row in rows[:WORST]:
        name, label = test.paths[row], test.classes[int(test.labels[row])]
        caption = f"{escape(name)}<br>is {escape(label)}; defect probability {defect[row]:.3f}"
        picture = f'<img alt="{escape(name)}" src="{thumbnail(frame_of(name))}">'
        figures.append(f"<figure>{picture}<figcaption>{caption}</figcaption></figure>")
    body = f'<div class="pictures">{"".join(figures)}</div>' if figures else "<p>None.</p>"
    more = f" (worst {WORST} of {len(rows)})" if len(rows) > WORST else f" ({len(rows)})"
    return f"<h3>{escape(title)}{more}</h3>{body}"


def thumbnail(frame: Frame) -> str:
    """A data URI of the frame as JPEG, its longer side at most THUMBNAIL pixels."""
    scale = min(1.0, THUMBNAIL / max(frame.shape[:2]))
    size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA) if scale < 1 else frame
    _, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def _provenance(content: Content) -> str:
    origin, spec = content.manifest.provenance, content.manifest.preprocess
    rows = [
        ["dataset", f"{origin.dataset}, SHA-256 {origin.dataset_sha256}"],
        ["licence of the images", content.licence or "not stated"],
        ["input", f"{spec.width}x{spec.height}, {spec.channels} channel(s), {spec.fit}: {origin.input_size_reason}"],
        ["recipe, seed", f"{origin.recipe}, {origin.seed}"],
        ["code revision", origin.code_revision],
        ["versions", ", ".join(f"{name} {version}" for name, version in origin.versions.items())],
    ]
    rows += [
        [f"SHA-256 of model.{name}.onnx", variant.rule.model_sha256]
        for name, variant in content.manifest.variants.items()
    ]
    return _table(["", ""], rows, number=False)


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], number: bool = True) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    style = ' class="number"' if number else ""
    body = "".join(
        f"<tr><th>{escape(row[0])}</th>" + "".join(f"<td{style}>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
