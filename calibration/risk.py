"""What the thresholds cost: escapes against overkill, with their intervals.

Escape = a defect that is passed; overkill = a good part that is rejected. Both are shares: of the defects, and
of the good parts. A part is passed when its defect probability is <= the threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.conformal import conformal_quantile as conformal_quantile  # one import for all that limits escapes
from calibration.values import Interval

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def wilson(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Share with its Wilson score interval (Wilson 1927): sensible near 0 and 1, where normal intervals are not.

    NaN with limits 0 and 1 when there were no trials.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials")
    if trials == 0:
        return Interval(float("nan"), 0.0, 1.0, level)
    z = _normal_quantile((1 + level) / 2)
    share = successes / trials
    denominator = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / denominator
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / denominator
    # at 0 and n the score limits are exactly 0 and 1; rounding must not put the estimate outside
    return Interval(share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)), level)


def _normal_quantile(p: float) -> float:
    """Quantile of the standard normal by bisection on erf: exact to 1e-12, and no dependency for one number."""
    low, high = -10.0, 10.0
    for _ in range(80):
        middle = (low + high) / 2
        if 0.5 * (1 + math.erf(middle / math.sqrt(2))) < p:
            low = middle
        else:
            high = middle
    return (low + high) / 2


@dataclass(frozen=True)
class Curve:
    """Escape and overkill at every useful threshold, thresholds ascending.

    Attributes:
        threshold: float (m,): a part is passed when its defect probability is <= it. Starts at -inf (pass nothing).
        escape: share of defects passed, rising with the threshold.
        overkill: share of good parts not passed, falling with it.
    """

    threshold: Floats
    escape: Floats
    overkill: Floats


def escape_overkill_curve(defect_probability: ArrayLike, is_defect: ArrayLike) -> Curve:
    """The whole trade-off. Both arrays (n,). NaN shares where there are no defects or no good parts."""
    p, d = _checked(defect_probability, is_defect)
    threshold = np.concatenate([[-np.inf], np.unique(p)])
    defects, good = np.sort(p[d]), np.sort(p[~d])
    with np.errstate(invalid="ignore"):
        escape = np.searchsorted(defects, threshold, side="right") / np.float64(len(defects))
        overkill = 1.0 - np.searchsorted(good, threshold, side="right") / np.float64(len(good))
    return Curve(threshold, np.asarray(escape), np.asarray(overkill))


def escape_at_overkill(defect_probability: ArrayLike, is_defect: ArrayLike, overkill: float = 0.10) -> float:
    """Escape rate at the lowest threshold that rejects at most `overkill` of the good parts.

    NaN without defects or without good parts.

    A property of the ranking on these parts (the threshold is read off the same parts), like a point on a ROC
    curve; the escape rate of a bundle is measured with the bundle's own threshold instead.
    """
    curve = escape_overkill_curve(defect_probability, is_defect)
    if np.isnan(curve.overkill[0]):
        return float("nan")
    return float(curve.escape[np.argmax(curve.overkill <= overkill + 1e-12)])


def mean_escape(defect_probability: ArrayLike, is_defect: ArrayLike, overkill: float) -> float:
    """Escape rate on average over overkill from 0 to `overkill`, > 0, between whose steps the curve is straight.

    One less the partial AUC (McClish, Medical Decision Making 9, 1989) as a share of its range: what one point of the
    curve says, and on few parts it varies less. NaN without defects or without good parts.
    """
    curve = escape_overkill_curve(defect_probability, is_defect)
    if np.isnan(curve.overkill[0] + curve.escape[0]):
        return float("nan")
    x, y = curve.overkill[::-1], curve.escape[::-1]
    within = x <= overkill
    last = np.interp(overkill, x, y)
    return float(np.trapezoid(np.append(y[within], last), np.append(x[within], overkill)) / overkill)


@dataclass(frozen=True)
class Costs:
    """What a wrong or withheld decision costs, in any one unit; each > 0.

    Attributes:
        escape: a defect passed to the customer.
        overkill: a good part scrapped.
        review: a part that a person has to look at (UNSURE). At most the overkill, or nobody would review.
    """

    escape: float = 5.0
    overkill: float = 1.0
    review: float = 0.5

    def __post_init__(self) -> None:
        for name in ("escape", "overkill", "review"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"cost of {name} is {value}; it must be a number above 0")


@dataclass(frozen=True)
class Thresholds:
    """ok_below < defect_above in 0..1, as DecisionRule takes them, and what they were expected to cost."""

    ok_below: float
    defect_above: float
    cost_per_part: float


@dataclass(frozen=True)
class CostCurve:
    """Expected cost per part where one threshold alone decides between passing and scrapping, thresholds ascending.

    Attributes:
        threshold: float (m,): a part is passed when its defect probability is <= it. Starts at -inf (pass nothing).
        escape, overkill: shares there, see Curve.
        cost: prevalence x escape x its cost + (1 - prevalence) x overkill x its cost, in the unit of the costs.
    """

    threshold: Floats
    escape: Floats
    overkill: Floats
    cost: Floats

    @property
    def cheapest(self) -> int:
        """Index of the least cost; of equal ones the lowest threshold, which passes least."""
        return int(np.argmin(self.cost))


def cost_curve(
    defect_probability: ArrayLike, is_defect: ArrayLike, costs: Costs, prevalence: float | None = None
) -> CostCurve:
    """What every threshold costs, at one prevalence.

    Args as `choose_thresholds`; nobody reviews here, so the cost of a review has no part in it.

    Raises:
        ValueError: one kind is missing, or a prevalence outside (0, 1).
    """
    share = _share(np.asarray(is_defect, dtype=bool), prevalence)
    curve = escape_overkill_curve(defect_probability, is_defect)
    cost = share * costs.escape * curve.escape + (1 - share) * costs.overkill * curve.overkill
    return CostCurve(curve.threshold, curve.escape, curve.overkill, cost)


def choose_thresholds(
    defect_probability: ArrayLike,
    is_defect: ArrayLike,
    costs: Costs,
    prevalence: float | None = None,
    ok_at_most: float = 1.0,
) -> Thresholds:
    """The two thresholds of least mean cost on calibration scores, by an exact search over all pairs of cuts.

    A defect probability <= ok_below passes (cost of escape if it was a defect), >= defect_above is scrapped (cost
    of overkill if it was good), between them a person decides (cost of review). Among pairs that cost the same the
    one that passes least is taken, then the one that scraps most.

    Args:
        defect_probability: (n,), calibrated. is_defect: (n,). Both kinds must be present.
        costs: see Costs.
        prevalence: share of defects on the line; None takes the share in the data. Calibration sets are richer
            in defects than a line, which only makes the thresholds stricter than the line needs.
        ok_at_most: limit of ok_below in 0..1, such as the threshold of an EscapeBound; the cheapest pair below it is
            taken. A threshold below a bound's keeps the bound.

    Raises:
        ValueError: one kind is missing, scores outside 0..1, a prevalence outside (0, 1) or a limit outside 0..1.
    """
    p, d = _checked(defect_probability, is_defect)
    share = _share(d, prevalence)
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"defect probabilities lie in {p.min()}..{p.max()}, not in 0..1")
    if not 0 <= ok_at_most <= 1:
        raise ValueError(f"ok_at_most is {ok_at_most}; it must lie in 0..1")
    n_defects, n_good = int(d.sum()), int((~d).sum())
    order = np.argsort(p, kind="stable")
    p, d = p[order], d[order]
    weight = np.where(d, share / n_defects, (1 - share) / n_good)
    # passing the k lowest costs their escapes and saves their review; scrapping from m on likewise
    passing = np.concatenate([[0.0], np.cumsum(weight * (np.where(d, costs.escape, 0.0) - costs.review))])
    scrap = weight * (np.where(d, 0.0, costs.overkill) - costs.review)
    scrapping = np.concatenate([np.cumsum(scrap[::-1])[::-1], [0.0]])
    tied = np.concatenate([[p[0] <= 0.0], p[1:] == p[:-1], [p[-1] >= 1.0]])
    passing[tied] = scrapping[tied] = np.inf  # equal scores cannot be cut apart; 0 always passes, 1 is always scrapped
    passing[1:][p > ok_at_most] = np.inf
    best = np.minimum.accumulate(scrapping[::-1])[::-1]  # the least over all m >= k
    k = int(np.argmin(passing + best))
    m = k + int(np.argmin(scrapping[k:]))
    ok_below, defect_above = _cuts(p, k, m, ok_at_most)
    return Thresholds(ok_below, defect_above, float(passing[k] + scrapping[m] + costs.review * weight.sum()))


def cost_per_part(
    defect_probability: ArrayLike,
    is_defect: ArrayLike,
    costs: Costs,
    ok_below: float,
    defect_above: float,
    prevalence: float | None = None,
) -> float:
    """Mean cost of a part judged at two given thresholds, in the unit of the costs; arguments and errors as for
    :func:`choose_thresholds`.
    """
    p, d = _checked(defect_probability, is_defect)
    share = _share(d, prevalence)
    each = np.where(d, costs.escape, 0.0) * (p <= ok_below) + np.where(d, 0.0, costs.overkill) * (p >= defect_above)
    each += costs.review * ((p > ok_below) & (p < defect_above))
    return float(share * each[d].mean() + (1 - share) * each[~d].mean())


def _share(d: Bools, prevalence: float | None) -> float:
    """The prevalence to reckon with: the given one, or the share of defects in the data. Both kinds must be there."""
    n_defects, n_good = int(d.sum()), int((~d).sum())
    if n_defects == 0 or n_good == 0:
        raise ValueError(f"thresholds need defects and good parts; there are {n_defects} and {n_good}")
    share = n_defects / d.size if prevalence is None else prevalence
    if not 0 < share < 1:
        raise ValueError(f"prevalence is {share}; it must lie between 0 and 1")
    return share


def _cuts(p: Floats, k: int, m: int, ok_at_most: float) -> tuple[float, float]:
    """Thresholds that pass p[:k] and scrap p[m:], k <= m: midway to the neighbour, so that neither decides alone."""
    edges = np.concatenate([[0.0], p, [1.0]])  # p[:k] <= edges[k], edges[k + 1] <= p[k:]
    ok_below = min(_midway(edges[k], edges[k + 1]), ok_at_most)  # p[:k] <= ok_at_most, so none of them is cut off
    if m == k:  # no review band: the two are neighbouring floats
        return ok_below, float(np.nextafter(ok_below, 2.0))
    below = _midway(edges[m], edges[m + 1])
    return ok_below, max(below, float(np.nextafter(edges[m], 2.0)))


def _midway(low: float, high: float) -> float:
    """Of low < high: low <= result < high, also where no float lies between them."""
    middle = (low + high) / 2
    return float(middle if middle < high else low)


def _checked(defect_probability: ArrayLike, is_defect: ArrayLike) -> tuple[Floats, Bools]:
    p = np.asarray(defect_probability, dtype=np.float64)
    d = np.asarray(is_defect, dtype=bool)
    if p.ndim != 1 or p.shape != d.shape or len(p) == 0:
        raise ValueError(f"scores {p.shape} and truth {d.shape} are not two rows of equal, positive length")
    if not np.isfinite(p).all():
        raise ValueError(f"{int((~np.isfinite(p)).sum())} scores are not finite")
    return p, d
