"""What benchmarks/gpu.sh runs: the native TensorRT engine on a bundle, on this machine's GPU.

Copying and computing are also timed apart, each alone on its stream: no engine can judge more images per second than
the slower of the two allows, and with two lanes they overlap.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from appliance.engines.protocol import EngineError, load_engine
from appliance.engines.tensorrt import TensorRtEngine
from appliance.engines.tensorrt_plan import PROFILE
from appliance.selftest import golden_batches, golden_problem
from calibration.cli_support import emit, key_values
from calibration.errors import InputError
from deploy.bundle import Bundle, open_bundle

SIZES = (1, 2, 4, 8, 16, 32)
SECONDS = 1.0
TURNS = 5
DRIFT_FRAMES = 256


@dataclass(frozen=True)
class Rate:
    """Images per second at one batch size: with one lane, with two, and what copying and computing alone allow."""

    batch: int
    one_lane: float
    two_lanes: float
    copy_limit: float
    compute_limit: float

    @property
    def share(self) -> float:
        """Of the lower limit that two lanes reach."""
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


def rate(engine: TensorRtEngine, tensors: NDArray[np.uint8]) -> Rate:
    """Of one batch, `tensors` uint8 (n, C, H, W)."""
    size, lane = len(tensors), engine.lanes[0]

    def judge(index: int) -> int:
        engine.infer(tensors, index)
        return size

    def both() -> int:
        threads = [Thread(target=lambda i=i: [judge(i) for _ in range(8)]) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return 16 * size

    def alone(*steps: Callable[[int], None]) -> int:
        with engine.current():
            for _ in range(8):
                for step in steps:
                    step(size)
            lane.wait()
        return 8 * size

    return Rate(
        size,
        per_second(lambda: judge(0)),
        per_second(both),
        per_second(lambda: alone(lane.upload, lane.download)),
        per_second(lambda: alone(lane.compute)),
    )


def goldens(engine: TensorRtEngine, bundle: Bundle) -> list[str]:
    """Problems of the bundle's goldens at every position of every batch size up to the plan's largest."""
    frames = bundle.goldens()
    tensors = np.stack([bundle.manifest.preprocess.apply(golden.frame) for golden in frames])
    rule = bundle.variant("trt").rule
    found = []
    for size in range(1, PROFILE[-1] + 1):
        for batch in golden_batches(len(frames), size):
            found.append(golden_problem(rule, frames, "trt", batch, engine.infer(tensors[batch])))
    return [problem for problem in found if problem]


def drift(engine: TensorRtEngine, bundle: Bundle) -> dict[str, float]:
    """Distance of the GPU's logits from ONNX Runtime's on the CPU, same model, on altered goldens: brightness and
    noise spread them over the range of scores."""
    rng = np.random.default_rng(0)
    frames = [golden.frame for golden in bundle.goldens()]
    rule, spec = bundle.variant("trt").rule, bundle.manifest.preprocess
    tensors = np.stack([spec.apply(_altered(frames[i % len(frames)], rng)) for i in range(DRIFT_FRAMES)])
    cpu = load_engine({"kind": "onnxruntime"}, bundle.model("trt"))
    pairs = [(engine.infer(part), cpu.infer(part)) for part in np.split(tensors, DRIFT_FRAMES // 8)]
    ours, theirs = (np.concatenate(each) for each in zip(*pairs, strict=True))
    same = [a is b for a, b in zip(rule.decide(ours), rule.decide(theirs), strict=True)]
    distance = np.abs(ours - theirs).max(axis=1)
    return {
        "frames": float(DRIFT_FRAMES),
        "same_decision": float(np.mean(same)),
        "logit_median": float(np.median(distance)),
        "logit_most": float(distance.max()),
    }


def _altered(frame: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    noisy = frame * rng.uniform(0.7, 1.3) + rng.normal(0, rng.uniform(0, 12), frame.shape)
    return noisy.clip(0, 255).astype(np.uint8)


@contextmanager
def timed(into: dict[str, float], name: str) -> Iterator[None]:
    """Seconds of the block."""
    start = time.perf_counter()
    yield
    into[name] = time.perf_counter() - start


def measure(bundle: Bundle) -> dict[str, Any]:
    """Everything. Raises EngineError where this machine cannot."""
    times: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        settings = {"kind": "tensorrt", "plans": str(Path(folder) / "plans")}
        with timed(times, "build_s"):
            TensorRtEngine(bundle.model("trt"), settings, 1)
        with timed(times, "load_from_cache_s"):
            engine = TensorRtEngine(bundle.model("trt"), settings, 2)
    rng = np.random.default_rng(0)
    tensors = rng.integers(96, 160, (PROFILE[-1], *bundle.manifest.preprocess.shape), dtype=np.uint8)
    return {
        "engine": engine.name,
        "bundle": bundle.manifest.name,
        **times,
        "golden_problems": goldens(engine, bundle),
        "drift_against_cpu": drift(engine, bundle),
        "images_per_second": [{**(r := rate(engine, tensors[:n])).__dict__, "share_of_limit": r.share} for n in SIZES],
    }


def tables(result: dict[str, Any]) -> Iterator[Table]:
    """For people."""
    problems, found = result["golden_problems"], result["drift_against_cpu"]
    yield key_values(
        f"{result['bundle']} on {result['engine']}",
        {
            "plan built in": f"{result['build_s']:.1f} s",
            "plan loaded from the cache in": f"{result['load_from_cache_s']:.1f} s",
            "goldens at every position, batches 1 to 32": problems[0] if problems else "pass",
            "same decision as on the CPU": f"{found['same_decision']:.1%} of {found['frames']:.0f} altered goldens",
            "logits off by, median / most": f"{found['logit_median']:.4f} / {found['logit_most']:.4f}",
        },
    )
    shown = Table("batch", "one lane", "two lanes", "copy limit", "compute limit", "share of limit")
    for row in result["images_per_second"]:
        values = (row[name] for name in ("one_lane", "two_lanes", "copy_limit", "compute_limit"))
        shown.add_row(str(row["batch"]), *(f"{value:.0f}" for value in values), f"{row['share_of_limit']:.0%}")
    yield shown


@click.command(epilog="\b\nExample:\n  benchmarks/gpu.sh build/demo/demo.lgb --json")
@click.argument("path", metavar="BUNDLE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def main(path: Path, as_json: bool) -> None:
    """Judge with the `trt` model of BUNDLE on this GPU: build, goldens, speed and its limits, distance from the CPU."""
    try:
        result = measure(open_bundle(path))
    except (InputError, EngineError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    if as_json:
        emit(result, True)
    else:
        for each in tables(result):
            Console().print(each)
    sys.exit(1 if result["golden_problems"] else 0)


if __name__ == "__main__":
    main()
