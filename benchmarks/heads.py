"""What each way of pooling is worth on a data set of your own, and what it costs: grouped folds, frozen backbone.

The maps of the frozen ImageNet backbone are computed once; on each fold every head is fitted on the training parts,
its penalty chosen on a validation part, and measured on the test fold. The cost is measured on the exported FP32
models, in turns, one thread, spinning off. A second table leaves each class of defects out of training and asks how
many of its parts escape, with and without the distance to good parts.

    python benchmarks/heads.py data
    python benchmarks/heads.py data --folds 5 --size 224 --json
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.engine import Spread, frames_for, images_per_cpu_second, spread
from calibration.cli_support import emit
from calibration.errors import InputError
from calibration.metrics import auroc, balanced_accuracy, softmax
from calibration.risk import escape_at_overkill
from trainer.data.loader import load_split, spec_for
from trainer.data.manifest import SPLITS, Dataset, read_dataset
from trainer.data.splits import grouped_folds
from trainer.features import FORWARD_BATCH, keep_freed_memory
from trainer.head import fit_head
from trainer.losses import class_balanced_weights
from trainer.models.classifier import Classifier, ClassifierConfig
from trainer.onnx_graph import export_core, session, with_normalisation
from trainer.prepare import fit_anomaly, start_from
from trainer.recipes import FROZEN

HEADS: dict[str, tuple[str, bool]] = {
    "mean": ("mean", False),
    "mean+max": ("mean+max", False),
    "bilinear": ("bilinear", False),
    "parts": ("parts", False),
    "mean+max, anomaly": ("mean+max", True),
    "parts, anomaly": ("parts", True),
}
"""Name -> pooling, and whether the distance to good parts joins."""

LEARNED = ("bilinear", "parts")
LEFT_OUT = "mean+max"
OVERKILL = 0.10
VAL_FOLDS = 6
BATCH = 8
Rows = NDArray[np.bool_]


@dataclass(frozen=True)
class OverFolds:
    """Mean of a figure over the folds, and the least and the most of any fold."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class HeadResult:
    """One head: quality on the test folds, images per CPU-second and their ratio to `mean`, turn by turn."""

    head: str
    features: int
    balanced_accuracy: OverFolds
    auroc: OverFolds
    escape: OverFolds
    images_per_cpu_second: Spread
    ratio: Spread


@dataclass(frozen=True)
class UnseenResult:
    """Escape at 10 % overkill of a class left out of training, over the folds that test parts of it."""

    left_out: str
    parts: int
    without: OverFolds
    with_distance: OverFolds


@dataclass(frozen=True)
class Result:
    """The whole benchmark."""

    data: str
    images: int
    size: int
    folds: int
    heads: list[HeadResult]
    unseen: list[UnseenResult]


