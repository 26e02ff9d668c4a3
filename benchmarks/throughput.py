"""The daemon's images per CPU-second against a bare loop of the same model: what the safety around it costs.

The bare loop is one process that reads, preprocesses, batches and infers, and does nothing else: no verdicts, no
database, no second process. Both run without thread spinning, in turns, several times; CPU seconds are those of all
their processes, start-up excluded.

    python benchmarks/throughput.py --bundle parts.lgb --frames raw --json

`--frames raw` measures on undecoded camera frames, 1280x1024 by default: the bundle's model is used with a
preprocessing for that size. `--frames DIR` replays a folder of images with the bundle as it is.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from appliance.client import fetch_status
from appliance.config import Station, load_station
from appliance.engines.protocol import load_engine
from appliance.history import open_readonly, rejects_by_reason, tally
from appliance.paths import StationPaths
from appliance.sources import open_source
from calibration.cli_support import emit, progress
from calibration.errors import InputError
from calibration.preprocess import PreprocessSpec
from deploy.bundle import open_bundle, write_bundle

WARM_UP_S = 1.5
RAW_FRAMES = 32


@dataclass(frozen=True)
class Measure:
    """One stretch of work: images, CPU seconds of all processes, seconds on the clock, memory of all processes."""

    images: int
    cpu_s: float
    wall_s: float
    memory_mib: float

    @property
    def per_cpu_second(self) -> float:
        """Images per CPU-second."""
        return self.images / self.cpu_s


def raw_bundle(source: Path, target: Path, height: int, width: int) -> None:
    """The bundle's model behind a preprocessing for frames of one raw size, with goldens of its own."""
    bundle = open_bundle(source)
    manifest = bundle.manifest
    spec = replace(manifest.preprocess, frame_heights=(height, height), frame_widths=(width, width))
    members = {name: data for name, data in bundle.members.items() if not name.startswith(("golden/", "manifest"))}
    engine = load_engine({"kind": "onnxruntime", "threads": 1}, bundle.model("cpu"))
    import cv2

    expected = []
    for index, frame in enumerate(raw_frames(4, height, width, spec.channels)):
        name = f"golden/{index:03d}.png"
        members[name] = cv2.imencode(".png", frame)[1].tobytes()
        logits = engine.infer(spec.apply(frame)[None])[0].tolist()
        expected.append({"frame": name, "label": manifest.ok_class, "logits": {"cpu": logits}})
    members["golden/expected.json"] = json.dumps(expected).encode()
    members.pop("model.trt.onnx", None)
    variant = manifest.variants["cpu"]
    variant = variant.model_copy(update={"rule": replace(variant.rule, preprocess_sha256=spec.sha256)})
    write_bundle(target, manifest.model_copy(update={"preprocess": spec, "variants": {"cpu": variant}}), members)


def raw_frames(n: int, height: int, width: int, channels: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """`n` different frames with sensor noise."""
    rng = np.random.default_rng(0)
    shape = (n, height, width) if channels == 1 else (n, height, width, channels)
    return rng.integers(96, 160, shape, dtype=np.uint8)


def make_station(directory: Path, bundle: Path, source: str, path: Path, batch: int) -> Station:
    """A station that replays as fast as it judges, for ever. No part is late and no drift is computed twice."""
    (directory / "station.toml").write_text(
        f'[station]\nname = "bench"\ndata = "station"\nbundle = {json.dumps(str(bundle))}\n'
        f'[camera.top]\nsource = "{source}"\npath = {json.dumps(str(path))}\nloop = true\n'
        f"[batch]\nsize = {batch}\n[timing]\ndeadline_ms = 60000\n",
        encoding="utf-8",
    )
    return load_station(directory / "station.toml")


def measure_daemon(station: Station, config: Path, seconds: float) -> Measure:
    """Run the daemon, and look at it between two moments of its steady work."""
    command = [sys.executable, "-m", "appliance.cli", "run", "--config", str(config)]
    daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=Path(__file__).resolve().parent.parent)
    try:
        deadline = time.monotonic() + 60
        while fetch_status(station).rate == 0.0:
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise InputError("the daemon did not start judging; see its message above")
            time.sleep(0.1)
        time.sleep(WARM_UP_S)
        tree = [psutil.Process(daemon.pid), *psutil.Process(daemon.pid).children(recursive=True)]
        with open_readonly(StationPaths.of(station.station.data).database) as reader:
            images_before, cpu_before, start = _at_commit(reader, tree)
            time.sleep(seconds)
            images_after, cpu_after, end = _at_commit(reader, tree)
            counts = rejects_by_reason(tally(reader))
        memory = sum(process.memory_full_info().pss for process in tree) / 2**20
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(10)
    if not {"DEFECT", "UNSURE"}.issuperset(counts):
        raise InputError(f"some parts were not inspected: {counts}")
    return Measure(images_after - images_before, cpu_after - cpu_before, end - start, memory)


def _at_commit(reader: sqlite3.Connection, tree: list[psutil.Process]) -> tuple[int, float, float]:
    """Images, CPU seconds and time at the next group commit: rows appear in groups, so any other moment would be off
    by up to a group. Read from the database, since a request would cost the daemon what it is measured by."""
    before = tally(reader).total()
    while (images := tally(reader).total()) == before:
        time.sleep(0.002)
    return images, sum(_cpu(process.pid) for process in tree), time.monotonic()


def _cpu(pid: int) -> float:
    """CPU seconds of a process so far, from the scheduler's nanoseconds: /proc/PID/stat counts in hundredths."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def measure_bare(settings: dict[str, Any]) -> Measure:
    """Run the bare loop in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, "--bare"], input=json.dumps(settings).encode(), stdout=subprocess.PIPE, check=True
    )
    return Measure(**json.loads(done.stdout))


