"""A daemon and a bare loop on the same frames: what benchmarks/throughput.py and benchmarks/peers measure with.

The bare loop is a process that reads, preprocesses, batches and infers, and does nothing else: no verdicts, no
database, no second process. It picks its batch by the rule of the daemon's self-test.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from appliance.client import fetch_status
from appliance.config import Station, load_station
from appliance.engines.protocol import WHOLE_BATCHES, Engine, load_engine, most_parts
from appliance.history import open_readonly, rejects_by_reason, tally
from appliance.paths import StationPaths
from appliance.sizing import Trials
from appliance.sources import open_source
from calibration.errors import InputError
from calibration.preprocess import PreprocessSpec
from deploy.bundle import open_bundle, write_bundle

ROOT = Path(__file__).resolve().parent.parent
WARM_UP_S = 1.5
START_S = 3.0
"""Bare loops that run side by side begin to count so long after they were started, all at the same moment."""

RAW_FRAMES = 8
"""Few: the file is mapped into memory, and counted as memory of the daemon."""


@dataclass(frozen=True)
class Measure:
    """One stretch of work: images, CPU seconds of all processes, seconds on the clock, memory of all processes (PSS),
    parts a batch, the 99th percentile of the latency in ms (0 where it was not asked for), and parts not inspected."""

    images: int
    cpu_s: float
    wall_s: float
    memory_mib: float
    batch: int
    p99_ms: float = 0.0
    not_inspected: int = 0

    @property
    def per_cpu_second(self) -> float:
        """Images per CPU-second."""
        return self.images / self.cpu_s

    @property
    def per_second(self) -> float:
        """Images per second on the clock."""
        return self.images / self.wall_s


def raw_bundle(source: Path, target: Path, height: int, width: int) -> None:
    """The bundle's model behind a preprocessing for frames of one raw size, with goldens of its own."""
    import cv2

    bundle = open_bundle(source)
    manifest = bundle.manifest
    spec = replace(manifest.preprocess, frame_heights=(height, height), frame_widths=(width, width))
    members = {name: data for name, data in bundle.members.items() if not name.startswith(("golden/", "manifest"))}
    engine = load_engine({"kind": "onnxruntime"}, bundle.model("cpu"))
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


