"""How much the label tools are worth, on simulated annotators and on scikit-learn's digits.

`python -m benchmarks.labels`: about two minutes on one core.
"""

from __future__ import annotations

import dataclasses

import click
import numpy as np

from benchmarks.label_trials import (
    Digits,
    Scene,
    consensus_errors,
    even,
    habitual,
    label_errors,
    labels_needed,
    swapping,
)
from calibration.cli_support import emit, example, json_option, progress

ITEMS = 1344
TILES = tuple(np.array([115, 85, 57, 32, 952, 103]) / ITEMS)
"""Shares of magnetic tile's six classes, in alphabetical order: blowhole, break, crack, fray, free, uneven."""

CRACK, FRAY = 2, 3
SIX = (1 / 6,) * 6

SCENES = (
    Scene("long tail, three at 10 % error, evenly spread", TILES, [even(6, 0.1)] * 3, FRAY),
    Scene("six equal classes, three at 10 %, evenly spread", SIX, [even(6, 0.1)] * 3, FRAY),
    Scene("six equal classes, three at 10 %, each with a habit", SIX, [habitual(6, 0.1, k) for k in (1, 2, 3)], FRAY),
    Scene(
        "long tail, three at 10 %, one of them swaps crack and fray",
        TILES,
        [even(6, 0.1), even(6, 0.1), swapping(even(6, 0.1), CRACK, FRAY)],
        FRAY,
    ),
    Scene(
        "long tail, three at 5 %, one of them swaps crack and fray",
        TILES,
        [even(6, 0.05), even(6, 0.05), swapping(even(6, 0.05), CRACK, FRAY)],
        FRAY,
    ),
)


@click.command(epilog=example("python -m benchmarks.labels --json"))
@click.option("--seeds", type=click.IntRange(2, 1000), default=20, show_default=True, help="Trials of each kind.")
@json_option
def main(seeds: int, as_json: bool) -> None:
    """Run all trials and print a Markdown table of each kind."""
    with progress("trials") as report:
        steps = seeds * (len(SCENES) + 2)
        digits = Digits.load()
        consensus = {}
        for done, scene in enumerate(SCENES):
            trials = []
            for seed in range(seeds):
                trials.append(consensus_errors(scene, ITEMS, seed))
                report(done * seeds + seed + 1, steps)
            consensus[scene.name] = np.array(trials)
        errors = []
        for seed in range(seeds):
            errors.append(label_errors(digits, seed))
            report(len(SCENES) * seeds + seed + 1, steps)
        needed = []
        for seed in range(seeds):
            needed.append((labels_needed(digits, "margin", seed), labels_needed(digits, None, seed)))
            report((len(SCENES) + 1) * seeds + seed + 1, steps)
    figures = {
        "seeds": seeds,
        "consensus": {name: trials.mean(axis=0) for name, trials in consensus.items()},
        "label_errors": [dataclasses.asdict(trial) for trial in errors],
        "labels_needed": needed,
    }
    tables = [_consensus(consensus), _errors(errors), _needed(np.array(needed, dtype=np.float64))]
    emit(figures, as_json, "\n\n".join(tables))


def _mean(values: np.ndarray, scale: float = 100.0, unit: str = " %", digits: int = 1) -> str:
    """Mean with its 95 % interval over seeds (normal, since there are twenty or so)."""
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    low, high = values.mean() - half, values.mean() + half
    return f"{scale * values.mean():.{digits}f}{unit} [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"


def _consensus(trials: dict[str, np.ndarray]) -> str:
    head = "| annotators | vote | Dawid-Skene | best possible | rare class: vote | Dawid-Skene | best possible |"
    rows = [
        f"| {name} | " + " | ".join(_mean(found[:, part, k]) for part in (0, 1) for k in (0, 1, 2)) + " |"
        for name, found in trials.items()
    ]
    return "\n".join([head, "|---" * 7 + "|", *rows])


def _errors(trials: list) -> str:
    found = {name: np.array([getattr(trial, name) for trial in trials]) for name in vars(trials[0])}
    gain = found["cleaned"] - found["noisy"]
    rows = [f"| {name.replace('_', ' ')} | {_mean(values)} |" for name, values in found.items()]
    head = ["| confident learning, digits with 8 % flips | mean of the seeds |", "|---|---|"]
    return "\n".join([*head, *rows, f"| cleaned less noisy, paired (points) | {_mean(gain, unit='')} |"])


def _needed(pairs: np.ndarray) -> str:
    saved = 1 - pairs[:, 0].mean() / pairs[:, 1].mean()
    rows = [f"| {name} | {_mean(pairs[:, k], 1, '', 0)} |" for k, name in enumerate(("margin", "at random"))]
    rows.append(f"| saved, paired (labels) | {_mean(pairs[:, 1] - pairs[:, 0], 1, '', 0)} |")
    rows.append(f"| saved, of the mean | {saved:.0%} |")
    return "\n".join(["| labels until 93 % on digits | mean of the seeds |", "|---|---|", *rows])


if __name__ == "__main__":
    main()
