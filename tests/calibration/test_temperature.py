"""Temperature scaling: the least-NLL temperature, unmoved by broken rows, and harmless to every ranking."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.metrics import ece, nll, softmax
from calibration.temperature import LEAST, MOST, fit_temperature

Floats = NDArray[np.float64]


def scores(seed: int, n: int = 500, classes: int = 3, sharpness: float = 3.0) -> tuple[Floats, NDArray[np.int64]]:
    """Logits `sharpness` times too confident, with labels drawn from the honest probabilities."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(0, 1.5, (n, classes))
    labels = np.array([rng.choice(classes, p=p) for p in softmax(honest)])
    return honest * sharpness, labels


def brute_force(z: Floats, y: NDArray[np.int64]) -> float:
    """The best temperature of a fine grid."""
    grid = np.exp(np.linspace(np.log(0.05), np.log(20), 4000))
    return float(grid[np.argmin([nll(softmax(z / t), y) for t in grid])])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("classes", [2, 5])
def test_it_is_the_temperature_of_least_nll(seed: int, classes: int) -> None:
    """Against trying every temperature."""
    z, y = scores(seed, 200, classes)
    assert fit_temperature(z, y) == pytest.approx(brute_force(z, y), rel=2e-3)


def test_the_known_temperature_is_found() -> None:
    """Logits made three times too sharp: T is 3, and the calibration error falls to its noise."""
    z, y = scores(0, 20_000, sharpness=3.0)
    t = fit_temperature(z, y)
    assert t == pytest.approx(3.0, rel=0.05)
    assert ece(softmax(z / t), y) < 0.2 * ece(softmax(z), y)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.1, 10))
def test_scaling_the_logits_scales_the_temperature(seed: int, scale: float) -> None:
    """So that probabilities do not depend on the network's units."""
    z, y = scores(seed, 60)
    assert fit_temperature(z * scale, y) == pytest.approx(scale * fit_temperature(z, y), rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), shift=st.floats(-1e3, 1e3))
def test_a_shift_of_all_logits_of_a_row_changes_nothing(seed: int, shift: float) -> None:
    """Softmax does not see it."""
    z, y = scores(seed, 60)
    rows = np.random.default_rng(seed).normal(0, 1, (60, 1)) * shift
    assert fit_temperature(z + rows, y) == pytest.approx(fit_temperature(z, y), rel=1e-6)


@pytest.mark.parametrize("value", [1e4, -1e4, 1e30])
@pytest.mark.parametrize("where", range(3))
@pytest.mark.parametrize("n", [30, 500])
def test_one_wrong_logit_does_not_move_it(value: float, where: int, n: int) -> None:
    """Added as a further row: not at all. Put in place of a good logit: no more than that row's own weight."""
    z, y = scores(1, n)
    t = fit_temperature(z, y)
    extra = np.vstack([z, np.eye(3)[where] * value])
    assert fit_temperature(extra, np.append(y, 0)) == pytest.approx(t, rel=1e-9)
    spoilt = z.copy()
    spoilt[7, where] = value
    assert fit_temperature(spoilt, y) == pytest.approx(t, rel=10 / n)


def test_dividing_by_it_keeps_every_decision() -> None:
    """Accuracy is unchanged to the last sample."""
    z, y = scores(2)
    t = fit_temperature(z, y)
    assert np.array_equal((z / t).argmax(axis=1), z.argmax(axis=1))


def test_a_perfect_set_gives_a_finite_temperature() -> None:
    """Where every row is right the likelihood has no minimum; the smoothed targets have one."""
    z, _ = scores(3)
    t = fit_temperature(z, z.argmax(axis=1))
    assert LEAST < t < 10
    assert np.isfinite(nll(softmax(z / t), z.argmax(axis=1)))


def test_a_set_that_is_all_wrong_gives_the_bound() -> None:
    """Less and less confidence is better and better."""
    z, _ = scores(4, classes=2)
    assert fit_temperature(z, 1 - z.argmax(axis=1)) == pytest.approx(MOST)


def test_temperatures_keep_within_their_bounds() -> None:
    """However sharp or flat the logits."""
    z, y = scores(5)
    assert fit_temperature(z * 1e-9, y) == pytest.approx(LEAST)
    assert fit_temperature(z * 1e9, y) == pytest.approx(MOST)


def test_logits_that_say_nothing_give_one() -> None:
    """All equal: no temperature is better than another."""
    assert fit_temperature(np.zeros((5, 3)), [0, 1, 2, 0, 1]) == 1.0


def test_rows_that_speak_count_though_most_say_nothing() -> None:
    """A model that gives constant logits to most parts."""
    z, y = scores(6, 100)
    silent = np.zeros((150, 3))
    t = fit_temperature(np.vstack([z, silent]), np.append(y, np.zeros(150, int)))
    assert t == pytest.approx(fit_temperature(z, y), rel=0.01)


def test_one_row_is_enough() -> None:
    """Not that it says much."""
    assert LEAST <= fit_temperature([[2.0, 0.0]], [1]) <= MOST


@pytest.mark.parametrize(
    ("logits", "labels", "told"),
    [
        ([[0.0, np.nan]], [0], "1 rows hold values that are not finite"),
        ([[0.0, np.inf]], [0], "not finite"),
        (np.zeros((0, 2)), [], "no samples"),
        ([[0.0, 1.0]], [2], r"labels 2\.\.2 are outside 0\.\.1"),
        ([[0.0, 1.0]], [-1], "outside"),
        ([[0.0, 1.0]], [0.5], "not whole numbers"),
        ([[0.0, 1.0]], [0, 1], "are not"),
        ([[0.0]], [0], "are not"),
        ([0.0, 1.0], [0, 1], "are not"),
    ],
)
def test_unusable_scores_are_refused(logits: object, labels: object, told: str) -> None:
    """NaN, no rows, labels out of range, shapes that do not agree."""
    with pytest.raises(ValueError, match=told):
        fit_temperature(logits, labels)  # type: ignore[arg-type]
