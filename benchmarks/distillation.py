"""Distilled students beside their teacher and beside themselves alone: INT8 models, as docs/results.md reports them.

For each student: `trainer distill` (the same student alone with it), `trainer export` of all three runs, accuracy of
the exported INT8 `cpu` models on the test split, and their images per CPU-second, measured in turns in one process,
one thread, spinning off. The teacher's single view, without the mirrored ones it averages over, is timed too.
With several teachers, each of a seed of its own, the means over them come last. A finished student is not trained
again.

    python -m benchmarks.distillation run data
    python -m benchmarks.distillation run-0 data-0 run-1 data-1 --students efficientnet-lite0 --size 176x176
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto
from onnx.utils import Extractor

from benchmarks.engine import Spread, frames_for, images_per_cpu_second, spread
from calibration.cli_support import emit
from calibration.errors import InputError
from calibration.values import Interval
from trainer.data.manifest import read_dataset
from trainer.distill import ALONE
from trainer.distill_report import REPORT, accuracy_difference
from trainer.evaluate import SplitReport, evaluate_run
from trainer.export import EXPORT, PARITY
from trainer.onnx_graph import session
from trainer.run import read_settings

BIN = Path(sys.executable).parent
STUDENTS = ("efficientnet-lite0", "mobilenet-v3-small")
ANY = 10**6
GOALS = {"accuracy": 0.02, "speedup": 10.0}
"""A student may lose this share of accuracy to its teacher, and is to judge this many times the images."""


@dataclass(frozen=True)
class Range:
    """Mean, least and most of a figure over the teachers."""

    mean: float
    least: float
    most: float


@dataclass(frozen=True)
class Means:
    """One network over all teachers.

    Attributes:
        accuracy: of the INT8 model. below_teacher: the teacher's accuracy less its own. speedup: medians' mean.
    """

    name: str
    accuracy: Range
    below_teacher: Range
    speedup: Range


@dataclass(frozen=True)
class Row:
    """One network.

    Attributes:
        name: what it is. run: its folder.
        figures: of the INT8 model on the test split.
        speed: images per CPU-second, batch 1. speedup: over the teacher's, turn by turn.
        below_teacher: the teacher's accuracy less its own, paired.
    """

    name: str
    run: Path
    figures: SplitReport
    speed: Spread
    speedup: Spread
    below_teacher: Interval


def run(*words: str | Path) -> None:
    """Run one of Lineguard's commands."""
    print("$", " ".join(map(str, words)), file=sys.stderr, flush=True)
    subprocess.run([str(BIN / words[0]), *map(str, words[1:])], check=True, stdout=subprocess.DEVNULL)


def students_of(
    teacher: Path, data: Path, build: Path, students: list[str], seed: int, size: str | None
) -> dict[str, Path]:
    """Distil and export what is not there yet; the folders of all networks, the teacher first. `size`: HEIGHTxWIDTH."""
    runs = {"teacher": teacher}
    for backbone in students:
        folder = build / backbone
        if not (folder / REPORT).exists():
            resume = ["--resume"] if folder.exists() else []
            words = ["--backbone", backbone, "--seed", str(seed), *(["--size", size] if size else []), *resume]
            run("trainer", "distill", teacher, data, "--out", folder, *words)
        runs |= {f"{backbone}, taught": folder, f"{backbone}, alone": folder / ALONE}
    for folder in runs.values():
        if not (folder / EXPORT / PARITY).exists():
            # here what INT8 loses shows in the accuracy; `trainer export` by itself refuses beyond a few paired escapes
            run("trainer", "export", folder, "--max-paired-escapes", str(ANY))
    return runs


def measure(runs: dict[str, Path], turns: int, seconds: float) -> tuple[list[Row], Spread]:
    """A row for each network, and the speed of the teacher's single view. ``runs`` has the teacher first."""
    models = {name: (folder / EXPORT / "model.cpu.onnx").read_bytes() for name, folder in runs.items()}
    running = {name: session(model, 1) for name, model in models.items()}
    running["single view"] = session(single_view(onnx.load_from_string(models["teacher"])), 1)
    frames = {name: frames_for(one, 1) for name, one in running.items()}
    for name, one in running.items():
        images_per_cpu_second(one, frames[name], 0)  # the first run is slower
    found: dict[str, list[float]] = {name: [] for name in running}
    for turn in range(turns):
        for name in list(running)[:: 1 if turn % 2 == 0 else -1]:
            found[name].append(images_per_cpu_second(running[name], frames[name], seconds))
    rows = [
        Row(
            name,
            folder,
            evaluate_run(folder, "cpu").test,
            spread(found[name]),
            spread([mine / theirs for mine, theirs in zip(found[name], found["teacher"], strict=True)]),
            accuracy_difference(runs["teacher"], folder, "cpu."),
        )
        for name, folder in runs.items()
    ]
    return rows, spread(found["single view"])


