"""What each technique against class imbalance is worth on a long tail of 1:100: `python -m benchmarks.longtail`.

Scikit-learn's digits, thinned out so that the classes have 100, 60, 36, 22, 13, 8, 5, 3, 2 and 1 training images; which
digit is rare changes with the seed. One small convolutional network, the same number of steps and one learning rate
for all; they were settled on seeds below 10, which take no part. The 600 test images are 60 of each class; rare classes
are those of fewer than 20 training images (the "few-shot" classes of Liu et al., CVPR 2019). Differences are paired by
seed.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student_t
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from calibration.cli_support import progress
from calibration.values import Interval
from trainer.data import smote
from trainer.data.sampling import Sampling, sample_rows
from trainer.losses import (
    adjust_logits,
    class_balanced_weights,
    focal_loss,
    inverse_frequency_weights,
    logit_adjusted_loss,
)

CLASSES, LARGEST, RATIO = 10, 100, 100
TEST_PER_CLASS = 60
FEW_SHOT = 20
FIRST_SEED = 10
STEPS, HEAD_STEPS, BATCH, RATE = 300, 300, 32, 2e-3
GAMMA, BETA, TAU, NEIGHBOURS = 2.0, 0.99, 1.0, 5

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Problem:
    """Pixels float32 (n, 1, 8, 8) in 0..1 and labels int64 (n,); `counts` are the training images of each class."""

    train_x: Tensor
    train_y: NDArray[np.int64]
    test_x: Tensor
    test_y: NDArray[np.int64]
    counts: NDArray[np.int64]


def long_tail(seed: int) -> Problem:
    """Digits with an exponential profile of class sizes; the test set is drawn first and level."""
    rng = np.random.default_rng([1, seed])
    digits = load_digits()
    rank = rng.permutation(CLASSES)
    counts = np.round(LARGEST * RATIO ** (-rank / (CLASSES - 1))).astype(np.int64)
    train, test = [], []
    for digit in range(CLASSES):
        rows = rng.permutation(np.flatnonzero(digits.target == digit))
        test.append(rows[:TEST_PER_CLASS])
        train.append(rows[TEST_PER_CLASS : TEST_PER_CLASS + counts[digit]])
    pixels = torch.from_numpy((digits.images / 16).astype(np.float32)[:, None])
    labels = digits.target.astype(np.int64)
    a, b = np.concatenate(train), np.concatenate(test)
    return Problem(pixels[a], labels[a], pixels[b], labels[b], counts)


class Net(nn.Module):
    """Two convolutions, 64 features, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(),
            nn.Linear(512, 64), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes)."""
        logits: Tensor = self.head(self.body(x))
        return logits


def fit(
    model: nn.Module, x: Tensor, y: NDArray[np.int64], loss: Loss, sampling: Sampling, steps: int, seed: int
) -> None:
    """Adam with a cosine rate for `steps` batches drawn round after round; the same draws for the same seed."""
    rng, rows = np.random.default_rng([2, seed]), np.zeros(0, np.int64)
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    targets = torch.from_numpy(y)
    for _ in range(steps):
        while len(rows) < BATCH:
            rows = np.concatenate([rows, sample_rows(y, sampling, rng)])
        batch, rows = torch.from_numpy(rows[:BATCH]), rows[BATCH:]
        optimiser.zero_grad()
        loss(model(x[batch]), targets[batch]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()


def trained(problem: Problem, loss: Loss, seed: int, sampling: Sampling = "instance") -> Net:
    """A network from the seed's first weights."""
    torch.manual_seed(seed)
    net = Net()
    fit(net, problem.train_x, problem.train_y, loss, sampling, STEPS, seed)
    return net


def retrained(net: Net, problem: Problem, sampling: Sampling, neighbours: int, seed: int) -> Tensor:
    """Test logits of a new head on the network's features, from resampled or SMOTE'd training features."""
    with torch.no_grad():
        x, test = net.body(problem.train_x).numpy(), net.body(problem.test_x)
    y = problem.train_y
    if neighbours:
        x, y = smote(x, y, neighbours, np.random.default_rng([3, seed]))
    torch.manual_seed(seed)
    head = nn.Linear(x.shape[1], CLASSES)
    fit(head, torch.from_numpy(x), y, cross_entropy, sampling, HEAD_STEPS, seed)
    with torch.no_grad():
        logits: Tensor = head(test)
    return logits


