"""What a distillation came to: teacher, taught student and the student alone, in quality and in speed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import ModelProto

from calibration.cli_support import plain
from calibration.metrics import bootstrap
from calibration.scores import Scores
from calibration.values import Interval
from trainer.evaluate import SplitReport, evaluate_run
from trainer.features import Progress
from trainer.models.classifier import load_run_model
from trainer.onnx_graph import FRAMES, LOGITS, session
from trainer.run import MODEL, read_settings, write_json
from trainer.teacher import Teacher, float_graph

REPORT = "distill.json"
TURNS = 5
CPU_SECONDS = 0.3
"""Of each measurement of speed."""


@dataclass(frozen=True)
class Line:
    """One network. figures: of the test split. images_per_cpu_second: float32, one thread, ONNX Runtime, batch 1."""

    run: Path
    figures: SplitReport
    images_per_cpu_second: float


@dataclass(frozen=True)
class Comparison:
    """The outcome of a distillation. All differences are of accuracies on the same test parts, paired, in shares.

    Attributes:
        teacher, taught, alone: the networks; alone is None where it was not trained.
        below_teacher: the teacher's accuracy less the taught student's.
        above_alone: the taught student's accuracy less that of the same student without a teacher.
        speedup: images per CPU-second of the taught student over its teacher's.
    """

    teacher: Line
    taught: Line
    alone: Line | None
    below_teacher: Interval
    above_alone: Interval | None
    speedup: float


def compare_runs(
    teacher: Teacher, taught: Path, alone: Path | None, progress: Progress, draws: int = 200
) -> Comparison:
    """Measure the runs on their test split, and write RUN/distill.json.

    Raises:
        InputError: a run is not finished.
    """
    runs = {"teacher": teacher.run, "taught": taught} | ({"alone": alone} if alone else {})
    student = float_graph(load_run_model(taught / MODEL)[0], read_settings(taught))
    speeds = images_per_cpu_second({"teacher": teacher.graph, "taught": student}, progress)
    speeds["alone"] = speeds["taught"]  # one network, other weights
    lines = {name: Line(run, evaluate_run(run, draws=draws).test, speeds[name]) for name, run in runs.items()}
    result = Comparison(
        teacher=lines["teacher"],
        taught=lines["taught"],
        alone=lines.get("alone"),
        below_teacher=accuracy_difference(teacher.run, taught),
        above_alone=accuracy_difference(taught, alone) if alone else None,
        speedup=speeds["taught"] / speeds["teacher"],
    )
    write_json(taught / REPORT, plain(result))
    return result


def accuracy_difference(better: Path, worse: Path, middle: str = "", draws: int = 1000) -> Interval:
    """Accuracy of one run less that of another, on the same test parts: 95 %, bootstrap over groups.

    Args:
        middle: "" for the trained networks, "cpu." for the INT8 models in RUN/export.
    """
    paths = [(run / "export" if middle else run) / f"scores.{middle}test.csv" for run in (better, worse)]
    a, b = (Scores.read(path) for path in paths)
    if a.paths != b.paths:
        raise ValueError(f"{paths[0]} and {paths[1]} are of different images")
    right = [(scores.logits.argmax(1) == scores.labels).astype(float) for scores in (a, b)]
    difference = right[0] - right[1]
    return bootstrap(lambda rows: float(difference[rows].mean()), len(difference), a.groups, draws)


def images_per_cpu_second(graphs: Mapping[str, ModelProto], progress: Progress) -> dict[str, float]:
    """Speed of models, by name: median of turns that interleave them, one thread, batch 1."""
    running = {name: session(graph, threads=1) for name, graph in graphs.items()}
    found: dict[str, list[float]] = {name: [] for name in running}
    for turn in range(TURNS):
        for name, one in running.items():
            found[name].append(_speed(one))
        progress("measuring speed", turn + 1, TURNS)
    return {name: float(np.median(values)) for name, values in found.items()}


def _speed(running: onnxruntime.InferenceSession) -> float:
    frame = np.full((1, *running.get_inputs()[0].shape[1:]), 127, np.uint8)
    running.run([LOGITS], {FRAMES: frame})
    done, start = 0, time.process_time()
    while True:
        running.run([LOGITS], {FRAMES: frame})
        done += 1
        spent = time.process_time() - start
        if spent >= CPU_SECONDS:
            return done / spent
