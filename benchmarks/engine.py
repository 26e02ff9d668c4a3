"""Images per CPU-second of the INT8 model against FP32, in ONNX Runtime on this machine.

One process, both models loaded, measured in turns so that whatever else the machine does hits both alike; thread
spinning off; CPU time of the whole process, not wall time. Ratios are taken turn by turn; their median is reported
with the quartiles.

    python benchmarks/engine.py run
    python benchmarks/engine.py parts.lgb --fp32 run/export/model.fp32.onnx --json
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from calibration.cli_support import emit
from calibration.errors import InputError
from deploy.bundle import open_bundle
from trainer.onnx_graph import session

TARGETS = {1: 1.6, 8: 1.9}
"""Least ratio INT8 / FP32 by batch size."""


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class BatchResult:
    """Images per CPU-second at one batch size, and their ratio turn by turn."""

    batch: int
    fp32: Spread
    int8: Spread
    ratio: Spread
    target: float | None


@dataclass(frozen=True)
class Result:
    """The whole benchmark: where, with how many threads, and each batch size."""

    onnxruntime: str
    threads: int
    turns: int
    shape: tuple[int, ...]
    batches: list[BatchResult]


def models_of(source: Path, fp32: Path | None) -> tuple[bytes, bytes]:
    """FP32 and INT8 `cpu` model of a run, or of a bundle with the FP32 file beside it."""
    if source.is_dir():
        export = source / "export"
        paths = (fp32 or export / "model.fp32.onnx", export / "model.cpu.onnx")
        if not all(path.is_file() for path in paths):
            raise InputError(f"{source}: not exported; run `trainer export {source}` first")
        return paths[0].read_bytes(), paths[1].read_bytes()
    if fp32 is None or not fp32.is_file():
        raise InputError(f"{source}: a bundle holds no FP32 model; name it with --fp32 RUN/export/model.fp32.onnx")
    return fp32.read_bytes(), open_bundle(source).model("cpu")


def frames_for(running: onnxruntime.InferenceSession, count: int) -> NDArray[np.uint8]:
    """Textured frames of the model's input size: uint8 (count, C, H, W)."""
    shape = running.get_inputs()[0].shape[1:]
    rng = np.random.default_rng(0)
    return rng.normal(127, 30, (count, *shape)).clip(0, 255).astype(np.uint8)


def images_per_cpu_second(running: onnxruntime.InferenceSession, frames: NDArray[np.uint8], seconds: float) -> float:
    """Run the batch again and again for about `seconds` of CPU time."""
    done, start = 0, time.process_time()
    while True:
        running.run(["logits"], {"frames": frames})
        done += len(frames)
        spent = time.process_time() - start
        if spent >= seconds:
            return done / spent


def spread(values: Sequence[float]) -> Spread:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return Spread(float(middle), float(low), float(high))


def measure(models: tuple[bytes, bytes], batches: Sequence[int], threads: int, turns: int, seconds: float) -> Result:
    """Measure FP32 and INT8 in turns. `models`: ONNX bytes of both."""
    running = [session(model, threads) for model in models]
    frames = frames_for(running[0], max(batches))
    found: dict[int, list[tuple[float, float]]] = {batch: [] for batch in batches}
    for batch in batches:
        for one in running:
            one.run(["logits"], {"frames": frames[:batch]})
    for turn in range(turns):
        for batch in batches:
            order = (0, 1) if turn % 2 == 0 else (1, 0)
            speed = {which: images_per_cpu_second(running[which], frames[:batch], seconds) for which in order}
            found[batch].append((speed[0], speed[1]))
    results = [
        BatchResult(
            batch,
            spread([fp32 for fp32, _ in pairs]),
            spread([int8 for _, int8 in pairs]),
            spread([int8 / fp32 for fp32, int8 in pairs]),
            TARGETS.get(batch),
        )
        for batch, pairs in found.items()
    ]
    return Result(onnxruntime.__version__, threads, turns, tuple(frames.shape[1:]), results)


def text(result: Result) -> str:
    """One line per batch size."""
    lines = [f"ONNX Runtime {result.onnxruntime}, {result.threads} thread(s), input {result.shape}"]
    for found in result.batches:
        wanted = f" (at least {found.target})" if found.target else ""
        speeds = f"FP32 {found.fp32.median:.1f}, INT8 {found.int8.median:.1f} images per CPU-second"
        ratio = f"{found.ratio.median:.2f} [{found.ratio.low:.2f}, {found.ratio.high:.2f}]"
        lines.append(f"batch {found.batch:2d}: {speeds}; ratio {ratio}{wanted}")
    return "\n".join(lines)


def main() -> int:
    """Exit code 0; 1 with --check when a ratio misses its target; 2 on unusable input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="RUN of `trainer export`, or a bundle")
    parser.add_argument("--fp32", type=Path, help="FP32 model, when the source is a bundle")
    parser.add_argument("--batches", default="1,8", help="batch sizes, default 1,8")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=15, help="measurements of each model and batch size")
    parser.add_argument("--seconds", type=float, default=0.4, help="CPU seconds of each measurement")
    parser.add_argument("--check", action="store_true", help="exit code 1 when a ratio misses its target")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        batches = sorted({int(part) for part in options.batches.split(",")})
        models = models_of(options.source, options.fp32)
        result = measure(models, batches, options.threads, options.turns, options.seconds)
    except (InputError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    emit(result, options.json, text(result))
    missed = [found for found in result.batches if found.target and found.ratio.median < found.target]
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
