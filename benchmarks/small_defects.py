"""Does attention cropping find small defects in large frames? `python -m benchmarks.small_defects`.

For each seed, frames of 1280x1024 are generated (benchmarks/surfaces.py), split by texture so that no surface is in two
folds, and the same training frames teach the same backbone in each way: on the down-scaled frame, on the frame at half
size, in tiles of the whole frame, and with attention cropping. Heads, penalties and flips
are equal. Recall is the share of test defects found; at 10 % false alarms the threshold is read off the test fold's
good parts, the same way for all. A finished seed is read back, so seeds can be run one by one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.cost import images_per_cpu_second
from benchmarks.surfaces import CLASSES, HEIGHT, WIDTH, Surfaces, texture_files, write_surfaces
from calibration.errors import InputError
from calibration.metrics import bootstrap, softmax
from calibration.scores import Scores
from calibration.values import Interval
from trainer.data.importers import Options, import_folder
from trainer.data.manifest import read_dataset
from trainer.recipes import ATTENTION_CROP, FROZEN, TILES, Recipe
from trainer.train import train

FALSE_ALARMS = 0.10
FRACTIONS = (0.5, 0.15, 0.35)


@dataclass(frozen=True)
class Way:
    """One way to look at a frame: a recipe and the input size, None for the one that the recipe chooses."""

    title: str
    recipe: Recipe
    size: tuple[int, int] | None


WAYS = {
    "small": Way("whole frame at 320x256", FROZEN, (HEIGHT // 4, WIDTH // 4)),
    "half": Way("whole frame at 640x512", FROZEN, (HEIGHT // 2, WIDTH // 2)),
    "tiles": Way("tiles of 1280x1024", TILES, None),
    "crops": Way("attention cropping from 1280x1024", ATTENTION_CROP, None),
}


@dataclass(frozen=True)
class Result:
    """One way on one seed's test fold, and what it costs.

    Attributes:
        groups: of the defects, then of the good parts. found, named: of each defect, whether its score is above the
            threshold of FALSE_ALARMS, and whether any defect class is the likeliest. false_alarms: share of good parts
            for which one is.
    """

    seed: int
    way: str
    groups: list[str]
    found: list[bool]
    named: list[bool]
    false_alarms: float


def one_seed(build: Path, seed: int, wanted: Surfaces, ways: Sequence[str]) -> list[Result]:
    """Generate, train and score one seed; what was done before is read back."""
    data = build / f"data-{seed}"
    results = []
    for way in ways:
        done = build / f"{way}-{seed}.json"
        if not done.exists():
            if not data.exists():
                images = build / f"images-{seed}"
                write_surfaces(images, replace(wanted, seed=seed), texture_files())
                import_folder(images, data, Options(seed, FRACTIONS), ok="ok", name="surfaces", licence="generated")
            started = time.process_time()
            run = run_folder(build, way, seed)
            train(read_dataset(data), run, replace(WAYS[way].recipe, flips="none"), seed, WAYS[way].size)
            print(f"seed {seed}, {way}: {time.process_time() - started:.0f} CPU seconds", file=sys.stderr, flush=True)
            done.write_text(json.dumps(asdict(judged(Scores.read(run / "scores.test.csv"), seed, way))))
        results.append(Result(**json.loads(done.read_text())))
    return results


def run_folder(build: Path, way: str, seed: int) -> Path:
    """Where a training lies."""
    return build / f"run-{way}-{seed}"


def judged(scores: Scores, seed: int, way: str) -> Result:
    """Which test defects are found."""
    p = softmax(scores.logits)
    defect, bad = 1 - p[:, scores.ok_index], scores.is_defect
    good = np.sort(defect[~bad])
    threshold = good[int(np.ceil((1 - FALSE_ALARMS) * len(good))) - 1]
    named = p.argmax(1) != scores.ok_index
    return Result(
        seed=seed,
        way=way,
        groups=[f"{seed}/{scores.groups[i]}" for i in np.flatnonzero(bad)],
        found=(defect[bad] > threshold).tolist(),
        named=named[bad].tolist(),
        false_alarms=float(named[~bad].mean()),
    )


def summary(
    results: Sequence[Result], ways: Sequence[str], speeds: Mapping[str, float]
) -> dict[str, dict[str, object]]:
    """Per way: recall with its interval, false alarms, images per CPU-second where they were measured; and the paired
    gain of cropping over each other way.
    """
    rows: dict[str, dict[str, object]] = {}
    columns = {way: _joined([r for r in results if r.way == way]) for way in ways}
    for way in ways:
        groups, found, named = columns[way]
        mine = [r for r in results if r.way == way]
        rows[way] = {
            "title": WAYS[way].title,
            "defects": len(found),
            "recall": _interval(found, groups),
            "recall_of_likeliest_class": _interval(named, groups),
            "false_alarms_of_likeliest_class": float(np.mean([r.false_alarms for r in mine])),
            "images_per_cpu_second": speeds.get(way),
        }
        if way != "crops" and "crops" in columns:
            rows[way]["gain_of_crops"] = _interval(columns["crops"][1] - found, groups)
    return rows


def _joined(results: Sequence[Result]) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    found, named = (np.array([x for r in results for x in getattr(r, name)], float) for name in ("found", "named"))
    return [group for r in results for group in r.groups], found, named


def _interval(values: NDArray[np.float64], groups: Sequence[str]) -> Interval:
    return bootstrap(lambda rows: float(values[rows].mean()), len(values), groups)


def table(rows: dict[str, dict[str, object]]) -> str:
    """The summary as Markdown."""
    lines = [
        "| look | recall at 10 % false alarms | cropping finds more by | recall (false alarms) of the likeliest class "
        "| images per CPU-second |",
        "|---|---|---|---|---|",
    ]
    for row in rows.values():
        gain, speed = row.get("gain_of_crops"), row["images_per_cpu_second"]
        cells = [
            str(row["title"]),
            _percent(row["recall"]),
            _percent(gain) if gain else "-",
            f"{_percent(row['recall_of_likeliest_class'])} ({row['false_alarms_of_likeliest_class']:.0%})",
            f"{speed:.1f}" if isinstance(speed, float) else "-",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(interval: object) -> str:
    assert isinstance(interval, Interval)
    return f"{interval.value:.0%} ({interval.low:.0%} to {interval.high:.0%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=Path("build/small-defects"), help="folder for data and results")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--frames", type=int, default=240, help="frames of a seed; half of them good")
    parser.add_argument("--share", type=float, default=0.01, help="area of a defect's box as a share of the frame")
    parser.add_argument(
        "--contrast", type=float, nargs=2, default=(0.15, 0.40), help="depth of defects, least and most"
    )
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--cost", action="store_true", help="quantise and time the models too (some minutes more)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    quarter = options.frames // 4
    wanted = Surfaces((2 * quarter, quarter, quarter), options.share, tuple(options.contrast))
    build = options.build / f"{quarter}-{options.share:g}-{options.contrast[0]:g}-{options.contrast[1]:g}"
    build.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    try:
        for seed in range(options.first, options.first + options.seeds):
            results += one_seed(build, seed, wanted, options.ways)
        timed = options.ways if options.cost else []
        speeds = {way: images_per_cpu_second(run_folder(build, way, options.first)) for way in timed}
    except InputError as error:
        sys.exit(f"error: {error}")
    rows = summary(results, options.ways, speeds)
    whole = {"frames": 4 * quarter, "share": options.share, "classes": CLASSES, "seeds": options.seeds, "ways": rows}
    print(json.dumps(whole, indent=1, default=asdict) if options.json else table(rows))


if __name__ == "__main__":
    main()
