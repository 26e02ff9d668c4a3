"""How good a run or a bundle is on a split: the same figures everywhere, each with its interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.metrics import (
    accuracy,
    auroc,
    balanced_accuracy,
    bootstrap,
    brier,
    confusion,
    ece,
    macro_f1,
    nll,
    softmax,
)
from calibration.risk import escape_at_overkill
from calibration.scores import Scores
from calibration.temperature import fit_temperature
from calibration.values import Interval

OVERKILL = 0.10
"""Share of good parts rejected at which escapes are compared."""


@dataclass(frozen=True)
class SplitReport:
    """Figures of one model on one split. Rates are shares in 0..1; NaN where a class needed for one is
    absent.

    Attributes:
        samples, defects: images in all, and with a defect label.
        accuracy: largest probability is the label's, over all classes. binary_accuracy: OK against any
        defect. balanced_accuracy, macro_f1: every class counts alike.
        auroc: of the defect probability. escape: at OVERKILL, threshold read off this split.
        ece_before, ece: expected calibration error without and with the temperature. nll, brier: with it.
        accuracy_interval, auroc_interval, escape_interval, ece_interval: 95 %, bootstrap over groups.
        per_class: recall of each class.
        confusion: [label][predicted] counts.
    """

    samples: int
    defects: int
    accuracy: float
    accuracy_interval: Interval
    binary_accuracy: float
    balanced_accuracy: float
    macro_f1: float
    auroc: float
    auroc_interval: Interval
    escape: float
    escape_interval: Interval
    ece_before: float
    ece: float
    ece_interval: Interval
    nll: float
    brier: float
    per_class: dict[str, float]
    confusion: list[list[int]]


@dataclass(frozen=True)
class RunReport:
    """A run: the temperature fitted on validation, and the figures on both splits."""

    temperature: float
    val: SplitReport
    test: SplitReport


def evaluate_run(run: Path, variant: str | None = None, draws: int = 200) -> RunReport:
    """Figures of a run from its recorded scores: of the trained net, or of an exported ``variant`` of it.

    Args:
        variant: None for RUN/scores.SPLIT.csv, or "fp32", "cpu", "trt" for
        RUN/export/scores.VARIANT.SPLIT.csv. draws: bootstrap resamples behind each interval.

    Raises:
        InputError: the scores are missing or damaged.
    """
    folder, middle = (run, "") if variant is None else (run / "export", f"{variant}.")
    val, test = (_read(folder / f"scores.{middle}{split}.csv") for split in ("val", "test"))
    temperature = fit_temperature(val.logits, val.labels)
    return RunReport(temperature, report(val, temperature, draws), report(test, temperature, draws))


def report(scores: Scores, temperature: float, draws: int = 200) -> SplitReport:
    """Figures of ``scores`` at a temperature that was fitted on other parts."""
    p, labels, is_defect = softmax(scores.logits / temperature), scores.labels, scores.is_defect
    defect = 1 - p[:, scores.ok_index]
    predicted, n = p.argmax(1), len(scores.classes)
    table = confusion(predicted, labels, n)
    correct = predicted == labels

    def interval(statistic: Callable[[NDArray[np.int64]], float]) -> Interval:
        return bootstrap(statistic, len(labels), scores.groups, draws)

    return SplitReport(
        samples=len(labels),
        defects=int(is_defect.sum()),
        accuracy=accuracy(p, labels),
        accuracy_interval=interval(lambda rows: float(correct[rows].mean())),
        binary_accuracy=float(((predicted != scores.ok_index) == is_defect).mean()),
        balanced_accuracy=balanced_accuracy(predicted, labels, n),
        macro_f1=macro_f1(predicted, labels, n),
        auroc=auroc(defect, is_defect),
        auroc_interval=interval(lambda rows: auroc(defect[rows], is_defect[rows])),
        escape=escape_at_overkill(defect, is_defect, OVERKILL),
        escape_interval=interval(lambda rows: escape_at_overkill(defect[rows], is_defect[rows], OVERKILL)),
        ece_before=ece(softmax(scores.logits), labels),
        ece=ece(p, labels),
        ece_interval=interval(lambda rows: ece(p[rows], labels[rows])),
        nll=nll(p, labels),
        brier=brier(p, labels),
        per_class={
            name: float(table[i, i] / table[i].sum()) if table[i].sum() else float("nan")
            for i, name in enumerate(scores.classes)
        },
        confusion=[[int(count) for count in row] for row in table],
    )


def _read(path: Path) -> Scores:
    if not path.is_file():
        raise InputError(f"{path}: no scores here; run `trainer train` (and `trainer export`) first")
    return Scores.read(path)
