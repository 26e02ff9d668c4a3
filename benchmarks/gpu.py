"""What benchmarks/gpu.sh runs: every engine that judges on a GPU, on one bundle and this machine's GPU.

For native TensorRT copying and computing are also timed apart, each alone on its stream: no engine judges more images
per second than the slower of the two allows, and with two lanes they overlap.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from appliance.engines.protocol import GPU_KINDS, Engine, EngineError, load_engine
from appliance.engines.tensorrt import TensorRtEngine
from appliance.engines.tensorrt_plan import PROFILE
from appliance.selftest import golden_batches, golden_problem
from calibration.cli_support import emit, key_values
from calibration.errors import InputError
from calibration.images import IMAGE_SUFFIXES, read_image
from deploy.bundle import Bundle, open_bundle

SIZES = (1, 2, 4, 8, 16, 32)
SECONDS = 1.0
TURNS = 5
DRIFT_FRAMES = 256


@dataclass(frozen=True)
class Rate:
    """Images per second at one batch size: with one lane, with two, and what copying and computing alone allow (None
    where an engine's steps cannot be timed apart)."""

    batch: int
    one_lane: float
    two_lanes: float
    copy_limit: float | None = None
    compute_limit: float | None = None

    @property
    def share(self) -> float | None:
        """Of the lower limit that two lanes reach."""
        if self.copy_limit is None or self.compute_limit is None:
            return None
        return self.two_lanes / min(self.copy_limit, self.compute_limit)


def per_second(work: Callable[[], int]) -> float:
    """Images per second of `work`, which returns how many it did: the median of TURNS stretches."""
    work()
    rates = []
    for _ in range(TURNS):
        done, start = 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < SECONDS / TURNS:
            done += work()
        rates.append(done / spent)
    return float(np.median(rates))


def rate(engine: Engine, tensors: NDArray[np.uint8]) -> Rate:
    """Of one batch, `tensors` uint8 (n, C, H, W)."""
    size = len(tensors)

    def judge(lane: int) -> int:
        engine.infer(tensors, lane)
        return size

    def both() -> int:
        threads = [Thread(target=lambda i=i: [judge(i) for _ in range(8)]) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return 16 * size

    whole = Rate(size, per_second(lambda: judge(0)), per_second(both))
    if not isinstance(engine, TensorRtEngine):
        return whole
    lane = engine.lanes[0]
    copy = per_second(lambda: alone(engine, size, lane.upload, lane.download))
    return replace(whole, copy_limit=copy, compute_limit=per_second(lambda: alone(engine, size, lane.compute)))


def alone(engine: TensorRtEngine, size: int, *steps: Callable[[int], None]) -> int:
    """Put some steps of eight batches on the first lane's stream, and wait for them once."""
    with engine.current():
        for _ in range(8):
            for step in steps:
                step(size)
        engine.lanes[0].wait()
    return 8 * size


def goldens(engine: Engine, bundle: Bundle) -> list[str]:
    """Problems of the bundle's goldens at every position of every batch size up to the plan's largest."""
    frames = bundle.goldens()
    tensors = np.stack([bundle.manifest.preprocess.apply(golden.frame) for golden in frames])
    rule = bundle.variant("trt").rule
    found = []
    for size in range(1, PROFILE[-1] + 1):
        for batch in golden_batches(len(frames), size):
            found.append(golden_problem(rule, frames, "trt", batch, engine.infer(tensors[batch])))
    return [problem for problem in found if problem]


def tensors_of(bundle: Bundle, folder: Path | None) -> NDArray[np.uint8]:
    """What the engines are compared on, uint8 (n, C, H, W): a folder's images, else altered goldens, whose brightness
    and noise spread them over the range of scores. Raises InputError."""
    spec = bundle.manifest.preprocess
    if folder is not None:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        if not paths:
            raise InputError(f"{folder}: holds no images; name a folder of frames, as build/demo/frames")
        return np.stack([spec.apply(read_image(path, spec.channels)) for path in paths])
    rng = np.random.default_rng(0)
    frames = [golden.frame for golden in bundle.goldens()]
    return np.stack([spec.apply(_altered(frames[i % len(frames)], rng)) for i in range(DRIFT_FRAMES)])


def logits_of(engine: Engine, tensors: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Of all tensors, eight at a time: float32 (n, classes)."""
    return np.concatenate([engine.infer(tensors[start : start + 8]) for start in range(0, len(tensors), 8)])


def distance(
    bundle: Bundle, ours: NDArray[np.float32], theirs: dict[str, NDArray[np.float32]]
) -> dict[str, dict[str, float]]:
    """Of an engine's logits from those of the CPU for the same model (`trt`), and for the model that the CPU judges
    with (`cpu`), both by ONNX Runtime."""
    rule = bundle.variant("trt").rule
    found = {}
    for variant, logits in theirs.items():
        decided = bundle.variant(variant).rule.decide(logits)
        same = [a is b for a, b in zip(rule.decide(ours), decided, strict=True)]
        off = np.abs(ours - logits).max(axis=1)
        found[variant] = {
            "same_decision": float(np.mean(same)),
            "logit_median": float(np.median(off)),
            "logit_most": float(off.max()),
        }
    return found


def _altered(frame: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    noisy = frame * rng.uniform(0.7, 1.3) + rng.normal(0, rng.uniform(0, 12), frame.shape)
    return noisy.clip(0, 255).astype(np.uint8)


@contextmanager
def timed(into: dict[str, float], name: str) -> Iterator[None]:
    """Seconds of the block."""
    start = time.perf_counter()
    yield
    into[name] = time.perf_counter() - start


def measure(bundle: Bundle, tensors: NDArray[np.uint8]) -> dict[str, Any]:
    """Everything, for every engine that this machine can run; why not, for the others."""
    cpu = {
        name: logits_of(load_engine({"kind": "onnxruntime"}, bundle.model(name)), tensors) for name in ("cpu", "trt")
    }
    engines, absent = [], {}
    for kind in GPU_KINDS:
        try:
            engines.append(measure_engine(kind, bundle, tensors, cpu))
        except EngineError as error:
            absent[kind] = str(error)
    return {
        "bundle": bundle.manifest.name,
        "frames": len(tensors),
        "cpu_models_same_decision": distance(bundle, cpu["trt"], cpu)["cpu"]["same_decision"],
        "engines": engines,
        "absent": absent,
    }


def measure_engine(
    kind: str, bundle: Bundle, tensors: NDArray[np.uint8], cpu: dict[str, NDArray[np.float32]]
) -> dict[str, Any]:
    """One engine. Raises EngineError where this machine cannot run it."""
    times: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        settings = {"kind": kind, "plans": str(Path(folder) / "plans")}
        with timed(times, "first_start_s"):
            load_engine(settings, bundle.model("trt"), 1).infer(tensors[:1])
        with timed(times, "next_start_s"):
            engine = load_engine(settings, bundle.model("trt"), 2)
            engine.infer(tensors[:1])
    problems = goldens(engine, bundle)
    random = np.random.default_rng(0).integers(96, 160, (PROFILE[-1], *tensors.shape[1:]), dtype=np.uint8)
    rates = [rate(engine, random[:size]) for size in SIZES]
    return {
        "kind": kind,
        "engine": engine.name,
        **times,
        "golden_problems": problems,
        "distance_from_cpu": distance(bundle, logits_of(engine, tensors), cpu),
        "images_per_second": [{**asdict(each), "share_of_limit": each.share} for each in rates],
    }


def tables(result: dict[str, Any]) -> Iterator[Table]:
    """For people."""
    for found in result["engines"]:
        problems, off = found["golden_problems"], found["distance_from_cpu"]
        yield key_values(
            f"{result['bundle']} on {found['engine']} ({found['kind']})",
            {
                "first start, plan built if it needs one": f"{found['first_start_s']:.1f} s",
                "next start": f"{found['next_start_s']:.1f} s",
                "goldens at every position, batches 1 to 32": problems[0] if problems else "pass",
                "same decision as on the CPU": f"{off['trt']['same_decision']:.1%} of {result['frames']} frames",
                "... as the CPU's own model": f"{off['cpu']['same_decision']:.1%}",
                "logits off by, median / most": f"{off['trt']['logit_median']:.4f} / {off['trt']['logit_most']:.4f}",
            },
        )
        yield rate_table(found["images_per_second"])


def rate_table(rates: list[dict[str, float | None]]) -> Table:
    """Images per second; "-" where an engine's steps cannot be timed apart."""
    shown = Table("batch", "one lane", "two lanes", "copy limit", "compute limit", "share of limit")
    for row in rates:
        values = [row[name] for name in ("one_lane", "two_lanes", "copy_limit", "compute_limit")]
        cells = ["-" if value is None else f"{value:.0f}" for value in values]
        share = row["share_of_limit"]
        shown.add_row(str(row["batch"]), *cells, "-" if share is None else f"{share:.0%}")
    return shown


@click.command(epilog="\b\nExample:\n  benchmarks/gpu.sh build/demo/demo.lgb --frames build/demo/frames --json")
@click.argument("path", metavar="BUNDLE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--frames",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Compare with the CPU on the images of this folder.  [default: the bundle's goldens, altered]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def main(path: Path, frames: Path | None, as_json: bool) -> None:
    """Judge with the `trt` model of BUNDLE on this GPU, with every engine that runs here: start, goldens, speed and its
    limits, distance from the CPU."""
    try:
        bundle = open_bundle(path)
        result = measure(bundle, tensors_of(bundle, frames))
    except (InputError, EngineError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    for kind, reason in result["absent"].items():
        click.echo(f"{kind}: {reason}", err=True)
    if not result["engines"]:
        click.echo("error: no engine for a GPU runs on this machine", err=True)
        sys.exit(2)
    if as_json:
        emit(result, True)
    else:
        for each in tables(result):
            Console().print(each)
    sys.exit(1 if any(found["golden_problems"] for found in result["engines"]) else 0)


if __name__ == "__main__":
    main()
