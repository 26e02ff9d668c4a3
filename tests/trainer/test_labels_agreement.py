"""Attribute agreement analysis: closed forms, a reference library, and the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.trainer.test_labels_cli import answer, call, refusal, table
from trainer.labels import agreement, cohen_kappa, fleiss_kappa

FLEISS = """0 0 0 0 14 / 0 2 6 4 2 / 0 0 3 5 6 / 0 3 9 2 0 / 2 2 8 1 1 /
7 7 0 0 0 / 3 2 6 3 0 / 2 5 3 2 2 / 6 5 2 1 0 / 0 2 2 3 7"""
"""Ten items, fourteen raters, five classes: the worked example of Wikipedia's article on Fleiss' kappa; 0.210."""


def test_fleiss_kappa_of_the_worked_example() -> None:
    """0.210, with the observed agreement 0.378 and the one by chance 0.213."""
    counts = [[int(n) for n in row.split()] for row in FLEISS.split("/")]
    assert fleiss_kappa(counts) == pytest.approx((0.378 - 0.213) / (1 - 0.213), abs=2e-3)
    assert fleiss_kappa(counts) == pytest.approx(0.210, abs=5e-4)


def test_kappas_where_everything_is_the_same_or_nothing_is_there() -> None:
    """One class alone is full agreement; without two answers, or without any, nothing is known."""
    assert fleiss_kappa([[3, 0], [2, 0]]) == 1
    assert cohen_kappa([[5, 0], [0, 0]]) == 1
    assert np.isnan(fleiss_kappa([[1, 0], [0, 1]]))
    assert np.isnan(cohen_kappa(np.zeros((2, 2))))


@given(arrays(np.int64, (30, 2), elements=st.integers(0, 3)))
def test_cohen_kappa_is_scikit_learns(pairs: np.ndarray) -> None:
    """On any two raters; where only one class occurs scikit-learn has no answer."""
    metrics = pytest.importorskip("sklearn.metrics")
    confusion = np.zeros((4, 4))
    np.add.at(confusion, (pairs[:, 0], pairs[:, 1]), 1)
    if len(set(pairs.ravel().tolist())) > 1:
        assert cohen_kappa(confusion) == pytest.approx(metrics.cohen_kappa_score(pairs[:, 0], pairs[:, 1]))


@given(arrays(np.int64, (25, 2), elements=st.integers(0, 2)))
def test_fleiss_kappa_of_two_raters_is_scotts_pi(pairs: np.ndarray) -> None:
    """With two answers an item: (agreement - sum of squared shares) / (1 - that sum)."""
    counts = np.zeros((25, 3))
    for rater in (0, 1):
        np.add.at(counts, (np.arange(25), pairs[:, rater]), 1)
    chance = float(((counts.sum(0) / 50) ** 2).sum())
    if chance < 1:
        agreed = float((pairs[:, 0] == pairs[:, 1]).mean())
        assert fleiss_kappa(counts) == pytest.approx((agreed - chance) / (1 - chance))


def study(items: int, errors: tuple[float, float], trials: int = 3, seed: int = 0) -> tuple[np.ndarray, dict[int, int]]:
    """Two inspectors judge so many parts, half of them defects, three times each, wrong with these probabilities."""
    rng = np.random.default_rng(seed)
    rows = [
        (item, who, (item % 2) ^ int(rng.random() < error))
        for item in range(items)
        for who, error in enumerate(errors)
        for _ in range(trials)
    ]
    return np.array(rows), {item: item % 2 for item in range(items)}


def test_each_inspector_is_told_apart() -> None:
    """A perfect one, and one who is wrong on every fifth answer: 0.8 cubed of his items are right every time."""
    rows, truth = study(400, (0.0, 0.2))
    found = agreement(rows, 2, truth=truth, ok=0, draws=200)
    perfect, poor = found.appraisers
    assert perfect.same is not None
    assert (perfect.same.value, perfect.verdict) == (1.0, "acceptable")
    assert perfect.kappa is not None
    assert perfect.kappa.value == perfect.kappa.low == perfect.kappa.high == 1
    assert poor.effectiveness is not None
    assert poor.miss is not None
    assert poor.kappa_truth is not None
    assert poor.effectiveness.low <= 0.8**3 <= poor.effectiveness.high
    assert poor.miss.low <= 0.2 <= poor.miss.high
    assert poor.kappa_truth.low <= 0.6 <= poor.kappa_truth.high
    assert poor.verdict == "unacceptable"
    assert (found.together.items, found.together.answers) == (400, 2400)
    assert found.together.effectiveness == poor.effectiveness


@pytest.mark.parametrize(
    ("wrong", "verdict"), [(0, "acceptable"), (2, "acceptable"), (3, "marginal"), (5, "marginal"), (6, "unacceptable")]
)
def test_the_verdict_is_by_the_worst_criterion(wrong: int, verdict: str) -> None:
    """Misses of 100 defects: up to 2 % acceptable, up to 5 % marginal; all good parts right."""
    rows = [(item, 0, int(item < 100 and item >= wrong)) for item in range(300)]
    found = agreement(rows, 2, truth={item: int(item < 100) for item in range(300)}, ok=0, draws=10)
    assert found.appraisers[0].verdict == verdict


def test_the_command_says_it_of_a_file(tmp_path: Path) -> None:
    """By name, with intervals and criteria; without truth only what the answers themselves show."""
    rows, _ = study(40, (0.0, 0.3))
    named = [(f"part{item}", ("Ada", "Ben")[who], ("good", "bad")[label]) for item, who, label in rows.tolist()]
    path = table(tmp_path / "answers.csv", named)
    gold = table(tmp_path / "gold.csv", [(f"part{i}", ("good", "bad")[i % 2]) for i in range(40)], ("item", "label"))
    found = answer("agreement", path, "--gold", gold, "--ok", "good")
    assert found["appraisers"]["Ada"]["verdict"] == "acceptable"
    assert found["appraisers"]["Ben"]["verdict"] == "unacceptable"
    assert found["together"]["kappa"]["low"] < found["together"]["kappa"]["value"] < 1
    shown = call("agreement", path)
    assert shown.exit_code == 0
    assert "all together" in shown.stdout
    assert answer("agreement", path)["appraisers"]["Ada"]["effectiveness"] is None


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    """Every item answered once and no truth; an OK class that is none."""
    path = table(tmp_path / "answers.csv", [("a", "Ada", "good"), ("b", "Ada", "bad")])
    assert "nothing to compare; have items judged again" in refusal("agreement", path)
    assert "--ok 'fine': none of the classes bad, good" in refusal("agreement", path, "--ok", "fine")
