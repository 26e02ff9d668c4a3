"""What input size and pooling are worth on thin defects: `python -m benchmarks.resolution`.

For each seed, frames of 640x480 are generated (benchmarks/surfaces.py), half of them with a scratch of 1 to 3 pixels in
a box of 4 % of the frame, and split by texture. The same frozen backbone and fit of the head learn from the same
training frames at 224x224, the usual input of ImageNet's networks, and at the size that `trainer train` chooses; each
with the mean of the last map and with mean and maximum of two depths. A finished training is read back.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.cost import images_per_cpu_second
from benchmarks.surfaces import Surfaces, texture_files, write_surfaces
from calibration.cli_support import emit
from calibration.errors import InputError
from calibration.metrics import bootstrap, softmax
from calibration.scores import Scores
from calibration.values import Interval
from trainer.data.importers import Options, import_folder
from trainer.data.manifest import read_dataset
from trainer.models.pooling import Pooling
from trainer.recipes import FROZEN
from trainer.run import read_settings
from trainer.train import train

OVERKILL = 0.10
FRAME = (480, 640)
FRACTIONS = (0.5, 0.15, 0.35)


@dataclass(frozen=True)
class Way:
    """One way to look at a frame: input (height, width), None for the size chosen from the frames; and the pooling."""

    size: tuple[int, int] | None
    pooling: Pooling


WAYS = tuple(Way(size, pooling) for size in ((224, 224), None) for pooling in ("mean", "mean+max"))


@dataclass(frozen=True)
class Row:
    """One way over all seeds.

    Attributes:
        input: WIDTHxHEIGHT. escape: share of defects passed at OVERKILL on the test frames, its interval over textures.
        fewer: what the way loses less than the first one, paired, in shares.
        images_per_cpu_second: see benchmarks.cost.
    """

    input: str
    pooling: str
    escape: Interval
    fewer: Interval
    images_per_cpu_second: float


def run_folder(build: Path, seed: int, way: Way) -> Path:
    """Where a training lies."""
    return build / f"run-{seed}-{WAYS.index(way)}"


def scored(build: Path, seed: int, frames: int, way: Way) -> tuple[Scores, str]:
    """Test scores of one training and the input that it used, WIDTHxHEIGHT; what was done before is read back."""
    data, run = build / f"data-{seed}", run_folder(build, seed, way)
    if not (data / "dataset.json").exists():
        images = build / f"images-{seed}"
        wanted = Surfaces((frames // 2, 0, frames // 2), share=0.04, size=FRAME, seed=seed)
        write_surfaces(images, wanted, texture_files())
        import_folder(images, data, Options(seed, FRACTIONS), ok="ok", name="thin scratches", licence="generated")
    if not (run / "scores.test.csv").exists():
        print(f"seed {seed}: {way}", file=sys.stderr, flush=True)
        train(read_dataset(data), run, replace(FROZEN, flips="none", pooling=way.pooling), seed, way.size)
    spec = read_settings(run).spec
    return Scores.read(run / "scores.test.csv"), f"{spec.width}x{spec.height}"


def passed(scores: Scores) -> NDArray[np.float64]:
    """For each test defect 1.0 where it passes at the threshold that rejects OVERKILL of the good parts, else 0.0."""
    defect = 1 - softmax(scores.logits)[:, scores.ok_index]
    good = np.sort(defect[~scores.is_defect])
    threshold = good[int(np.ceil((1 - OVERKILL) * len(good))) - 1]
    return np.asarray(defect[scores.is_defect] <= threshold, np.float64)


def compared(build: Path, seeds: Sequence[int], frames: int) -> list[Row]:
    """All ways, the first one being what the others are held against."""
    found = [[scored(build, seed, frames, way) for seed in seeds] for way in WAYS]
    groups = [
        f"{seed}/{scores.groups[i]}"
        for seed, (scores, _) in zip(seeds, found[0], strict=True)
        for i in np.flatnonzero(scores.is_defect)
    ]
    lost = [np.concatenate([passed(scores) for scores, _ in each]) for each in found]

    def mean(values: NDArray[np.float64]) -> Interval:
        return bootstrap(lambda rows: float(values[rows].mean()), len(values), groups)

    return [
        Row(
            each[0][1],
            way.pooling,
            mean(mine),
            mean(lost[0] - mine),
            images_per_cpu_second(run_folder(build, seeds[0], way)),
        )
        for way, each, mine in zip(WAYS, found, lost, strict=True)
    ]


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| input | pooling | escape at 10 % overkill | fewer than the first, points | images per CPU-second |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        fewer = "-" if row is rows[0] else _points(row.fewer)
        lines.append(f"| {row.input} | {row.pooling} | {row.escape:.0%} | {fewer} | {row.images_per_cpu_second:.0f} |")
    return "\n".join(lines)


def _points(interval: Interval) -> str:
    return f"{100 * interval.value:.0f} ({100 * interval.low:.0f} to {100 * interval.high:.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=Path("build/resolution"), help="folder for data and results")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=240, help="frames of a seed; half of them good")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    build = options.build / str(options.frames)
    build.mkdir(parents=True, exist_ok=True)
    try:
        rows = compared(build, range(options.seeds), options.frames)
    except InputError as error:
        sys.exit(f"error: {error}")
    emit([asdict(row) for row in rows], options.json, table(rows))


if __name__ == "__main__":
    main()
