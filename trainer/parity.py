"""How far an INT8 model strays from the FP32 model it was made of, in verdicts rather than in numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calibration.decision import DecisionRule
from calibration.errors import InputError
from calibration.risk import Costs, choose_thresholds, wilson
from calibration.scores import Scores
from calibration.temperature import fit_temperature
from calibration.values import Interval

PAIRED_ESCAPE_SHARE = 0.03
LEAST_PAIRED_ESCAPES = 2
"""Default limit of paired escapes: this share of the fold's defects, and never fewer than this many, since parts
near the threshold fall to either side by chance. A judgement, not a measurement: --max-paired-escapes sets another."""


@dataclass(frozen=True)
class ParityFigures:
    """An INT8 model against FP32 on one fold, both judged by the FP32 model's temperature and thresholds.

    Attributes:
        variant: "cpu" or "trt". parts, defects: of the fold.
        threshold: defect probability up to which a part passes.
        agreement: share of parts with the same verdict (PASS or REJECT), with its Wilson interval.
        decisions: share of parts with the same decision of OK, UNSURE, DEFECT.
        mean_deviation, max_deviation: of the calibrated defect probability, 0..1.
        paired_escapes: defects that FP32 rejects and INT8 passes. paired_catches: the other way round.
    """

    variant: str
    parts: int
    defects: int
    threshold: float
    agreement: Interval
    decisions: float
    mean_deviation: float
    max_deviation: float
    paired_escapes: int
    paired_catches: int


def reference_rule(fp32: Scores, costs: Costs | None = None) -> DecisionRule:
    """The FP32 model's own rule, fitted on its scores of a fold; thresholds at 0.5 where a kind is missing.

    Its hashes are empty: it compares models and never leaves this process.
    """
    temperature = fit_temperature(fp32.logits, fp32.labels)
    rule = DecisionRule(fp32.classes, fp32.ok_class, temperature, 0.5, float(np.nextafter(0.5, 1)), "", "")
    if fp32.is_defect.all() or not fp32.is_defect.any():
        return rule
    chosen = choose_thresholds(rule.defect_probability(fp32.logits), fp32.is_defect, costs or Costs())
    return DecisionRule(fp32.classes, fp32.ok_class, temperature, chosen.ok_below, chosen.defect_above, "", "")


def compare(
    variant: str, fp32: Scores, int8: Scores, rule: DecisionRule, own: DecisionRule | None = None
) -> ParityFigures:
    """Figures of one INT8 model. Both Scores hold the same parts in the same order.

    Args:
        rule: of the FP32 model. own: of the INT8 model; None judges it by the FP32 model's too.

    Raises:
        ValueError: they do not.
    """
    if fp32.paths != int8.paths or fp32.classes != int8.classes:
        raise ValueError("the two models were scored on different parts")
    own = own or rule
    before, after = rule.defect_probability(fp32.logits), own.defect_probability(int8.logits)
    passed, now_passed = before <= rule.ok_below, after <= own.ok_below
    deviation = np.abs(after - before)
    same = [a == b for a, b in zip(rule.decide(fp32.logits), own.decide(int8.logits), strict=True)]
    return ParityFigures(
        variant=variant,
        parts=len(before),
        defects=int(fp32.is_defect.sum()),
        threshold=rule.ok_below,
        agreement=wilson(int((passed == now_passed).sum()), len(before)),
        decisions=float(np.mean(same)),
        mean_deviation=float(deviation.mean()),
        max_deviation=float(deviation.max()),
        paired_escapes=int((fp32.is_defect & ~passed & now_passed).sum()),
        paired_catches=int((fp32.is_defect & passed & ~now_passed).sum()),
    )


def paired_escape_limit(defects: int) -> int:
    """Paired escapes that are let through by default: 3 % of the defects, and at least two."""
    return max(LEAST_PAIRED_ESCAPES, int(PAIRED_ESCAPE_SHARE * defects))


def check(figures: ParityFigures, limit: int | None = None) -> None:
    """Refuse an INT8 model that passes defects which FP32 caught.

    Args:
        limit: paired escapes that are tolerated; None takes `paired_escape_limit`.

    Raises:
        InputError: with the figures and what to do.
    """
    allowed = paired_escape_limit(figures.defects) if limit is None else limit
    if figures.paired_escapes > allowed:
        raise InputError(
            f"model.{figures.variant}.onnx: passes {figures.paired_escapes} of {figures.defects} validation defects "
            f"that FP32 rejects (limit {allowed}; the other way round {figures.paired_catches}; verdicts agree on "
            f"{figures.agreement.value:.1%} of {figures.parts} parts, mean deviation {figures.mean_deviation:.3f}). "
            "Export refused: train with more or more varied images, or accept them by --max-paired-escapes"
        )