def single_view(model: ModelProto) -> ModelProto:
    """The network for one view, cut out of an exported model that averages over several."""
    names = {"views": "frames", "view_logits": "logits"}
    if not any("views" in node.output for node in model.graph.node):
        return model
    inner = Extractor(model).extract_model(list(names)[:1], list(names)[1:])
    for node in inner.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for item in (*inner.graph.input, *inner.graph.output):
        item.name = names[item.name]
    return inner


def section(rows: list[Row], single: Spread, data: str) -> str:
    """The table as docs/results.md has it."""
    lines = [
        f"{data}, test split; exported INT8 `cpu` models; 95 % intervals over groups. One thread, batch 1.",
        "",
        "| network | input | accuracy | behind the teacher | AUROC | escape at 10 % overkill | ECE "
        "| images per CPU-second | times the teacher's |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        spec, views = read_settings(row.run).spec, read_settings(row.run).model.flip_average
        figures = row.figures
        behind = "-" if row.name == "teacher" else _points(row.below_teacher)
        lines.append(
            f"| {row.name} | {spec.width}x{spec.height}, views: {views} | {figures.accuracy_interval:.1%} | {behind} "
            f"| {figures.auroc_interval:.3f} | {figures.escape_interval:.1%} | {figures.ece_interval:.3f} "
            f"| {row.speed.median:.1f} | {row.speedup.median:.1f} |"
        )
    return "\n".join([*lines, "", f"The teacher's single view: {single.median:.1f} images per CPU-second."])


def _points(interval: Interval) -> str:
    return f"{100 * interval.value:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}] points"


def main() -> int:
    """Exit code 0; 1 with --check when no student reaches the goals; 2 on unusable input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "pairs", type=Path, nargs="+", metavar="RUN DATA", help="a run of `trainer train`, and what it was trained on"
    )
    parser.add_argument("--build", type=Path, default=Path("build/distillation"), help="folder of the students' runs")
    parser.add_argument("--students", default=",".join(STUDENTS), help=f"backbones, default {','.join(STUDENTS)}")
    parser.add_argument("--size", metavar="HEIGHTxWIDTH", help="the students' input, default half the teacher's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--turns", type=int, default=11, help="measurements of each model's speed")
    parser.add_argument("--seconds", type=float, default=0.4, help="CPU seconds of each measurement")
    parser.add_argument("--check", action="store_true", help="exit code 1 when no student reaches the goals")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    pairs = list(zip(options.pairs[::2], options.pairs[1::2], strict=False))
    if 2 * len(pairs) != len(options.pairs):
        print("error: each RUN needs the DATA it was trained on behind it", file=sys.stderr)
        return 2
    measured = []
    try:
        for teacher, folder in pairs:
            data, build = read_dataset(folder), options.build / teacher.name
            read_settings(teacher)
            build.mkdir(parents=True, exist_ok=True)
            runs = students_of(teacher, folder, build, options.students.split(","), options.seed, options.size)
            rows, single = measure(runs, options.turns, options.seconds)
            print(section(rows, single, data.name), end="\n\n", file=sys.stderr, flush=True)
            measured.append({"networks": rows, "teacher_single_view": single})
    except (InputError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        return int(error.returncode)
    together = means([each["networks"] for each in measured])
    emit({"teachers": measured, "means": together}, options.json, means_table(together))
    return 1 if options.check and not any(reaches_goals(each) for each in together) else 0


def means(measured: Sequence[Sequence[Row]]) -> list[Means]:
    """Each network over the teachers; all have the same networks in the same order."""

    def over(values: Sequence[float]) -> Range:
        return Range(float(np.mean(values)), min(values), max(values))

    return [
        Means(
            rows[0].name,
            over([row.figures.accuracy for row in rows]),
            over([row.below_teacher.value for row in rows]),
            over([row.speedup.median for row in rows]),
        )
        for rows in zip(*measured, strict=True)
    ]


def means_table(found: Sequence[Means]) -> str:
    """Means over the teachers, least and most in brackets."""
    lines = ["| mean over the teachers | accuracy | points behind the teacher | times its speed |", "|---|---|---|---|"]
    for each in found:
        cells = (
            _bracketed(each.accuracy, 100, " %"),
            _bracketed(each.below_teacher, 100, ""),
            _bracketed(each.speedup, 1, ""),
        )
        lines.append(f"| {each.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _bracketed(found: Range, factor: float, unit: str) -> str:
    value, low, high = (f"{factor * part:.1f}" for part in (found.mean, found.least, found.most))
    return f"{value}{unit} [{low}, {high}]"


def reaches_goals(network: Means) -> bool:
    """Whether this is a taught student, close to its teachers and much faster, in the mean."""
    near = network.below_teacher.mean <= GOALS["accuracy"]
    return network.name.endswith("taught") and near and network.speedup.mean >= GOALS["speedup"]


if __name__ == "__main__":
    sys.exit(main())