def bare_loop(settings: dict[str, Any]) -> Measure:
    """Read, preprocess, batch, infer. Nothing else."""
    import cv2

    cv2.setNumThreads(1)
    bundle = open_bundle(Path(settings["bundle"]))
    spec: PreprocessSpec = bundle.manifest.preprocess
    engine = load_engine({"kind": "onnxruntime", "threads": 1}, bundle.model("cpu"))
    source = open_source(settings["source"], spec.channels)
    batch = np.empty((settings["batch"], *spec.shape), np.uint8)
    start = cpu = 0.0
    images, warm = 0, time.monotonic() + WARM_UP_S
    while not start or time.monotonic() < start + settings["seconds"]:
        for position in range(len(batch)):
            shot = source.shoot()
            assert shot is not None
            spec.apply(shot.read(), out=batch[position])
        engine.infer(batch)
        images += len(batch)
        if not start and time.monotonic() >= warm:
            images, start, cpu = 0, time.monotonic(), time.process_time()
    spent = time.process_time() - cpu
    memory = psutil.Process().memory_full_info().pss / 2**20
    return Measure(images, spent, time.monotonic() - start, memory)


def compare(
    bundle: Path, frames: str, batch: int, rounds: int, seconds: float, size: tuple[int, int]
) -> dict[str, Any]:
    """Run both in turns. Returns the figures of every round, their medians and the ratio with its spread."""
    with tempfile.TemporaryDirectory(prefix="lineguard-bench-") as name, progress("rounds") as report:
        directory = Path(name)
        if frames == "raw":
            raw_bundle(bundle, directory / "raw.lgb", *size)
            bundle, path, source = directory / "raw.lgb", directory / "frames.npy", "raw"
            channels = open_bundle(bundle).manifest.preprocess.channels
            np.save(path, raw_frames(RAW_FRAMES, *size, channels), allow_pickle=False)
        else:
            path, source = Path(frames).resolve(), "folder"
        station = make_station(directory, bundle.resolve(), source, path, batch)
        settings = {
            "bundle": str(station.station.bundle),
            "source": station.camera["top"].model_dump(mode="json"),
            "batch": batch,
            "seconds": seconds,
        }
        daemon, bare = [], []
        for index in range(rounds):
            steps = [
                lambda: bare.append(measure_bare(settings)),
                lambda: daemon.append(measure_daemon(station, directory / "station.toml", seconds)),
            ]
            for step in steps if index % 2 == 0 else reversed(steps):
                step()
            report(index + 1, rounds)
        model_sha256 = open_bundle(bundle).variant("cpu").rule.model_sha256
    ratios = sorted(d.per_cpu_second / b.per_cpu_second for d, b in zip(daemon, bare, strict=True))
    return {
        "bundle": bundle.name,
        "model_sha256": model_sha256,
        "frames": f"raw {size[1]}x{size[0]}" if frames == "raw" else "folder",
        "batch": batch,
        "rounds": rounds,
        "seconds_per_round": seconds,
        "cores": os.cpu_count(),
        "daemon_images_per_cpu_second": statistics.median(d.per_cpu_second for d in daemon),
        "bare_images_per_cpu_second": statistics.median(b.per_cpu_second for b in bare),
        "daemon_images_per_second": statistics.median(d.images / d.wall_s for d in daemon),
        "bare_images_per_second": statistics.median(b.images / b.wall_s for b in bare),
        "daemon_memory_mib": statistics.median(d.memory_mib for d in daemon),
        "ratio": statistics.median(ratios),
        "ratio_least": ratios[0],
        "ratio_most": ratios[-1],
        "rounds_daemon": [asdict(d) for d in daemon],
        "rounds_bare": [asdict(b) for b in bare],
    }


@click.command(epilog="\b\nExample:\n  python benchmarks/throughput.py --bundle parts.lgb --frames raw --json")
@click.option(
    "--bundle", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The .lgb file to judge with."
)
@click.option(
    "--frames", default="raw", show_default=True, help="'raw', or a directory of images of the bundle's size."
)
@click.option("--size", default="1280x1024", show_default=True, help="WIDTHxHEIGHT of raw frames.")
@click.option("--batch", default=8, show_default=True, type=click.IntRange(1, 256))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 1000))
@click.option("--seconds", default=6.0, show_default=True, type=click.FloatRange(1.0, 600.0), help="Measured, per run.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--bare", is_flag=True, hidden=True)
def main(
    bundle: Path | None, frames: str, size: str, batch: int, rounds: int, seconds: float, as_json: bool, bare: bool
) -> None:
    """Measure the daemon against a bare loop of the same model."""
    if bare:
        click.echo(json.dumps(asdict(bare_loop(json.load(sys.stdin)))))
        return
    if bundle is None:
        raise click.UsageError("give --bundle, a file made by `trainer release`")
    width, _, height = size.partition("x")
    try:
        result = compare(bundle, frames, batch, rounds, seconds, (int(height), int(width)))
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    table = Table(
        "", "images per CPU-second", "images per second", title="Daemon against a bare loop", title_justify="left"
    )
    for who in ("bare", "daemon"):
        figures = (result[f"{who}_images_per_cpu_second"], result[f"{who}_images_per_second"])
        table.add_row(who, *(f"{figure:.1f}" for figure in figures))
    table.caption = f"ratio {result['ratio']:.3f} ({result['ratio_least']:.3f} to {result['ratio_most']:.3f})"
    if as_json:
        emit(result, True)
    else:
        Console().print(table)


if __name__ == "__main__":
    main()
