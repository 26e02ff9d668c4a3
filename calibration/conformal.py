"""Thresholds with a promised escape rate, from the defects of a calibration set: no assumption but exchangeability.

Exchangeable means that the next defect could as well have been one of the calibration defects. Images of one part are
not exchangeable with images of other parts, parts are: with `groups`, the unit here is the group, and a group counts
as escaped as soon as one of its images would pass. That is the strict reading: the bound then holds for the chance
that *any* image of a defective part passes, and the number of defects is the number of groups with a defect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROUNDING = 1e-12
"""Relative slack where a product of floats stands for a whole number: (19 + 1) * 0.05 may come out below 1."""

EXPECTED = "conformal risk control"
CONFIDENT = "Clopper-Pearson"


def conformal_quantile(scores: ArrayLike, alpha: float) -> float:
    """The ceil((n + 1)(1 - alpha))-th smallest of n calibration scores (Vovk et al. 2005; Lei et al. 2018).

    A further exchangeable score is at most as large with probability at least 1 - alpha, and with at most
    1 - alpha + 1 / (n + 1) where scores never tie.

    Args:
        scores: float (n,), n >= 0; infinities are allowed.
        alpha: in (0, 1); taken as the decimal it is written as, so that n = 19 and alpha = 0.05 give the 19th.

    Returns:
        The score, or inf where n < 1 / alpha - 1: too few for any finite bound.

    Raises:
        ValueError: scores are not one row, one is NaN, or alpha lies outside (0, 1).
    """
    s = np.asarray(scores, dtype=np.float64)
    if s.ndim != 1:
        raise ValueError(f"scores have shape {s.shape}; expected one row (n,)")
    if np.isnan(s).any():
        raise ValueError(f"{int(np.isnan(s).sum())} scores are NaN (first: row {int(np.isnan(s).argmax())})")
    above = _whole((len(s) + 1) * _checked_alpha(alpha))  # how many of the n + 1 may be larger
    if above == 0:
        return math.inf
    return float(np.sort(s)[len(s) - above])


@dataclass(frozen=True)
class EscapeBound:
    """A threshold and what it promises.

    Attributes:
        alpha: the bound on the escape rate, in (0, 1).
        method: "conformal risk control": over calibration sets and parts together, a defect escapes with probability
            at most alpha (a bound in mean). "Clopper-Pearson": in a share `confidence` of all calibration sets the
            escape rate of the threshold is at most alpha.
        confidence: of the second kind, in (0, 1); None for the first.
        defects: that it rests on; groups with a defect where groups were given.
        allowed: how many of them may lie at or below the threshold; ties at the limit only make them fewer.
        threshold: the largest that keeps the promise: parts with a defect probability <= it may pass. In [0, 1).
    """

    alpha: float
    method: str
    confidence: float | None
    defects: int
    allowed: int
    threshold: float


def escape_bound(
    defect_probability: ArrayLike, is_defect: ArrayLike, alpha: float, groups: ArrayLike | None = None
) -> EscapeBound:
    """Largest threshold whose expected escape rate is at most alpha, by conformal risk control.

    Angelopoulos et al. 2022, arXiv:2208.02814: the largest lambda with n / (n + 1) R(lambda) + 1 / (n + 1) <= alpha,
    where R is the share of the n calibration defects with a probability <= lambda. A defect whose probability equals
    the limit does not pass. For this 0/1 loss it is the conformal quantile of the negated probabilities.

    The scores must come from a model that has not seen these parts; a temperature fitted on them is harmless with
    two classes (it keeps their order), and otherwise a small liberty, as one number is fitted.

    Args:
        defect_probability: float (n,), in 0..1. is_defect: (n,). Good parts are ignored.
        groups: (n,), which rows show the same part; None takes every row for a part of its own.

    Raises:
        ValueError: fewer than 1 / alpha - 1 defects (the message names the number needed), scores outside 0..1 or
            NaN, unequal lengths, alpha outside (0, 1), or so many defects of probability 0 that nothing may pass.
    """
    scores = defect_scores(defect_probability, is_defect, groups)
    needed = defects_needed(alpha)
    if len(scores) < needed:
        what = f"an expected escape rate of at most {alpha:.4g}"
        raise ValueError(_too_few(len(scores), 1 / (len(scores) + 1), needed, what))
    allowed = _whole((len(scores) + 1) * alpha) - 1
    return EscapeBound(alpha, EXPECTED, None, len(scores), allowed, _below(-conformal_quantile(-scores, alpha), alpha))


def confident_escape_bound(
    defect_probability: ArrayLike,
    is_defect: ArrayLike,
    alpha: float,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
) -> EscapeBound:
    """Largest threshold whose escape rate is at most alpha with the given confidence over calibration sets.

    It lets k calibration defects pass, k the largest with an upper Clopper-Pearson limit (Clopper & Pearson 1934) of
    at most alpha. k depends on n alone, so choosing the threshold by the data costs nothing: the escape rate below
    the (k + 1)-th smallest score is at most a Beta(k + 1, n - k) variable (Wilks 1941).

    Args and raises as `escape_bound`, but that more defects are needed: (1 - alpha) ** n <= 1 - confidence.
    """
    scores = defect_scores(defect_probability, is_defect, groups)
    needed = defects_needed_confidently(alpha, confidence)
    if len(scores) < needed:
        what = f"an escape rate of at most {alpha:.4g} with {confidence:.0%} confidence"
        raise ValueError(_too_few(len(scores), 1 - (1 - confidence) ** (1 / max(1, len(scores))), needed, what))
    allowed = _most_escapes(len(scores), alpha, 1 - confidence)
    limit = float(np.sort(scores)[allowed])
    return EscapeBound(alpha, CONFIDENT, confidence, len(scores), allowed, _below(limit, alpha))


def defects_needed(alpha: float) -> int:
    """Defects below which no expected escape rate of alpha can be promised: the least n >= 1 / alpha - 1."""
    return max(1, math.ceil(1 / _checked_alpha(alpha) * (1 - ROUNDING)) - 1)


def defects_needed_confidently(alpha: float, confidence: float = 0.95) -> int:
    """Defects needed to promise alpha with confidence, none of them passing: the least n with (1 - alpha)^n <= 1 - c.

    Raises:
        ValueError: alpha or confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it must lie between 0 and 1")
    return max(1, math.ceil(math.log(1 - confidence) / math.log1p(-_checked_alpha(alpha)) * (1 - ROUNDING)))