class Maps:
    """The two maps of the frozen backbone for every image, plain and mirrored, as float16 in a file without a name."""

    def __init__(self, dataset: Dataset, size: int) -> None:
        splits = [load_split(dataset, spec_for(dataset, size, size), name) for name in SPLITS]
        self.dataset, self.size = dataset, size
        self.labels = np.concatenate([split.labels for split in splits])
        self.groups = [group for split in splits for group in split.groups]
        model = self.network("mean", False)
        frames = np.concatenate([split.images for split in splits])
        self.mid, self.last = (self._room(model, frames, which) for which in (0, 1))
        for copy in (0, 1):
            for first in range(0, len(frames), FORWARD_BATCH):
                batch = torch.from_numpy(frames[first : first + FORWARD_BATCH]).float()
                for into, values in zip((self.mid, self.last), _maps(model, batch, copy), strict=True):
                    into[copy, first : first + len(batch)] = values.half()
                print(f"\rmaps {copy * len(frames) + first}/{2 * len(frames)}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)

    def network(self, pooling: str, anomaly: bool) -> Classifier:
        """A classifier with the ImageNet backbone; learned pooling starts the same every time."""
        torch.manual_seed(0)
        config = ClassifierConfig(len(self.dataset.classes), self.dataset.channels, anomaly=anomaly)
        model = Classifier(replace(config, pooling=pooling))  # type: ignore[arg-type]
        model.load_imagenet()
        return model.eval()

    def _room(self, model: Classifier, frames: NDArray[np.uint8], which: int) -> Tensor:
        shape = _maps(model, torch.from_numpy(frames[:1]).float(), 0)[which].shape[1:]
        with tempfile.TemporaryFile() as file:  # the mapping outlives it
            return torch.from_numpy(np.memmap(file, np.float16, "w+", shape=(2, len(frames), *shape)))

    def start(self, model: Classifier, train: Rows) -> None:
        """Let learned pooling start from the training parts."""
        rows = np.flatnonzero(train)
        start_from(model, lambda chosen: self.mid[0, torch.from_numpy(rows[chosen])].float(), self.labels[rows], 0)

    def features(self, model: Classifier) -> NDArray[np.float32]:
        """Pooled features of every image, plain and mirrored: float32 (2, n, features)."""
        found = np.empty((2, len(self.labels), model.features), np.float32)
        with torch.no_grad():
            for copy in (0, 1):
                for first in range(0, len(self.labels), 64):
                    part = slice(first, first + 64)
                    found[copy, part] = model.pool(self.mid[copy, part].float(), self.last[copy, part].float()).numpy()
        return found


def _maps(model: Classifier, frames: Tensor, copy: int) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        turned = (frames.flip(3) if copy else frames).contiguous(memory_format=torch.channels_last)
        return model.backbone.upper(model.lower(turned, 0), 0)


def splits(maps: Maps, folds: int) -> Iterator[tuple[Rows, Rows, Rows]]:
    """Rows of train, val and test for each fold; no group is cut."""
    fold = grouped_folds(maps.labels, maps.groups, folds, 0)
    for k in range(folds):
        test, rest = fold == k, np.flatnonzero(fold != k)
        inner = grouped_folds(maps.labels[rest], [maps.groups[i] for i in rest], VAL_FOLDS, k)
        val = np.zeros(len(fold), bool)
        val[rest[inner == 0]] = True
        yield ~test & ~val, val, test


def defect_scores(
    maps: Maps,
    model: Classifier,
    features: NDArray[np.float32],
    train: Rows,
    val: Rows,
    penalties: tuple[float, ...] = FROZEN.head_penalties,
) -> tuple[NDArray[np.float64], float]:
    """Fit the head; class probabilities of every image, float64 (n, classes), and the penalty that was chosen."""
    classes = len(maps.dataset.classes)
    targets = np.tile(np.eye(classes, dtype=np.float32)[maps.labels[train]], (2, 1))
    weights = class_balanced_weights(np.bincount(maps.labels[train], minlength=classes), FROZEN.balance)
    learned = features[:, train].reshape(-1, model.features)
    recipe = replace(FROZEN, head_penalties=penalties)
    fit = fit_head(model, learned, targets, features[0, val], maps.labels[val], recipe, weights)
    ok_index = maps.dataset.ok_index
    fit_anomaly(model, features[0, train], maps.labels[train], features[0, val], maps.labels[val], ok_index)
    with torch.no_grad():
        return softmax(model.classify(torch.from_numpy(features[0])).numpy()), fit.penalty


def escape(maps: Maps, p: NDArray[np.float64], rows: Rows) -> float:
    """Escape at 10 % overkill on these rows."""
    ok = maps.dataset.ok_index
    return escape_at_overkill(1 - p[rows, ok], maps.labels[rows] != ok, OVERKILL)


def quality(maps: Maps, head: str, folds: int) -> tuple[int, list[tuple[float, float, float]]]:
    """Number of features; balanced accuracy, AUROC and escape of each test fold."""
    pooling, anomaly = HEADS[head]
    found, ok, classes = [], maps.dataset.ok_index, len(maps.dataset.classes)
    features = None
    for train, val, test in splits(maps, folds):
        model = maps.network(pooling, anomaly)
        maps.start(model, train)
        if features is None or pooling in LEARNED:
            features = maps.features(model)
        p, _ = defect_scores(maps, model, features, train, val)
        right = balanced_accuracy(p[test].argmax(1), maps.labels[test], classes)
        found.append((right, auroc(1 - p[test, ok], maps.labels[test] != ok), escape(maps, p, test)))
        print(f"{head}: fold {len(found)} of {folds}", file=sys.stderr, flush=True)
    return model.features, found


def unseen(maps: Maps, folds: int) -> list[UnseenResult]:
    """Each class of defects left out of training and validation in turn."""
    ok, found = maps.dataset.ok_index, []
    plain = maps.network(LEFT_OUT, False)
    features = maps.features(plain)
    for index, name in enumerate(maps.dataset.classes):
        if index == ok:
            continue
        pairs = []
        for train, val, test in splits(maps, folds):
            seen, rows = maps.labels != index, test & np.isin(maps.labels, (ok, index))
            if not (rows & ~seen).any():
                continue
            p, penalty = defect_scores(maps, plain, features, train & seen, val & seen, (0.1,))
            joined, _ = defect_scores(
                maps, maps.network(LEFT_OUT, True), features, train & seen, val & seen, (penalty,)
            )
            pairs.append((escape(maps, p, rows), escape(maps, joined, rows)))
        print(f"left out: {name}", file=sys.stderr, flush=True)
        without, joined_figures = (over_folds(column) for column in zip(*pairs, strict=True))
        found.append(UnseenResult(name, int((maps.labels == index).sum()), without, joined_figures))
    return found


def over_folds(values: Sequence[float]) -> OverFolds:
    return OverFolds(float(np.mean(values)), min(values), max(values))


def speeds(maps: Maps, turns: int, seconds: float) -> dict[str, tuple[Spread, Spread]]:
    """Images per CPU-second of each exported head, and the ratio to `mean`, both over turns."""
    running = {}
    for head, (pooling, anomaly) in HEADS.items():
        core = export_core(maps.network(pooling, anomaly), (maps.dataset.channels, maps.size, maps.size))
        running[head] = session(with_normalisation(core), 1)
        print(f"exported {head}", file=sys.stderr, flush=True)
    frames = frames_for(running["mean"], BATCH)
    for one in running.values():
        one.run(["logits"], {"frames": frames})
    found: dict[str, list[float]] = {head: [] for head in HEADS}
    for turn in range(turns):
        for head in HEADS if turn % 2 == 0 else reversed(HEADS):
            found[head].append(images_per_cpu_second(running[head], frames, seconds))
    ratios = {head: [a / b for a, b in zip(values, found["mean"], strict=True)] for head, values in found.items()}
    return {head: (spread(found[head]), spread(ratios[head])) for head in HEADS}


def text(result: Result) -> str:
    """Two markdown tables."""
    lines = [
        f"{result.data}: {result.images} images, {result.size}x{result.size}, {result.folds} grouped folds, frozen",
        f"backbone; mean over folds [least, most of a fold]. Speed: FP32, ONNX Runtime, one thread, batch {BATCH}.",
        "",
        "| head | features | balanced accuracy | AUROC | escape at 10 % overkill | images/CPU-s | beside mean |",
        "|---|---|---|---|---|---|---|",
    ]
    for head in result.heads:
        ratio = f"{head.ratio.median:.2f} [{head.ratio.low:.2f}, {head.ratio.high:.2f}]"
        cells = (head.head, head.features, head.balanced_accuracy, head.auroc, head.escape)
        lines.append(f"| {' | '.join(map(str, cells))} | {head.images_per_cpu_second.median:.0f} | {ratio} |")
    lines += ["", f"Escape at 10 % overkill of a class left out of training, pooling {LEFT_OUT}:", ""]
    lines += ["| left out | parts | without distance | with distance |", "|---|---|---|---|"]
    lines += [f"| {row.left_out} | {row.parts} | {row.without} | {row.with_distance} |" for row in result.unseen]
    return "\n".join(lines)


def measure(data: Path, size: int, folds: int, turns: int, seconds: float) -> Result:
    """Run the benchmark on a folder of `trainer import`."""
    maps = Maps(read_dataset(data), size)
    measured = {head: quality(maps, head, folds) for head in HEADS}
    missed, cost = unseen(maps, folds), speeds(maps, turns, seconds)
    heads = []
    for head, (features, figures) in measured.items():
        right, area, escaped = (over_folds(column) for column in zip(*figures, strict=True))
        heads.append(HeadResult(head, features, right, area, escaped, *cost[head]))
    return Result(maps.dataset.name, len(maps.labels), size, folds, heads, missed)


def main() -> int:
    """Exit code 0, or 2 on unusable input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of `trainer import`")
    parser.add_argument("--size", type=int, default=192, help="height and width of the input, default 192")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=9, help="speed measurements of each head")
    parser.add_argument("--seconds", type=float, default=0.3, help="CPU seconds of each speed measurement")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    try:
        result = measure(options.data, options.size, options.folds, options.turns, options.seconds)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    emit(result, options.json, text(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
