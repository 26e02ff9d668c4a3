"""Do the escape bounds hold? Random splits of recorded scores into calibration and test, a thousand times.

For each stated alpha the defects of a scores file are split in two at random, group by group. The bound's threshold
comes from the one half, its escapes are counted in the other:

- in mean (conformal risk control): the mean share of test defects that pass, which must not exceed alpha. By symmetry
  its exact value is floor((n + 1) alpha) / (n + 1) for n calibration defects without ties; the thousand splits add
  a standard error.
- with 95 % confidence (Clopper-Pearson): the share of splits in which the threshold's escape rate exceeds alpha, which
  must not exceed 5 %. The escape rate counted is that among all recorded defects, from which the calibration half is a
  random sample: a rate of the test half alone would add the chance of that half to it.

    python -m benchmarks.escape_bound run/scores.test.csv --json
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from calibration.cli_support import emit, example, json_option, progress
from calibration.conformal import (
    EscapeBound,
    confident_escape_bound,
    defect_scores,
    defects_needed,
    defects_needed_confidently,
    escape_bound,
)
from calibration.crossfit import group_index
from calibration.errors import InputError
from calibration.metrics import softmax
from calibration.report import defect_probability
from calibration.scores import Scores

ALPHAS = (0.01, 0.02, 0.05, 0.10, 0.20)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class InMean:
    """Conformal risk control over the splits. All shares in 0..1.

    Attributes:
        escape: mean share of test defects that pass. error: its standard error over the splits.
        exact: what the mean is over all splits where no scores tie; ties only lower it.
        low, high: 5 % and 95 % quantiles of the share over the splits.
        overkill: mean share of all good parts that the threshold rejects; NaN without good parts.
        holds: whether the mean is within alpha, but for two standard errors.
    """

    escape: float
    error: float
    exact: float
    low: float
    high: float
    overkill: float
    holds: bool


@dataclass(frozen=True)
class Confident:
    """Clopper-Pearson over the splits.

    Attributes:
        failures: share of splits whose threshold lets more than alpha of all recorded defects pass.
        overkill: as of InMean.
        holds: whether failures are within 5 %.
    """

    failures: float
    overkill: float
    holds: bool


@dataclass(frozen=True)
class Result:
    """One file at one alpha.

    Attributes:
        file: the scores. alpha: the bound. defects: defective parts in the file; groups count once.
        calibration: how many of them each split calibrates on; the rest is tested on.
        needed, needed_confidently: how many each bound asks for.
        in_mean, confident: None where there are too few, so that the bound is refused.
    """

    file: Path
    alpha: float
    defects: int
    calibration: int
    needed: int
    needed_confidently: int
    in_mean: InMean | None
    confident: Confident | None


def measure(file: Path, scores: Scores, alpha: float, splits: int, seed: int = 0) -> Result:
    """Split the defects of `scores` many times and count what each bound lets through."""
    p = defect_probability(softmax(scores.logits), scores.ok_index)
    defects = defect_scores(p, scores.is_defect, group_index(scores))
    if len(defects) < 2:
        raise InputError(f"{file}: {len(defects)} defects; at least 2 are needed to split them")
    half = len(defects) // 2
    needed, confidently = defects_needed(alpha), defects_needed_confidently(alpha)
    good, rng = np.sort(p[~scores.is_defect]), np.random.default_rng(seed)
    orders = [rng.permutation(len(defects)) for _ in range(splits)]
    halves = [(defects[order[:half]], defects[order[half:]]) for order in orders]
    in_mean = _in_mean(halves, good, alpha) if half >= needed else None
    confident = _confident(halves, defects, good, alpha) if half >= confidently else None
    return Result(file, alpha, len(defects), half, needed, confidently, in_mean, confident)


def _in_mean(halves: list[tuple[Floats, Floats]], good: Floats, alpha: float) -> InMean:
    thresholds = _thresholds(escape_bound, halves, alpha)
    shares = np.array([(test <= t).mean() for (_, test), t in zip(halves, thresholds, strict=True)])
    error = float(shares.std(ddof=1) / math.sqrt(len(shares))) if len(shares) > 1 else 0.0
    n = len(halves[0][0])
    low, high = np.quantile(shares, [0.05, 0.95])
    return InMean(
        escape=float(shares.mean()),
        error=error,
        exact=math.floor((n + 1) * alpha + 1e-9) / (n + 1),
        low=float(low),
        high=float(high),
        overkill=_overkill(good, thresholds),
        holds=bool(shares.mean() <= alpha + 2 * error),
    )


def _confident(halves: list[tuple[Floats, Floats]], defects: Floats, good: Floats, alpha: float) -> Confident:
    thresholds = _thresholds(confident_escape_bound, halves, alpha)
    failures = float(np.mean([(defects <= t).mean() > alpha for t in thresholds]))
    return Confident(failures, _overkill(good, thresholds), failures <= 0.05)


def _thresholds(bound: Callable[..., EscapeBound], halves: list[tuple[Floats, Floats]], alpha: float) -> Floats:
    """The product's own bound on each calibration half."""
    return np.array([bound(half, np.ones(len(half), bool), alpha).threshold for half, _ in halves])


def _overkill(good: Floats, thresholds: Floats) -> float:
    if len(good) == 0:
        return float("nan")
    return float(1 - np.searchsorted(good, thresholds, side="right").mean() / len(good))


def table_of(results: list[Result]) -> Table:
    """One line per file and alpha."""
    table = Table(title="Escape bounds over random halves", title_justify="left")
    titles = ("scores", "defects", "alpha", "escape in mean", "90 % of splits", "overkill", "CP95 fails", "overkill")
    for column in titles:
        table.add_column(column, justify="left" if column == "scores" else "right")
    for r in results:
        row = [str(r.file), f"{r.calibration} of {r.defects}", f"{r.alpha:.4g}"]
        if r.in_mean is None:
            row += [f"refused: needs {r.needed}", "-", "-"]
        else:
            m = r.in_mean
            mean = f"{m.escape:.2%} ± {m.error:.2%} (exact {m.exact:.2%})"
            row += [mean, f"{m.low:.1%} to {m.high:.1%}", f"{m.overkill:.1%}"]
        if r.confident is None:
            row += [f"refused: needs {r.needed_confidently}", "-"]
        else:
            row += [f"{r.confident.failures:.1%}", f"{r.confident.overkill:.1%}"]
        table.add_row(*row)
    return table


@click.command(epilog=example("python -m benchmarks.escape_bound run/scores.test.csv --alpha 0.05"))
@click.argument("scores", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--alpha", "alphas", multiple=True, type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="A bound to try; may be given several times. Default: 0.01, 0.02, 0.05, 0.1 and 0.2.",
)  # fmt: skip
@click.option("--splits", default=1000, show_default=True, type=click.IntRange(2))
@json_option
def main(scores: tuple[Path, ...], alphas: tuple[float, ...], splits: int, as_json: bool) -> None:
    """Escape bounds of recorded SCORES over random calibration/test splits; exit code 1 where one does not hold."""
    results = []
    try:
        work = [(path, Scores.read(path), alpha) for path in scores for alpha in alphas or ALPHAS]
        with progress("splits") as report:
            for done, (path, recorded, alpha) in enumerate(work, start=1):
                results.append(measure(path, recorded, alpha, splits))
                report(done, len(work))
    except InputError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
    emit(results, as_json, table_of(results))
    if any(found is not None and not found.holds for r in results for found in (r.in_mean, r.confident)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