def defect_scores(
    defect_probability: ArrayLike, is_defect: ArrayLike, groups: ArrayLike | None = None
) -> NDArray[np.float64]:
    """One score per defective part, float64 (parts,): the least defect probability among its defect images."""
    p, d = np.asarray(defect_probability, dtype=np.float64), np.asarray(is_defect, dtype=bool)
    if p.ndim != 1 or p.shape != d.shape:
        raise ValueError(f"scores {p.shape} and truth {d.shape} are not two rows of equal length")
    wrong = ~((p >= 0) & (p <= 1))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"row {row}: the defect probability is {p[row]}, not a number in 0..1")
    if groups is None:
        return np.asarray(p[d])
    names = np.asarray(groups)
    if names.shape != p.shape:
        raise ValueError(f"groups {names.shape} and scores {p.shape} are not two rows of equal length")
    _, index = np.unique(names[d], return_inverse=True)
    least = np.ones(int(index.max()) + 1 if len(index) else 0)
    np.minimum.at(least, index, p[d])
    return least


def binomial_cdf(k: int, n: int, share: float) -> float:
    """P(X <= k) of a binomial variable of n trials, 0 <= k <= n, 0 < share < 1; exact to about 1e-9."""
    log_terms = [
        math.lgamma(n + 1) - math.lgamma(j + 1) - math.lgamma(n - j + 1) + j * math.log(share)
        + (n - j) * math.log1p(-share)
        for j in range(k + 1)
    ]  # fmt: skip
    return min(1.0, math.fsum(math.exp(term) for term in log_terms))


@cache  # calibrations on resampled data ask for the same few numbers of defects
def _most_escapes(n: int, alpha: float, error: float) -> int:
    """The largest k with P(Binomial(n, alpha) <= k) <= error; k = 0 must satisfy it."""
    low, high = 0, n  # the property holds at low and fails at high
    while high - low > 1:
        middle = (low + high) // 2
        if binomial_cdf(middle, n, alpha) <= error:
            low = middle
        else:
            high = middle
    return low


def _below(limit: float, alpha: float) -> float:
    """The largest threshold that lets no score of `limit` pass."""
    if limit <= 0:
        raise ValueError(
            f"so many defects have a defect probability of exactly 0 that no threshold keeps escapes to {alpha:.4g}: "
            "the model takes them for certainly good; look at their labels, or train again"
        )
    return float(np.nextafter(limit, -1.0))


def _too_few(have: int, reachable: float, needed: int, what: str) -> str:
    advice = f"; with {have} the smallest bound is {reachable:.3g}" if have else ""
    return f"{have} defects are too few for {what}: at least {needed} are needed{advice}"


def _checked_alpha(alpha: float) -> float:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; it must lie between 0 and 1")
    return alpha


def _whole(value: float) -> int:
    """Floor, with a value that misses a whole number by rounding taken for it."""
    return math.floor(value * (1 + ROUNDING))
