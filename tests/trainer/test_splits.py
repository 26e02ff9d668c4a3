"""Grouped, stratified, seeded splits."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from calibration.errors import InputError
from trainer.data.splits import grouped_folds, grouped_split

TILES = Path(__file__).parents[2].parent / "shared" / "data" / "magnetic-tile" / "groups.csv"

images = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), min_size=60, max_size=300)


def shares(parts: np.ndarray, labels: np.ndarray, label: int) -> list[float]:
    """Share of a class in train, val and test."""
    return [float((parts[labels == label] == part).mean()) for part in range(3)]


@given(images, st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_no_group_lies_in_two_splits_and_the_seed_decides(rows: list[tuple[int, int]], seed: int) -> None:
    """Every image gets a split, a group's images get the same one, and the same seed gives the same split again."""
    labels, groups = [label for label, _ in rows], [str(group) for _, group in rows]
    assume(len(set(groups)) >= 3)
    parts = grouped_split(labels, groups, seed)
    assert set(parts.tolist()) <= {0, 1, 2}
    home: dict[str, set[int]] = {}
    for group, part in zip(groups, parts.tolist(), strict=True):
        home.setdefault(group, set()).add(part)
    assert all(len(found) == 1 for found in home.values())
    assert np.array_equal(parts, grouped_split(labels, groups, seed))


