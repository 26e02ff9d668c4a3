"""What a model lets escape on the line itself, from a person's word on parts drawn at random within each decision.

Nobody can judge every part again, and a few of all parts hold next to no defects. So parts are drawn within each
decision of the model, and its rates follow from what a person found there and from how many parts had that decision
(stratified sampling: Cochran, Sampling Techniques, 3rd ed. 1977, chapter 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.values import Interval

Floats = NDArray[np.float64]

DRAWS = 20_000
"""Of the posterior: the limits of a 95 % interval are then known to about a hundredth of its width."""


@dataclass(frozen=True)
class Stratum:
    """The parts of one decision.

    Attributes:
        parts: >= 0, how many there were.
        expected: sum of their defect probabilities, 0..parts: how many of them the model itself takes for defects.
        judged: 0..parts, how many a person has judged, drawn at random among them.
        defects: 0..judged, how many of these were defects.
    """

    parts: int = 0
    expected: float = 0.0
    judged: int = 0
    defects: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.defects <= self.judged <= self.parts and 0 <= self.expected <= self.parts + 1e-6):
            raise ValueError(f"{self}: defects <= judged <= parts and expected in 0..parts do not hold")


@dataclass(frozen=True)
class LineRates:
    """Rates of a model on the line, shares in 0..1.

    Attributes:
        escape: of the defects, those that passed. overkill: of the good parts, those that were rejected. From what
            people found; the value is NaN where they found no defect, or no good part.
        expected_escape, expected_overkill: the same by the model's own probabilities, which hold while it is as
            well calibrated as it was (after Guillory et al., ICCV 2021); NaN without parts.
        escape_draws, overkill_draws: float64 (draws,), of the posterior that the intervals are from.
    """

    escape: Interval
    overkill: Interval
    expected_escape: float
    expected_overkill: float
    escape_draws: Floats
    overkill_draws: Floats


def line_rates(
    passed: Stratum, rejected: Sequence[Stratum], level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> LineRates:
    """Escape rate and overkill of all parts of the strata.

    The number of defects among a stratum's parts that nobody judged is drawn from its posterior: binomial, with a
    probability that is Beta(defects + 1/2, judged - defects + 1/2) (Jeffreys; Brown, Cai & DasGupta, Statistical
    Science 16, 2001). A stratum that nobody has looked at may hold anything, and widens the intervals accordingly.

    Args:
        passed: parts with the decision OK. rejected: the strata of the others.
        level: of the intervals, in (0, 1). draws: >= 100. seed: of the draws; the same gives the same limits.
    """
    rng = np.random.default_rng(seed)
    escaped, *caught = (_defects(stratum, draws, rng) for stratum in (passed, *rejected))
    caught_draws = np.sum(caught, axis=0) if caught else np.zeros(draws)
    good_passed, good = passed.parts - escaped, sum(s.parts for s in (passed, *rejected)) - escaped - caught_draws
    escape_draws = _share(escaped, escaped + caught_draws)
    overkill_draws = _share(good - good_passed, good)
    found = [_found(stratum) for stratum in (passed, *rejected)]
    expected = [stratum.expected for stratum in (passed, *rejected)]
    # Stratum by stratum: of differences of sums a share may come out above 1, by rounding.
    fine = [stratum.parts - count for stratum, count in zip((passed, *rejected), found, strict=True)]
    expected_fine = [max(0.0, stratum.parts - stratum.expected) for stratum in (passed, *rejected)]
    return LineRates(
        escape=_interval(_ratio(found[0], sum(found)), escape_draws, level),
        overkill=_interval(_ratio(sum(fine[1:]), sum(fine)), overkill_draws, level),
        expected_escape=_ratio(expected[0], sum(expected)),
        expected_overkill=_ratio(sum(expected_fine[1:]), sum(expected_fine)),
        escape_draws=escape_draws,
        overkill_draws=overkill_draws,
    )


def is_beyond(rate: Interval, draws: Floats, stated: float, false_alarm: float) -> bool:
    """Whether a rate is above ``stated``: what people found is, and the posterior but for ``false_alarm`` of it."""
    return rate.value > stated and bool(np.mean(draws > stated) >= 1 - false_alarm)


def _defects(stratum: Stratum, draws: int, rng: np.random.Generator) -> Floats:
    """Draws of the number of defects among all its parts, float64 (draws,)."""
    probability = rng.beta(stratum.defects + 0.5, stratum.judged - stratum.defects + 0.5, draws)
    return stratum.defects + rng.binomial(stratum.parts - stratum.judged, probability).astype(np.float64)


def _found(stratum: Stratum) -> float:
    """Defects among all its parts, as the judged ones say; NaN where there are parts and nobody has judged one."""
    return stratum.parts * _ratio(stratum.defects, stratum.judged) if stratum.parts else 0.0


def _share(some: Floats, of: Floats) -> Floats:
    """Shares; 0 where there is nothing to have a share of."""
    return np.divide(some, of, out=np.zeros_like(of), where=of > 0)


def _ratio(some: float, of: float) -> float:
    return some / of if of else float("nan")


def _interval(value: float, draws: Floats, level: float) -> Interval:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    known = value if value == value else (low + high) / 2  # NaN is in no interval
    return Interval(value, float(min(low, known)), float(max(high, known)), level)
