"""The daemon's speed against a bare loop of the same engine: what the safety around it costs.

One interleaved run: in every round each engine is measured four times, one after the other, so that whatever else the
machine does hits all alike: a bare loop, as many bare loops side by side as there are cores (at most two), the daemon
as fast as it judges, and the daemon at half that rate. No thread spins. CPU seconds are those of all processes,
start-up excluded. Ratios are taken round by round; median and quartiles are reported. A bare loop alone has caches and
memory to itself; loops side by side share them as the daemon's lanes do: `cpu_ratio_side_by_side` says what the daemon
adds, `cpu_ratio` what it costs with the sharing.

    python benchmarks/throughput.py --bundle parts.lgb --frames raw --json

`--frames raw` measures on undecoded camera frames, 1280x1024 by default: the bundle's model is used with a
preprocessing for that size. `--frames DIR` replays a folder of images with the bundle as it is.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from appliance.engines.protocol import missing
from benchmarks.lines import (
    RAW_FRAMES,
    Measure,
    Spread,
    make_station,
    measure_bare,
    measure_daemon,
    raw_bundle,
    raw_frames,
)
from calibration.cli_support import emit, progress
from calibration.errors import InputError
from deploy.bundle import open_bundle

ENGINES = ("onnxruntime", "openvino")
TARGETS = {
    "cpu_ratio": (0.95, "least"),
    "wall_ratio": (0.95, "least"),
    "p99_batches": (3.0, "most"),
    "memory_mib": (350.0, "most"),
    "openvino_ratio": (1.2, "least"),
}
"""What every engine's daemon has to reach, in the median; openvino_ratio: to ONNX Runtime's daemon, per CPU-second."""


@dataclass
class Runs:
    """One engine's measurements, one of each kind a round."""

    bare: list[Measure] = field(default_factory=list)
    side_by_side: list[Measure] = field(default_factory=list)
    daemon: list[Measure] = field(default_factory=list)
    half: list[Measure] = field(default_factory=list)

    def figures(self) -> dict[str, Spread]:
        """Spreads of what the targets speak of, and of the rates that they come from."""
        rounds = list(zip(self.bare, self.side_by_side, self.daemon, self.half, strict=True))
        return {
            "cpu_ratio": Spread.of([d.per_cpu_second / b.per_cpu_second for b, _, d, _ in rounds]),
            "cpu_ratio_side_by_side": Spread.of([d.per_cpu_second / s.per_cpu_second for _, s, d, _ in rounds]),
            "wall_ratio": Spread.of([d.per_second / s.per_second for _, s, d, _ in rounds]),
            "p99_batches": Spread.of([h.p99_ms / (1000 * d.batch / b.per_second) for b, _, d, h in rounds]),
            "memory_mib": Spread.of([max(d.memory_mib, h.memory_mib) for _, _, d, h in rounds]),
            "bare_images_per_cpu_second": Spread.of([b.per_cpu_second for b, _, _, _ in rounds]),
            "daemon_images_per_cpu_second": Spread.of([d.per_cpu_second for _, _, d, _ in rounds]),
            "bare_images_per_second": Spread.of([s.per_second for _, s, _, _ in rounds]),
            "daemon_images_per_second": Spread.of([d.per_second for _, _, d, _ in rounds]),
            "not_inspected_at_half_load": Spread.of([h.not_inspected for _, _, _, h in rounds]),
            "p99_ms": Spread.of([h.p99_ms for _, _, _, h in rounds]),
            "batch": Spread.of([d.batch for _, _, d, _ in rounds]),
        }


class Bench:
    """One bundle, one set of frames, and a directory for the stations."""

    def __init__(self, directory: Path, bundle: Path, frames: str, size: tuple[int, int], batch: int, seconds: float):
        """`size`: height and width of raw frames. Raises InputError."""
        self._directory, self._batch, self._seconds = directory, batch, seconds
        self._processes = min(2, os.cpu_count() or 1)
        self._bundle, self._source, self._path = bundle.resolve(), "folder", Path(frames).resolve()
        if frames == "raw":
            raw_bundle(bundle, directory / "raw.lgb", *size)
            self._bundle, self._source, self._path = directory / "raw.lgb", "raw", directory / "frames.npy"
            channels = open_bundle(self._bundle).manifest.preprocess.channels
            np.save(self._path, raw_frames(RAW_FRAMES, *size, channels), allow_pickle=False)

    def station(self, engine: str, fps: float = 0.0) -> Path:
        """A station.toml for one measurement, with a database of its own."""
        place = Path(tempfile.mkdtemp(prefix=f"{engine}-", dir=self._directory))
        return make_station(place, self._bundle, self._source, self._path, engine, self._batch, fps)

    def round(self, engine: str, runs: Runs, backwards: bool) -> None:
        """Measure one engine once; what is compared changes places from round to round."""
        steps = [
            lambda: runs.bare.append(measure_bare(self.station(engine), self._seconds)),
            lambda: runs.daemon.append(measure_daemon(self.station(engine), self._seconds)),
            lambda: runs.side_by_side.append(measure_bare(self.station(engine), self._seconds, self._processes)),
        ]
        for step in reversed(steps) if backwards else steps:
            step()
        half = self.station(engine, fps=min(10_000.0, round(runs.daemon[-1].per_second / 2, 1)))
        runs.half.append(measure_daemon(half, self._seconds, latency=True))