@given(st.lists(st.integers(3, 60), min_size=1, max_size=8), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_without_groups_every_class_is_cut_exactly(counts: list[int], seed: int) -> None:
    """Each class's share in each split is its target rounded up or down, but never nothing."""
    labels = np.repeat(np.arange(len(counts)), counts)
    parts = grouped_split(labels, [str(i) for i in range(len(labels))], seed)
    for label, count in enumerate(counts):
        for part, fraction in enumerate((0.65, 0.10, 0.25)):
            found = int(((labels == label) & (parts == part)).sum())
            assert found >= 1
            if count >= 10:  # with fewer, the one image that val must have is more than its share
                assert abs(found - count * fraction) < 1


def test_the_totals_of_many_small_classes_are_exact_too() -> None:
    """Roundings do not add up over classes: 2,624 images in 8 strata give 656 test images."""
    counts = [588, 920, 117, 178, 56, 50, 313, 402]
    labels = np.repeat(np.arange(8), counts)
    parts = grouped_split(labels, [str(i) for i in range(len(labels))], 3)
    assert abs(int((parts == 2).sum()) - 656) <= 1
    assert abs(int((parts == 1).sum()) - 262) <= 1


@given(st.integers(0, 200), st.integers(2, 8))
@settings(max_examples=40, deadline=None)
def test_with_enough_groups_the_shares_are_near_their_targets(seed: int, size: int) -> None:
    """120 groups of 1 to 8 images in three classes: each class within 5 points of 65/10/25."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, size + 1, 120)
    labels = np.repeat(np.arange(120) % 3, sizes)
    groups = [f"g{group}" for group in np.repeat(np.arange(120), sizes)]
    parts = grouped_split(labels, groups, seed)
    for label in range(3):
        assert shares(parts, labels, label) == pytest.approx([0.65, 0.10, 0.25], abs=0.05)


@given(st.integers(0, 300))
@settings(max_examples=40, deadline=None)
def test_a_class_with_three_groups_is_in_every_split(seed: int) -> None:
    """A rare class (three parts among a hundred) can be learned, chosen by and measured."""
    labels = [0] * 200 + [1] * 6
    groups = [f"good{i // 2}" for i in range(200)] + [f"bad{i // 2}" for i in range(6)]
    parts = grouped_split(labels, groups, seed)
    assert set(parts[200:].tolist()) == {0, 1, 2}


def test_a_class_with_fewer_groups_is_in_train_first_then_test() -> None:
    """One part of a class is for learning; the second for measuring."""
    labels = [0] * 30 + [1, 1] + [2, 2, 2]
    groups = [f"good{i}" for i in range(30)] + ["a", "b"] + ["c"] * 3
    parts = grouped_split(labels, groups, 0)
    assert sorted(parts[30:32].tolist()) == [0, 2]
    assert set(parts[32:].tolist()) == {0}


def test_different_seeds_give_different_splits() -> None:
    """A seed means something."""
    labels, groups = [0, 1] * 50, [str(i) for i in range(100)]
    assert not np.array_equal(grouped_split(labels, groups, 0), grouped_split(labels, groups, 1))


def test_a_share_of_zero_leaves_its_split_empty() -> None:
    """A set that is only to be judged goes to test whole."""
    labels, groups = [0, 1] * 20, [str(i // 4) for i in range(40)]
    assert set(grouped_split(labels, groups, 0, (0.0, 0.0, 1.0)).tolist()) == {2}
    assert set(grouped_split(labels, groups, 0, (0.75, 0.0, 0.25)).tolist()) == {0, 2}


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (-0.1, 0.6, 0.5), (float("nan"), 0.5, 0.5)])
def test_fractions_that_are_no_shares_are_refused(fractions: tuple[float, float, float]) -> None:
    """They must be at least 0 and sum to 1."""
    with pytest.raises(InputError, match="fractions"):
        grouped_split([0, 1, 0, 1], list("abcd"), 0, fractions)


def test_fewer_groups_than_splits_are_refused() -> None:
    """Two parts cannot fill three splits."""
    with pytest.raises(InputError, match=r"2 group\(s\) cannot fill 3 splits"):
        grouped_split([0, 1, 0, 1], list("aabb"), 0)


@given(images, st.integers(2, 6), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_folds_cut_no_group_and_none_is_empty(rows: list[tuple[int, int]], k: int, seed: int) -> None:
    """Every fold gets a share of the images, every group one fold."""
    labels, groups = [label for label, _ in rows], [str(group) for _, group in rows]
    assume(len(set(groups)) >= 3 * k)
    folds = grouped_folds(labels, groups, k, seed)
    assert set(folds.tolist()) == set(range(k))
    assert len({(group, fold) for group, fold in zip(groups, folds.tolist(), strict=True)}) == len(set(groups))


def test_folds_are_stratified() -> None:
    """Each of five folds gets a fifth of every class."""
    labels = np.repeat([0, 1, 2], [100, 50, 25])
    folds = grouped_folds(labels, [str(i) for i in range(175)], 5, 0)
    for label, each in ((0, 20), (1, 10), (2, 5)):
        assert np.bincount(folds[labels == label]).tolist() == [each] * 5


@given(st.integers(0, 300))
@settings(max_examples=40, deadline=None)
def test_a_class_with_as_many_groups_as_folds_is_in_every_fold(seed: int) -> None:
    """Five parts of a rare class among a hundred of another: each of five folds can judge it."""
    labels = [0] * 200 + [1] * 15
    groups = [f"good{i // 2}" for i in range(200)] + [f"bad{i // 3}" for i in range(15)]
    folds = grouped_folds(labels, groups, 5, seed)
    assert set(folds[200:].tolist()) == set(range(5))


@pytest.mark.parametrize("k", [1, 5])
def test_a_number_of_folds_that_the_groups_cannot_fill_is_refused(k: int) -> None:
    """Between two and the number of groups."""
    with pytest.raises(InputError, match="folds"):
        grouped_folds([0, 1, 0, 1], list("abcd"), k, 0)


@pytest.mark.skipif(not TILES.exists(), reason="the magnetic tile photographs are not here")
def test_a_natural_long_tail_is_split_near_its_targets() -> None:
    """171 tiles of 6 photographs, classes in as few as 7 tiles: totals within 2 points, every class everywhere."""
    with TILES.open() as file:
        rows = list(csv.DictReader(file))
    names = sorted({row["path"].split("/")[0] for row in rows})
    labels = np.array([names.index(row["path"].split("/")[0]) for row in rows])
    groups = [row["group"] for row in rows]
    for seed in range(3):
        parts = grouped_split(labels, groups, seed)
        assert np.bincount(parts) / len(parts) == pytest.approx([0.65, 0.10, 0.25], abs=0.02)
        assert all(len(Counter(parts[labels == label].tolist())) == 3 for label in range(len(names)))
        assert shares(parts, labels, names.index("free")) == pytest.approx([0.65, 0.10, 0.25], abs=0.02)
