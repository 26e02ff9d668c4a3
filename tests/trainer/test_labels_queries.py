"""What to label next: rankings, coverage, quotas and the audit."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.label_trials import Digits, labels_needed
from trainer.labels import k_centre, rank_queries, select_queries

MATRIX = st.integers(0, 10**6).map(lambda seed: np.random.default_rng(seed).normal(size=(9, 2)))


def radius(x: np.ndarray, centres: np.ndarray) -> float:
    """The largest distance of any row to its nearest centre."""
    return float(np.linalg.norm(x[:, None] - x[centres][None], axis=2).min(axis=1).max())


def test_queries_are_ranked_with_ties_by_index() -> None:
    """Least certain first; equal rows keep their order; the three strategies differ where they should."""
    p = np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.4, 0.3, 0.3], [0.5, 0.5, 0.0]])
    assert rank_queries(p, "margin").tolist() == [1, 3, 2, 0]
    assert rank_queries(p, "least_confident").tolist() == [2, 1, 3, 0]
    assert rank_queries(p, "entropy").tolist() == [2, 1, 3, 0]


@given(st.lists(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), min_size=1, max_size=20))
def test_every_strategy_returns_a_permutation(rows: list[list[float]]) -> None:
    """All rows are ranked, each once."""
    p = np.array(rows) / np.sum(rows, axis=1, keepdims=True)
    for strategy in ("margin", "least_confident", "entropy"):
        assert sorted(rank_queries(p, strategy).tolist()) == list(range(len(p)))


def test_probabilities_that_do_not_sum_to_one_are_refused() -> None:
    """The row is named; so is an unknown strategy."""
    with pytest.raises(ValueError, match="row 1"):
        rank_queries([[0.5, 0.5], [0.5, 0.6]], "margin")
    with pytest.raises(ValueError, match="guess"):
        rank_queries([[0.5, 0.5]], "guess")


@settings(max_examples=40)
@given(x=MATRIX, count=st.integers(1, 4))
def test_k_centre_covers_within_twice_the_optimum(x: np.ndarray, count: int) -> None:
    """Gonzalez' bound, against every possible choice; the first centre does not matter for it."""
    chosen = k_centre(x, count)
    assert len(set(chosen.tolist())) == count
    optimum = min(radius(x, np.array(centres)) for centres in combinations(range(len(x)), count))
    assert radius(x, chosen) <= 2 * optimum + 1e-9


def test_k_centre_looks_away_from_what_is_labelled() -> None:
    """The farthest row first, ties by index, equal rows too are each chosen once."""
    x = np.array([[0.0], [1.0], [10.0], [10.0], [5.0]])
    assert k_centre(x, 5, labelled=[[0.0]]).tolist() == [2, 4, 1, 0, 3]
    assert k_centre(x, 0).tolist() == []


@pytest.mark.parametrize("options", [{"count": 4}, {"count": 1, "labelled": [[1.0, 2.0]]}, {"count": -1}])
def test_k_centre_refuses_what_does_not_fit(options: dict[str, object]) -> None:
    """More rows than there are, other features, a negative count."""
    with pytest.raises(ValueError):
        k_centre([[0.0], [1.0], [2.0]], **options)  # type: ignore[arg-type]


@given(n=st.integers(1, 60), data=st.data(), share=st.floats(0.01, 1.0))
def test_some_are_always_drawn_by_lot(n: int, data: st.DataObject, share: float) -> None:
    """Exactly as many as asked, all distinct, at least one for the audit, and its share rounded up."""
    count = data.draw(st.integers(1, n))
    chosen = select_queries(np.arange(n), count, audit_share=share)
    assert len(set(chosen.rows.tolist())) == len(chosen.rows) == count
    assert chosen.reasons.count("audit") == max(1, int(np.ceil(share * count - 1e-9)))


def test_the_audit_is_drawn_evenly_and_changes_with_the_seed() -> None:
    """Every row has its chance, also the ones the model is surest of; the same seed draws the same."""
    drawn = np.zeros(20)
    for seed in range(2000):
        chosen = select_queries(np.arange(20), 5, audit_share=0.2, seed=seed)
        drawn[chosen.rows[-1]] += 1
    assert drawn.min() > 60  # of 100 expected
    assert drawn.max() < 150
    first, again = (select_queries(np.arange(20), 5, seed=3).rows.tolist() for _ in range(2))
    assert first == again


def test_the_rest_follows_the_ranking() -> None:
    """In its order, without those drawn by lot."""
    order = np.arange(30)[::-1]
    chosen = select_queries(order, 10, audit_share=0.1, seed=1)
    audit = chosen.rows[-1]
    assert chosen.rows[:9].tolist() == [row for row in order if row != audit][:9]
    assert chosen.reasons == ("strategy",) * 9 + ("audit",)


def test_a_quota_goes_to_rare_classes_in_turn() -> None:
    """The rows most probably of class 2 and of class 3, alternating."""
    p = np.full((20, 4), 0.0)
    p[:, 0] = 1.0
    p[3], p[4], p[5] = [0.1, 0, 0.9, 0], [0.2, 0, 0, 0.8], [0.3, 0, 0.7, 0]
    wanted = {"rare": (2, 3), "rare_share": 0.3, "audit_share": 0.1, "probabilities": p}
    seed = next(
        s for s in range(50) if not {3, 4, 5} & set(select_queries(np.arange(20), 10, seed=s, **wanted).rows[-1:])
    )
    chosen = select_queries(np.arange(20), 10, seed=seed, **wanted)
    quota = [row for row, reason in zip(chosen.rows.tolist(), chosen.reasons, strict=True) if reason == "rare"]
    assert quota == [3, 4, 5]
    assert len(set(chosen.rows.tolist())) == 10


@pytest.mark.parametrize(
    "options",
    [
        {"count": 0},
        {"count": 9},
        {"count": 2, "audit_share": 0.0},
        {"count": 2, "audit_share": 0.6, "rare_share": 0.6},
        {"count": 4, "rare_share": 0.5},
    ],
)
def test_impossible_selections_are_refused(options: dict[str, float]) -> None:
    """No audit is not on offer; nor more rows than there are, nor a quota without classes."""
    with pytest.raises(ValueError):
        select_queries(np.arange(5), **options)  # type: ignore[arg-type]


def test_margin_sampling_saves_labels_on_digits() -> None:
    """93 % accuracy with at least a quarter fewer labels than at random (mean of a few seeds)."""
    pytest.importorskip("sklearn")
    digits = Digits.load()
    pairs = [(labels_needed(digits, "margin", seed), labels_needed(digits, None, seed)) for seed in range(3)]
    margin, random = np.mean(pairs, axis=0)
    assert margin <= 0.75 * random
