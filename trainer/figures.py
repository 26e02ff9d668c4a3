"""What a release claims: fitted on the validation fold, measured once on the test fold, and the two kept apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.conformal import EscapeBound, escape_bound
from calibration.crossfit import group_index
from calibration.decision import DecisionRule
from calibration.errors import InputError
from calibration.histogram import confidence_histogram
from calibration.metrics import accuracy, ece_interval, ece_of_a_calibrated_model, softmax
from calibration.preprocess import PreprocessSpec
from calibration.risk import Costs, choose_thresholds, cost_per_part
from calibration.scores import Scores
from calibration.temperature import fit_temperature
from calibration.values import Interval
from trainer.assess import at_thresholds
from trainer.evaluate import SplitReport, report

FEW_DEFECTS = 60
"""Below this many an escape rate of 5 % cannot be told from one of 15 %."""


@dataclass(frozen=True)
class Fitted:
    """What was fitted on the validation fold for one model. These scores were seen: they prove nothing.

    Attributes:
        rule: temperature and thresholds. cost_per_part: expected at them, in the unit of the costs.
        parts, defects: of the fold.
        baseline: parts per bin of defect probability, for the drift monitor; at the stated prevalence.
        ece_before, ece_after: without and with the temperature.
        bound: on the escape rate, which limits the rule's ok_below; None where none was stated.
    """

    rule: DecisionRule
    cost_per_part: float
    parts: int
    defects: int
    baseline: tuple[int, ...]
    ece_before: float
    ece_after: float
    bound: EscapeBound | None = None


@dataclass(frozen=True)
class Measured:
    """One model on the test fold, with the temperature and thresholds fitted elsewhere.

    Attributes:
        parts, defects: of the fold.
        figures: by name, each with its 95 % interval: accuracy, auroc, escape_at_10_overkill (bootstrap over groups;
            the last with the threshold read off this fold), escape, overkill, unsure (Wilson, at the model's
            thresholds), ece_before, ece (bootstrap). A figure that needs a class the fold lacks is left out.
        ece_floor: what a perfectly calibrated model of these confidences would show at this size.
        accuracy_before: without the temperature; equal to the accuracy with it.
        detail: confusion matrix, recall by class and more.
    """

    parts: int
    defects: int
    figures: dict[str, Interval]
    ece_floor: Interval
    accuracy_before: float
    detail: SplitReport


def fit(
    scores: Scores,
    costs: Costs,
    prevalence: float | None,
    model_sha256: str,
    spec: PreprocessSpec,
    max_escape: float | None = None,
    reference: DecisionRule | None = None,
) -> Fitted:
    """Temperature, thresholds and drift baseline of one exported model from its validation scores.

    Args:
        max_escape: bound on the expected escape rate, in (0, 1); None lets the costs alone decide. The bound takes
            the fold for parts the model has not seen; that the fold also chose the epoch kept, and gave one
            temperature, it does not know of: the test fold's escape rate is the check.
        reference: rule of the FP32 model, whose thresholds are taken over as far as this model's own bound allows. The
            cheapest cut through a few hundred parts is a matter of chance; chosen for each model anew, it would make
            more verdicts differ than the rounding does. None chooses them.

    Raises:
        InputError: the fold holds no defects, or nothing but defects, or too few to bound the escape rate.
    """
    defects, parts = int(scores.is_defect.sum()), len(scores.labels)
    if defects == 0 or defects == parts:
        lacking = "defects" if defects == 0 else f"good parts (class {scores.ok_class!r})"
        raise InputError(
            f"the validation fold has no {lacking} among its {parts} parts, so no threshold can be chosen: "
            "add images of them, or import again with a larger validation share or another --seed"
        )
    temperature = fit_temperature(scores.logits, scores.labels)
    widest = float(np.nextafter(0.5, 1))
    draft = DecisionRule(scores.classes, scores.ok_class, temperature, 0.5, widest, model_sha256, spec.sha256)
    probability = draft.defect_probability(scores.logits)
    bound = None if max_escape is None else _bound(scores, probability, max_escape)
    limit = 1.0 if bound is None else bound.threshold
    given = reference or choose_thresholds(probability, scores.is_defect, costs, prevalence, limit)
    cuts = min(given.ok_below, limit), given.defect_above
    rule = DecisionRule(scores.classes, scores.ok_class, temperature, *cuts, model_sha256, spec.sha256)
    cost = cost_per_part(probability, scores.is_defect, costs, *cuts, prevalence)
    summary = report(scores, temperature, draws=1)
    counts = _baseline(probability, scores.is_defect, prevalence)
    return Fitted(rule, cost, parts, defects, counts, summary.ece_before, summary.ece, bound)


def _baseline(
    probability: NDArray[np.float64], is_defect: NDArray[np.bool_], prevalence: float | None
) -> tuple[int, ...]:
    """Parts per bin, as many as there are; where a prevalence is stated, the class of which the line has fewer counts
    for less."""
    good, bad = confidence_histogram(probability[~is_defect]), confidence_histogram(probability[is_defect])
    if prevalence is not None:
        ratio = prevalence / (1 - prevalence) * good.sum() / bad.sum()
        good, bad = _scaled(good, 1 / max(1.0, ratio)), _scaled(bad, min(1.0, ratio))
    return tuple(int(n) for n in good + bad)


def _scaled(counts: NDArray[np.int64], factor: float) -> NDArray[np.int64]:
    """Whole counts that sum to `factor` of the sum, rounded; what is left over goes to the largest remainders."""
    exact = counts * factor
    whole: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    left = round(float(exact.sum())) - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:left]] += 1
    return whole


def _bound(scores: Scores, probability: NDArray[np.float64], max_escape: float) -> EscapeBound:
    try:
        return escape_bound(probability, scores.is_defect, max_escape, group_index(scores))
    except ValueError as error:
        raise InputError(
            f"the validation fold: {error}; add images of defects, import again with a larger validation share, or "
            "state a larger --max-escape"
        ) from None


def measure(scores: Scores, rule: DecisionRule) -> Measured:
    """Figures of one model on the test fold."""
    detail = report(scores, rule.temperature)
    point = at_thresholds(scores, rule)
    before, after = softmax(scores.logits), rule.probabilities(scores.logits)
    found = {
        "accuracy": detail.accuracy_interval,
        "auroc": detail.auroc_interval,
        "escape": point.escape,
        "overkill": point.overkill,
        "unsure": point.unsure,
        "escape_at_10_overkill": detail.escape_interval,
        "ece_before": ece_interval(before, scores.labels),
        "ece": detail.ece_interval,
    }
    figures = {name: value for name, value in found.items() if value is not None and _finite(value)}
    floor = ece_of_a_calibrated_model(after)
    return Measured(
        len(scores.labels), int(scores.is_defect.sum()), figures, floor, accuracy(before, scores.labels), detail
    )


def _finite(value: Interval) -> bool:
    return all(math.isfinite(number) for number in (value.value, value.low, value.high))


def warnings_of(val: Scores, test: Scores, measured: Measured) -> list[str]:
    """What a reader must know before trusting the figures, each a sentence."""
    found = []
    for name, fold in (("validation", val), ("test", test)):
        defects = int(fold.is_defect.sum())
        if defects < FEW_DEFECTS:
            found.append(
                f"The {name} fold has only {defects} defects among {len(fold.labels)} parts: "
                + ("thresholds rest on them." if name == "validation" else "the escape rate is known only roughly.")
            )
        if defects == len(fold.labels):
            found.append(f"The {name} fold has no good parts: overkill is not known.")
        absent = [c for i, c in enumerate(fold.classes) if not (fold.labels == i).any()]
        if absent:
            found.append(f"The {name} fold has no parts of class {', '.join(map(repr, absent))}.")
    ece, before = measured.figures.get("ece"), measured.figures.get("ece_before")
    if ece and before and ece.value > before.value / 2 and ece.value > measured.ece_floor.high:
        found.append(
            f"The calibration error is {ece.value:.3f} after temperature ({before.value:.3f} before), more than chance "
            f"explains ({measured.ece_floor.high:.3f}): confidences are not to be taken at their word."
        )
    return found