def all_logits(problem: Problem, seed: int) -> dict[str, Tensor]:
    """Test logits of every technique; the first one is the baseline."""
    counts = problem.counts

    def of(net: Net) -> Tensor:
        with torch.no_grad():
            logits: Tensor = net(problem.test_x)
        return logits

    def weighted(weight: Tensor) -> Loss:
        return lambda logits, labels: cross_entropy(logits, labels, weight)

    plain = trained(problem, cross_entropy, seed)
    return {
        "cross-entropy": of(plain),
        "random oversampling": of(trained(problem, cross_entropy, seed, "over")),
        "random undersampling": of(trained(problem, cross_entropy, seed, "under")),
        "class-aware sampling": of(trained(problem, cross_entropy, seed, "class-aware")),
        "SMOTE on features": retrained(plain, problem, "instance", NEIGHBOURS, seed),
        "inverse-frequency weights": of(trained(problem, weighted(inverse_frequency_weights(counts)), seed)),
        "class-balanced weights": of(trained(problem, weighted(class_balanced_weights(counts, BETA)), seed)),
        "focal loss": of(trained(problem, lambda z, y: focal_loss(z, y, GAMMA), seed)),
        "logit adjustment, loss": of(trained(problem, lambda z, y: logit_adjusted_loss(z, y, counts, TAU), seed)),
        "logit adjustment, post-hoc": adjust_logits(of(plain), counts, TAU),
        "decoupled (head re-trained)": retrained(plain, problem, "class-aware", 0, seed),
    }


@dataclass(frozen=True)
class Row:
    """One technique over all seeds: mean balanced accuracy and recalls of rare and frequent classes, 0..1, and the
    paired differences to cross-entropy with their 95 % intervals (Student's t over seeds).
    """

    technique: str
    balanced_accuracy: float
    rare: float
    frequent: float
    gain: Interval
    rare_gain: Interval


def paired(differences: NDArray[np.float64]) -> Interval:
    """Mean of float (seeds,) with its 95 % interval; seeds >= 2."""
    mean, error = float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(len(differences))
    half = float(student_t.ppf(0.975, len(differences) - 1)) * error
    return Interval(mean, mean - half, mean + half)


def measure(seeds: int, report: Callable[[int, int], None]) -> list[Row]:
    """Train everything on each seed; rows in the order of `all_logits`."""
    figures: dict[str, list[tuple[float, float, float]]] = {}
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        problem = long_tail(seed)
        rare = problem.counts < FEW_SHOT
        for technique, logits in all_logits(problem, seed).items():
            right = logits.argmax(1).numpy() == problem.test_y
            recall = np.array([right[problem.test_y == label].mean() for label in range(CLASSES)])
            row = (float(recall.mean()), float(recall[rare].mean()), float(recall[~rare].mean()))
            figures.setdefault(technique, []).append(row)
        report(seed - FIRST_SEED + 1, seeds)
    table = {technique: np.array(values) for technique, values in figures.items()}
    base = table["cross-entropy"]
    return [
        Row(name, *(float(v) for v in values.mean(0)), *(paired((values - base)[:, column]) for column in (0, 1)))
        for name, values in table.items()
    ]


def markdown(rows: list[Row], seeds: int) -> str:
    """The table for docs/results.md."""
    lines = [
        f"Digits 1:{RATIO}, {seeds} seeds; percent; differences in points to cross-entropy, paired, 95 % interval.",
        "",
        "| technique | balanced accuracy | rare classes | frequent classes | difference | difference, rare |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        means = " | ".join(f"{100 * value:.1f}" for value in (row.balanced_accuracy, row.rare, row.frequent))
        gains = " | ".join(
            "" if row is rows[0] else f"{100 * g.value:+.1f} [{100 * g.low:+.1f}, {100 * g.high:+.1f}]"
            for g in (row.gain, row.rare_gain)
        )
        lines.append(f"| {row.technique} | {means} | {gains} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="trainings of each technique, at least 2")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("--seeds: at least 2, or there is no interval")
    with progress("seeds") as report:
        rows = measure(options.seeds, report)
    print(json.dumps([asdict(row) for row in rows], indent=1) if options.json else markdown(rows, options.seeds))


if __name__ == "__main__":
    main()