def raw_frames(n: int, height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """`n` different frames with sensor noise."""
    rng = np.random.default_rng(0)
    shape = (n, height, width) if channels == 1 else (n, height, width, channels)
    return rng.integers(96, 160, shape, dtype=np.uint8)


def make_station(
    directory: Path, bundle: Path, source: str, path: Path, engine: str, batch: int, fps: float = 0.0
) -> Path:
    """A station that replays for ever, as fast as it judges or at a rate; returns its station.toml.

    No part is late and no drift is computed twice."""
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "station.toml"
    config.write_text(
        f'[station]\nname = "bench"\ndata = "station"\nbundle = {json.dumps(str(bundle))}\n'
        f'[camera.top]\nsource = "{source}"\npath = {json.dumps(str(path))}\nloop = true\nfps = {fps!r}\n'
        f'[engine]\nkind = "{engine}"\n[batch]\nsize = {batch}\n[timing]\ndeadline_ms = 60000\n'
        "[hold]\nrejects_in_row = 100000\n",
        encoding="utf-8",
    )
    return config


@contextmanager
def running(config: Path) -> Iterator[tuple[Station, psutil.Process]]:
    """The daemon, judging; ended afterwards. Raises InputError where it does not start."""
    station = load_station(config)
    command = [sys.executable, "-m", "appliance.cli", "run", "--config", str(config)]
    daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while fetch_status(station).rate == 0.0:
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise InputError("the daemon did not start judging; see its message above")
            time.sleep(0.1)
        time.sleep(WARM_UP_S)
        yield station, psutil.Process(daemon.pid)
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(10)


def measure_daemon(config: Path, seconds: float, latency: bool = False) -> Measure:
    """Run the daemon, and look at it between two moments of its steady work."""
    with running(config) as (station, daemon):
        tree = [daemon, *daemon.children(recursive=True)]
        with open_readonly(StationPaths.of(station.station.data).database) as reader:
            images_before, cpu_before, start = _at_commit(reader, tree)
            time.sleep(seconds)
            images_after, cpu_after, end = _at_commit(reader, tree)
            counts = rejects_by_reason(tally(reader))
            (batch,) = reader.execute("SELECT max(batch) FROM (SELECT batch FROM verdict ORDER BY seq DESC LIMIT 500)")
        memory = sum(process.memory_full_info().pss for process in tree) / 2**20
        p99 = fetch_status(station).latency.p99 if latency else 0.0
    lost = sum(parts for reason, parts in counts.items() if reason not in ("DEFECT", "UNSURE"))
    if lost and not latency:  # at a set rate a busy machine may fall behind, which is then a figure
        raise InputError(f"some parts were not inspected: {counts}")
    return Measure(images_after - images_before, cpu_after - cpu_before, end - start, memory, batch[0], p99, lost)


def _at_commit(reader: sqlite3.Connection, tree: list[psutil.Process]) -> tuple[int, float, float]:
    """Images, CPU seconds and time at the next group commit: rows appear in groups, so any other moment would be off
    by up to a group. Read from the database, since a request would cost the daemon what it is measured by."""
    before = tally(reader).total()
    while (images := tally(reader).total()) == before:
        time.sleep(0.002)
    return images, sum(cpu_seconds(process.pid) for process in tree), time.monotonic()


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process so far, from the scheduler's nanoseconds: /proc/PID/stat counts in hundredths."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def measure_bare(config: Path, seconds: float, processes: int = 1) -> Measure:
    """Run bare loops on a station's frames, each in a fresh process, side by side; their sum."""
    at = time.monotonic() + START_S
    command = [sys.executable, "-m", "benchmarks.lines", str(config), str(seconds), str(at)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    loops = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=ROOT) for _ in range(processes)]
    found = [json.loads(loop.communicate()[0]) for loop in loops]
    if any(loop.returncode for loop in loops):
        raise InputError("a bare loop failed; see its message above")
    each = [Measure(**values) for values in found]
    wall = sum(one.wall_s for one in each) / processes
    total = (sum(one.images for one in each), sum(one.cpu_s for one in each), wall)
    return Measure(*total, sum(one.memory_mib for one in each), each[0].batch)


def bare_loop(station: Station, seconds: float, at: float) -> Measure:
    """Read, preprocess, batch, infer. Nothing else. Counts from the monotonic time `at` on."""
    import cv2

    cv2.setNumThreads(1)
    bundle = open_bundle(station.station.bundle)
    spec: PreprocessSpec = bundle.manifest.preprocess
    kind, size = station.engine.kind, station.batch.size
    size = most_parts(kind, bundle.manifest.views, size)
    engine = load_engine({"kind": kind}, bundle.model("cpu"), size=size)
    source = open_source(station.camera["top"].model_dump(mode="json"), spec.channels)
    buffer = np.empty((size, *spec.shape), np.uint8)
    batch = buffer[: paying_batch(engine, buffer, size if kind in WHOLE_BATCHES else 2)]
    start = cpu = 0.0
    images = 0
    while not start or time.monotonic() < start + seconds:
        for position in range(len(batch)):
            shot = source.shoot()
            assert shot is not None
            spec.apply(shot.read(), out=batch[position])
        engine.infer(batch)
        images += len(batch)
        if not start and time.monotonic() >= at:
            images, start, cpu = 0, time.monotonic(), time.process_time()
    spent, wall = time.process_time() - cpu, time.monotonic() - start
    return Measure(images, spent, wall, psutil.Process().memory_full_info().pss / 2**20, len(batch))


def paying_batch(engine: Engine, buffer: NDArray[np.uint8], growth: int) -> int:
    """The batch that the daemon's self-test would choose, timed on empty frames. `growth`: see Trials."""
    buffer.fill(127)
    trials = Trials(len(buffer), 1, 10**9, growth)
    while (trial := trials.next) is not None:
        began = time.perf_counter_ns()
        engine.infer(buffer[: trial.size])
        trials.took(time.perf_counter_ns() - began)
    return trials.size


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of one value or more."""
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        return cls(float(middle), float(low), float(high))

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.low:.3g}, {self.high:.3g}]"


if __name__ == "__main__":
    print(json.dumps(bare_loop(load_station(Path(sys.argv[1])), float(sys.argv[2]), float(sys.argv[3])).__dict__))
