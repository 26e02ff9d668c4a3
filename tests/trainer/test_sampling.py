"""Resampling and SMOTE: pure functions of labels and a generator, held against imbalanced-learn and scikit-learn."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from trainer.data import smote
from trainer.data.sampling import SAMPLINGS, nearest, sample_rows, seen_counts

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array)


@given(labels=LABELS, seed=st.integers(0, 2**31))
def test_oversampling_keeps_every_row_and_levels_the_classes(labels: NDArray[np.int64], seed: int) -> None:
    """Every row is there, rare ones repeat, and the class counts are those of imbalanced-learn."""
    rows = sample_rows(labels, "over", np.random.default_rng(seed))
    assert set(rows.tolist()) == set(range(len(labels)))
    assert Counter(labels[rows].tolist()) == levelled(RandomOverSampler(), labels)


@given(labels=LABELS, seed=st.integers(0, 2**31))
def test_undersampling_levels_the_classes_without_repeats(labels: NDArray[np.int64], seed: int) -> None:
    """No row comes twice, and the class counts are those of imbalanced-learn."""
    rows = sample_rows(labels, "under", np.random.default_rng(seed))
    assert len(set(rows.tolist())) == len(rows)
    assert Counter(labels[rows].tolist()) == levelled(RandomUnderSampler(), labels)


def levelled(sampler: RandomOverSampler | RandomUnderSampler, labels: NDArray[np.int64]) -> Counter[int]:
    """Class counts as the reference makes them; it refuses a single class, which is level already."""
    if len(np.unique(labels)) == 1:
        return Counter(labels.tolist())
    return Counter(sampler.fit_resample(np.arange(len(labels))[:, None], labels)[1].tolist())


def test_class_aware_sampling_picks_the_class_first() -> None:
    """Classes come equally often whatever their size, and so do the rows within a class."""
    labels = np.repeat([0, 1, 2], [9000, 900, 100])
    rows = np.concatenate([sample_rows(labels, "class-aware", np.random.default_rng(i)) for i in range(6)])
    shares = np.bincount(labels[rows]) / len(rows)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.01)  # 5 standard errors
    rare = np.bincount(rows[rows >= 9900] - 9900, minlength=100)
    assert rare.min() > 0.5 * rare.mean()
    assert rare.max() < 1.5 * rare.mean()


def test_square_root_sampling_shares_an_epoch_by_the_roots_of_the_sizes() -> None:
    """100, 25 and 4 rows in shares of 10 : 5 : 2; the largest class is thinned out, the others come round again."""
    labels = np.repeat([0, 1, 2], [100, 25, 4])
    rows = sample_rows(labels, "square-root", np.random.default_rng(3))
    assert np.bincount(labels[rows]).tolist() == [76, 38, 16]  # 129 * (10, 5, 2) / 17, rounded up
    times = np.bincount(rows, minlength=129)
    assert times[:100].max() == 1
    assert set(times[100:125].tolist()) == {1, 2}
    assert set(times[125:].tolist()) == {4}
    assert (np.diff(labels[rows]) != 0).sum() > 30, "the classes come mixed"


@given(labels=LABELS, seed=st.integers(0, 2**31))
def test_by_default_every_row_comes_once(labels: NDArray[np.int64], seed: int) -> None:
    """Instance sampling is a permutation."""
    assert sorted(sample_rows(labels, "instance", np.random.default_rng(seed)).tolist()) == list(range(len(labels)))


@pytest.mark.parametrize("sampling", SAMPLINGS)
@given(labels=LABELS)
def test_seen_counts_are_what_an_epoch_shows(sampling: str, labels: NDArray[np.int64]) -> None:
    """Exactly, or in the mean where classes are drawn; an absent class stays at 0."""
    seen = seen_counts(labels, 6, sampling)  # type: ignore[arg-type]
    rows = sample_rows(labels, sampling, np.random.default_rng(0))  # type: ignore[arg-type]
    shown = np.bincount(labels[rows], minlength=6)
    present = np.bincount(labels, minlength=6) > 0
    assert ((seen > 0) == present).all()
    if sampling == "class-aware":
        assert len(set(seen[present].tolist())) == 1
        assert len(rows) <= seen.sum() < len(rows) + 6
    else:
        assert seen.tolist() == shown.tolist()


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_same_generator_draws_the_same_rows(sampling: str) -> None:
    """Nothing but the generator decides."""
    labels = np.repeat([0, 1, 2], [30, 8, 3])
    a, b, c = (sample_rows(labels, sampling, np.random.default_rng(seed)) for seed in (1, 1, 2))  # type: ignore[arg-type]
    assert a.tolist() == b.tolist() != c.tolist()


@pytest.mark.parametrize("labels", [[], [[0, 1]], [0.5, 1.0], [-1, 0]])
def test_labels_that_are_none_are_refused(labels: list[int]) -> None:
    """Labels are a row of indices."""
    with pytest.raises(ValueError, match="labels"):
        sample_rows(labels, "over", np.random.default_rng(0))
    with pytest.raises(ValueError, match="labels"):
        smote(np.zeros((2, 2)), labels, 1, np.random.default_rng(0))


def test_an_unknown_sampling_or_a_label_too_many_is_refused() -> None:
    """The message names what there is."""
    with pytest.raises(ValueError, match="class-aware"):
        sample_rows([0, 1], "sideways", np.random.default_rng(0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="class-aware"):
        seen_counts([0, 1], 2, "sideways")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="label 2"):
        seen_counts([0, 2], 2, "instance")


def long_tail(seed: int, counts: tuple[int, ...] = (40, 12, 4, 2, 1)) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Features float64 (n, 6) of classes apart from one another, shuffled."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    return rng.normal(size=(len(labels), 6)) + 10 * labels[:, None], labels


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), k=st.integers(1, 8))
def test_each_synthetic_lies_between_a_sample_and_a_neighbour_of_its_class(seed: int, k: int) -> None:
    """On the segment from a sample to one of its k nearest of the same class, as scikit-learn finds them."""
    features, labels = long_tail(seed)
    x, y = smote(features, labels, k, np.random.default_rng(seed))
    assert np.array_equal(x[: len(features)], features)
    assert np.array_equal(y[: len(labels)], labels)
    assert Counter(y.tolist()) == dict.fromkeys(range(5), 40)
    for point, label in zip(x[len(labels) :], y[len(labels) :], strict=True):
        own = features[labels == label]
        assert any(on_segment(point, a, b) for a, b in segments(own, min(k, len(own) - 1)))


def segments(own: NDArray[np.float64], k: int) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Each sample with each of its neighbours; a single sample with itself."""
    if k == 0:
        return [(own[0], own[0])]
    near = NearestNeighbors(n_neighbors=k).fit(own).kneighbors(return_distance=False)
    return [(own[i], own[j]) for i in range(len(own)) for j in near[i]]


