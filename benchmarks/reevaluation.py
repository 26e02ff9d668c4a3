"""Do the intervals of `appliance reevaluate` hold the truth? Simulated lines, a person who judges a random part.

A line of each setting is simulated many times: so many parts of which so many are defects, a model that lets some
escape and rejects some good parts, half of both rejects as UNSURE. A person who is always right judges a random share
of each decision. Counted are: how often the 95 % intervals hold the line's own escape rate and overkill, how wide they
are, and how often an alarm is raised that the model is worse than stated, when it is exactly as stated and when it lets
three times as many escape.

    python -m benchmarks.reevaluation --write
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import click
import numpy as np

from benchmarks.page import PAGE, write_section
from calibration.cli_support import emit, example, json_option, progress
from calibration.stratified import DRAWS, LineRates, Stratum, is_beyond, line_rates

BEGIN, END = "<!-- reevaluation:begin -->", "<!-- reevaluation:end -->"
FALSE_ALARM = 0.001
WORSE = 3


@dataclass(frozen=True)
class Setting:
    """A line, and how much of it a person judges.

    Attributes:
        parts: in all. defects: share of them. escape, overkill: of the model.
        passed, rejected: shares of the parts that a person judges.
    """

    parts: int
    defects: float
    escape: float
    overkill: float
    passed: float
    rejected: float


SETTINGS = (
    Setting(20_000, 0.01, 0.1, 0.05, 0.01, 0.1),
    Setting(20_000, 0.01, 0.1, 0.05, 0.05, 1.0),
    Setting(200_000, 0.01, 0.1, 0.05, 0.005, 0.05),
    Setting(200_000, 0.01, 0.1, 0.05, 0.02, 0.1),
    Setting(200_000, 0.05, 0.02, 0.1, 0.02, 0.1),
    Setting(2_000_000, 0.01, 0.02, 0.02, 0.005, 0.02),
)


@dataclass(frozen=True)
class Found:
    """Over the simulated lines, shares in 0..1.

    Attributes:
        judged: parts that the person judges, mean.
        escape_held, overkill_held: lines whose own rate lies within the interval.
        escape_width, overkill_width: of the interval, median.
        false_alarms: lines with an alarm though the model is as stated. alarms: where WORSE times as many escape.
    """

    judged: float
    escape_held: float
    overkill_held: float
    escape_width: float
    overkill_width: float
    false_alarms: float
    alarms: float


def simulate(setting: Setting, escape: float, rng: np.random.Generator) -> tuple[list[Stratum], float, float]:
    """One line: its strata (passed, UNSURE, DEFECT), its own escape rate and its own overkill."""
    defects = int(rng.binomial(setting.parts, setting.defects))
    bad = rng.multinomial(defects, [escape, (1 - escape) / 2, (1 - escape) / 2])
    fine = rng.multinomial(setting.parts - defects, [1 - setting.overkill, setting.overkill / 2, setting.overkill / 2])
    strata = []
    for d, g, share in zip(bad, fine, (setting.passed, setting.rejected, setting.rejected), strict=True):
        judged = round(share * (d + g))
        strata.append(Stratum(int(d + g), 0.0, judged, int(rng.hypergeometric(d, g, judged)) if judged else 0))
    return strata, float(bad[0] / max(1, defects)), float(fine[1:].sum() / fine.sum())


def measure(
    setting: Setting, lines: int, report: Callable[[], None] = lambda: None, draws: int = DRAWS, seed: int = 0
) -> Found:
    """Simulate so many lines of a setting, and as many of a model that is worse."""
    rng = np.random.default_rng(seed)
    rows, alarms = [], 0
    for _ in range(lines):
        strata, escape, overkill = simulate(setting, setting.escape, rng)
        rates = line_rates(strata[0], strata[1:], draws=draws)
        held = [r.low <= x <= r.high for r, x in ((rates.escape, escape), (rates.overkill, overkill))]
        widths = [r.high - r.low for r in (rates.escape, rates.overkill)]
        rows.append((sum(s.judged for s in strata), *held, *widths, _is_alarm(rates, setting)))
        worse, _, _ = simulate(setting, WORSE * setting.escape, rng)
        alarms += _is_alarm(line_rates(worse[0], worse[1:], draws=draws), setting)
        report()
    table = np.array(rows, np.float64)
    mean, median = table.mean(0), np.median(table, axis=0)
    return Found(*mean[:3].tolist(), *median[3:5].tolist(), float(mean[5]), alarms / lines)


def _is_alarm(rates: LineRates, setting: Setting) -> bool:
    return is_beyond(rates.escape, rates.escape_draws, setting.escape, FALSE_ALARM)


def section(results: list[tuple[Setting, Found]], lines: int) -> str:
    """The table of docs/results.md."""
    head = (
        "parts",
        "defects",
        "escape rate",
        "overkill",
        "judged by people",
        "escape rate held",
        "width",
        "overkill held",
        "width",
        "false alarms",
        f"alarms at {WORSE}x",
    )
    table = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for line, found in results:
        cells = (
            f"{line.parts:,}",
            f"{line.defects:.0%}",
            f"{line.escape:.0%}",
            f"{line.overkill:.0%}",
            f"{found.judged:,.0f}",
            f"{found.escape_held:.1%}",
            f"{100 * found.escape_width:.1f} points",
            f"{found.overkill_held:.1%}",
            f"{100 * found.overkill_width:.2f} points",
            f"{found.false_alarms:.2%}",
            f"{found.alarms:.0%}",
        )
        table.append(f"| {' | '.join(cells)} |")
    return "\n".join([f"{lines:,} simulated lines a row; 95 % intervals, median width.", "", *table])


@click.command(epilog=example("python -m benchmarks.reevaluation --write"))
@click.option("--lines", type=click.IntRange(min=10), default=2000, show_default=True, help="Lines a setting.")
@click.option("--write", is_flag=True, help=f"Put the table into {PAGE}.")
@json_option
def main(lines: int, write: bool, as_json: bool) -> None:
    """How often the intervals of `appliance reevaluate` hold the truth, and how often its alarm is right."""
    results = []
    with progress("simulated lines") as report:
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            report(done, lines * len(SETTINGS))

        for setting in SETTINGS:
            results.append((setting, measure(setting, lines, step)))
    text = section(results, lines)
    if write:
        write_section(BEGIN, text, END)
    emit([{**asdict(setting), **asdict(found)} for setting, found in results], as_json, text)


if __name__ == "__main__":
    main()
