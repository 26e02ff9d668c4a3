"""The folds of a comparison: what is judged was never learned from, nor chosen by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.errors import InputError
from trainer.compare.folds import PROTOCOLS, Protocol, make_splits
from trainer.data.manifest import Dataset, Item


def dataset(groups: dict[str, list[str]]) -> Dataset:
    """A dataset without files: for each class the group of each of its images; the own split is all test."""
    items = [
        Item(f"{label}/{i}.png", label, group, "test") for label, of in groups.items() for i, group in enumerate(of)
    ]
    return Dataset(
        name="made",
        root=Path("nowhere"),
        classes=tuple(groups),
        ok_class=next(iter(groups)),
        ok_source="the test says so",
        channels=1,
        frame_heights=(48, 48),
        frame_widths=(64, 64),
        frame_aspects=(4 / 3, 4 / 3),
        seed=0,
        licence="none",
        items=tuple(items),
    )


def shots(name: str, parts: int, each: int) -> list[str]:
    """Groups of ``parts`` parts with ``each`` images."""
    return [f"{name}{i // each}" for i in range(parts * each)]


TILES = dataset({"good": shots("g", 30, 4), "crack": shots("c", 9, 3), "fray": shots("f", 5, 5)})


@given(
    st.integers(3, 5),
    st.integers(1, 3),
    st.sampled_from(PROTOCOLS),
    st.lists(st.integers(1, 6), min_size=5, max_size=9),
)
@settings(max_examples=30)
def test_each_seed_judges_every_image_once_and_parts_are_disjoint(
    folds: int, seeds: int, protocol: Protocol, sizes: list[int]
) -> None:
    """Learning, choosing and judging share no image, on grouped folds no group; together they are the dataset."""
    rare = [f"r{i}" for i, size in enumerate(sizes) for _ in range(size)]
    data = dataset({"good": shots("g", 20, 3), "rare": rare})
    if protocol == "random" and len(rare) < folds:
        return
    splits = make_splits(data, protocol, folds, seeds)
    groups = np.array([item.group for item in data.items])
    for seed in range(seeds):
        tests = np.concatenate([split.test for split in splits if split.seed == seed])
        assert sorted(tests.tolist()) == list(range(len(data.items)))
    for split in splits:
        parts = (split.train, split.val, split.test)
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(data.items)))
        if protocol == "grouped":
            named = [set(groups[rows]) for rows in parts]
            assert not named[0] & named[1]
            assert not named[0] & named[2]
            assert not named[1] & named[2]


def test_a_class_of_as_many_groups_as_folds_is_learned_chosen_by_and_judged_in_every_cell() -> None:
    """Five frayed parts, five folds: one in each test part, one in each validation fold."""
    labels = TILES.labels()
    for split in make_splits(TILES, "grouped", 5, 2):
        for rows in (split.train, split.val, split.test):
            assert set(labels[rows]) == {0, 1, 2}


def test_seeds_give_other_folds_and_the_same_call_the_same() -> None:
    """Repetitions repeat nothing."""
    first, again = make_splits(TILES, "grouped", 5, 2), make_splits(TILES, "grouped", 5, 2)
    assert all(
        np.array_equal(a.test, b.test) and np.array_equal(a.val, b.val) for a, b in zip(first, again, strict=True)
    )
    assert not np.array_equal(first[0].test, first[5].test)
    assert len({split.name for split in first}) == 10


def test_random_folds_cut_groups() -> None:
    """That is their use: they show what leakage pretends."""
    split = make_splits(TILES, "random", 5, 1)[0]
    groups = np.array([item.group for item in TILES.items])
    assert set(groups[split.test]) & set(groups[split.train])


@pytest.mark.parametrize(
    ("groups", "folds", "said"),
    [
        ({"good": shots("g", 9, 1), "rare": ["r"]}, 3, "class 'rare' has one image"),
        ({"good": shots("g", 9, 1), "rare": []}, 3, "class 'rare' has no image"),
        ({"good": shots("g", 9, 1), "rare": ["r"] * 8}, 3, r"8 images of class 'rare' lie in 1 group\(s\)"),
        (
            {"good": shots("g", 9, 1), "rare": shots("r", 4, 2)},
            5,
            "--folds 5, but the 8 images of class 'rare' lie in 4",
        ),
    ],
)
def test_a_class_too_small_for_the_folds_is_named(groups: dict[str, list[str]], folds: int, said: str) -> None:
    """Which class, how many there are, and what to do."""
    with pytest.raises(InputError, match=said) as refused:
        make_splits(dataset(groups), "grouped", folds, 1)
    assert "photograph more parts" in str(refused.value)


def test_more_folds_than_groups_names_a_number_that_works() -> None:
    """The remedy is tried: what the message says is accepted."""
    data = dataset({"good": shots("g", 20, 2), "rare": shots("r", 4, 3)})
    with pytest.raises(InputError, match="use --folds 4 or fewer"):
        make_splits(data, "grouped", 5, 1)
    assert len(make_splits(data, "grouped", 4, 1)) == 4


def test_a_class_that_no_fold_could_learn_is_refused() -> None:
    """Where groups hold several classes, one class may be gone from a training part; that is said, not hidden."""
    together = ["a", "b", "c"]
    data = dataset({"good": shots("g", 12, 2), "one": together, "two": together})
    for split in make_splits(data, "grouped", 3, 1):
        assert set(data.labels()[split.train]) == {0, 1, 2}