def on_segment(point: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Whether the way from a to b over the point is no longer than the straight one."""
    way = float(np.linalg.norm(point - a) + np.linalg.norm(point - b))
    return bool(way <= np.linalg.norm(a - b) + 1e-9)


class Drawn:
    """A generator that gives what imbalanced-learn draws from one seed: sample and neighbour in one number, places."""

    def __init__(self, seed: int, neighbours: int) -> None:
        self.state, self.neighbours, self.picks = np.random.RandomState(seed), neighbours, np.zeros(0, np.int64)

    def integers(self, low: int, high: int, size: int) -> NDArray[np.int64]:
        if len(self.picks) == 0:
            self.picks = self.state.randint(low, high * self.neighbours, size)
            return self.picks // self.neighbours
        return self.picks % self.neighbours

    def random(self, size: tuple[int, int]) -> NDArray[np.float64]:
        return self.state.uniform(size=size[0])[:, None]


@pytest.mark.parametrize("seed", range(5))
def test_from_the_same_draws_come_the_samples_of_imbalanced_learn(seed: int) -> None:
    """Same neighbours, same arithmetic: equal to 1e-12."""
    features, labels = long_tail(seed, (30, 9))
    expected = SMOTE(k_neighbors=4, random_state=seed).fit_resample(features, labels)
    x, y = smote(features, labels, 4, Drawn(seed, 4))  # type: ignore[arg-type]
    np.testing.assert_allclose(x, expected[0], atol=1e-12)
    assert np.array_equal(y, expected[1])


def test_a_class_of_one_sample_is_repeated() -> None:
    """There is no line between one point; its copies are exact."""
    features, labels = np.array([[1.0, 2], [3, 4], [5, 6], [9, 9]]), np.array([0, 0, 0, 1])
    x, y = smote(features, labels, 5, np.random.default_rng(0))
    assert x[4:].tolist() == [[9, 9], [9, 9]]
    assert y[4:].tolist() == [1, 1]


def test_smote_keeps_the_dtype_and_adds_nothing_to_level_classes() -> None:
    """float32 stays float32; equal classes come back as they are."""
    features, labels = np.zeros((4, 2), np.float32), np.array([0, 0, 1, 1])
    x, y = smote(features, labels, 3, np.random.default_rng(0))
    assert x.dtype == np.float32
    assert np.array_equal(x, features)
    assert np.array_equal(y, labels)


@pytest.mark.parametrize(
    ("features", "k", "match"),
    [
        (np.zeros((3, 2)), 0, "k is 0"),
        (np.zeros((2, 2)), 1, "features"),
        (np.zeros(3), 1, "features"),
        (np.array([[0.0], [np.nan], [1]]), 1, "finite"),
        (np.zeros((3, 2), int), 1, "floats"),
    ],
)
def test_features_that_cannot_be_blended_are_refused(features: NDArray[np.float64], k: int, match: str) -> None:
    """Finite floats, a row for each label, at least one neighbour."""
    with pytest.raises(ValueError, match=match):
        smote(features, np.array([0, 0, 1]), k, np.random.default_rng(0))


@given(seed=st.integers(0, 2**31), n=st.integers(2, 40), offset=st.sampled_from([0.0, 1e6]))
def test_neighbours_are_those_of_scikit_learn(seed: int, n: int, offset: float) -> None:
    """Nearest first, however far from the origin the class lies."""
    x = np.random.default_rng(seed).normal(size=(n, 3)) + offset
    k = min(5, n - 1)
    expected = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(x - offset).kneighbors(return_distance=False)
    assert np.array_equal(nearest(x, k), expected)


def test_the_resampling_functions_need_no_torch() -> None:
    """`import trainer.data` stays light enough for tools that only prepare data."""
    check = "import sys, trainer.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