def compare(
    bundle: Path, frames: str, engines: list[str], batch: int, rounds: int, seconds: float, size: tuple[int, int]
) -> dict[str, Any]:
    """Measure all engines in turns. Returns every round's figures, their spreads, and which targets are missed."""
    runs = {engine: Runs() for engine in engines}
    with tempfile.TemporaryDirectory(prefix="lineguard-bench-") as name, progress("rounds") as report:
        bench = Bench(Path(name), bundle, frames, size, batch, seconds)
        for index in range(rounds):
            for engine in engines if index % 2 == 0 else reversed(engines):
                bench.round(engine, runs[engine], index % 2 == 1)
            report(index + 1, rounds)
    figures = {engine: each.figures() for engine, each in runs.items()}
    for other in [engine for engine in engines if engine != ENGINES[0] and ENGINES[0] in engines]:
        pairs = list(zip(runs[other].daemon, runs[ENGINES[0]].daemon, strict=True))
        figures[other]["openvino_ratio"] = Spread.of([a.per_cpu_second / b.per_cpu_second for a, b in pairs])
        bare = list(zip(runs[other].bare, runs[ENGINES[0]].bare, strict=True))
        figures[other]["openvino_ratio_bare"] = Spread.of([a.per_cpu_second / b.per_cpu_second for a, b in bare])
    return {
        "bundle": bundle.name,
        "model_sha256": open_bundle(bundle).variant("cpu").rule.model_sha256,
        "frames": f"raw {size[1]}x{size[0]}" if frames == "raw" else "folder",
        "rounds": rounds,
        "seconds_per_measurement": seconds,
        "cores": os.cpu_count(),
        "engines": {engine: {key: asdict(value) for key, value in found.items()} for engine, found in figures.items()},
        "missed": [f"{engine} {name}" for engine, found in figures.items() for name in missed(found)],
        "measurements": {engine: asdict(each) for engine, each in runs.items()},
    }


def missed(figures: dict[str, Spread]) -> list[str]:
    """Names of the targets whose median is on the wrong side."""
    wrong = []
    for name, (limit, kind) in TARGETS.items():
        if name in figures and (figures[name].median < limit if kind == "least" else figures[name].median > limit):
            wrong.append(name)
    return wrong


def table(result: dict[str, Any]) -> Table:
    """One line per figure, one column per engine."""
    shown = Table(title=f"Daemon against bare loops, {result['frames']}", title_justify="left")
    shown.add_column("median [quartiles]")
    shown.add_column("target")
    engines = result["engines"]
    for engine in engines:
        shown.add_column(engine)
    for name in dict.fromkeys(name for found in engines.values() for name in found):
        limit, kind = TARGETS.get(name, (0.0, ""))
        cells = [str(Spread(**found[name])) if name in found else "" for found in engines.values()]
        shown.add_row(name, f"at {kind} {limit:g}" if kind else "", *cells)
    shown.caption = "missed: " + (", ".join(result["missed"]) or "none")
    return shown


@click.command(epilog="\b\nExample:\n  python benchmarks/throughput.py --bundle parts.lgb --frames raw --json")
@click.option(
    "--bundle",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="The .lgb file to judge with.",
)
@click.option(
    "--frames", default="raw", show_default=True, help="'raw', or a directory of images of the bundle's size."
)
@click.option("--size", default="1280x1024", show_default=True, help="WIDTHxHEIGHT of raw frames.")
@click.option("--engine", "engines", type=click.Choice(ENGINES), multiple=True, help="Default: all that are installed.")
@click.option("--batch", default=8, show_default=True, type=click.IntRange(1, 256), help="At most so many parts.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 1000))
@click.option("--seconds", default=5.0, show_default=True, type=click.FloatRange(1.0, 600.0), help="Each measurement.")
@click.option("--check", is_flag=True, help="Exit code 1 when a target is missed.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def main(
    bundle: Path,
    frames: str,
    size: str,
    engines: tuple[str, ...],
    batch: int,
    rounds: int,
    seconds: float,
    check: bool,
    as_json: bool,
) -> None:
    """Measure the daemon against bare loops of the same model, with every engine that is installed."""
    chosen = list(dict.fromkeys(engines)) or [engine for engine in ENGINES if not missing(engine)]
    width, _, height = size.partition("x")
    try:
        result = compare(bundle, frames, chosen, batch, rounds, seconds, (int(height), int(width)))
    except (InputError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        emit(result, True)
    else:
        Console().print(table(result))
    sys.exit(1 if check and result["missed"] else 0)


if __name__ == "__main__":
    main()
