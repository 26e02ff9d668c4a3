"""Vector scaling: the minimum of its convex problem, never worse than the temperature, finite where it has to be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import optimize, special

from calibration.metrics import nll, softmax
from calibration.temperature import fit_temperature, plausible
from calibration.vector_scaling import VectorScaling, fit_vector_scaling

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def scores(seed: int, n: int, classes: int, scale: object = 3.0, offset: object = 0.0) -> tuple[Floats, Ints]:
    """Logits with labels drawn from softmax(scale * logits + offset)."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.5, (n, classes))
    p = softmax(z * np.asarray(scale) + np.asarray(offset))
    return z, (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=classes - 1)


@settings(max_examples=40, deadline=None)
@example(seed=11221, n=3, classes=3, sharpness=1.0)  # one row of three is implausible
@given(seed=st.integers(0, 2**31), n=st.integers(2, 120), classes=st.integers(2, 6), sharpness=st.floats(0.2, 5))
def test_it_never_fits_worse_than_the_temperature(seed: int, n: int, classes: int, sharpness: float) -> None:
    """On the rows it was fitted on, few of them and classes without any included; rows of an implausible range are
    not among them."""
    z, y = scores(seed, n, classes, 1 / sharpness)
    fitted = fit_vector_scaling(z, y)
    z, y = plausible(z, y)
    assert nll(fitted.probabilities(z), y) <= nll(softmax(z / fit_temperature(z, y)), y) + 1e-12


@pytest.mark.parametrize("classes", [2, 4])
def test_it_is_the_minimum_that_scipy_finds(classes: int) -> None:
    """The same objective handed to BFGS from another start."""
    z, y = scores(1, 150, classes, 0.5, np.arange(classes) / 2)
    t = fit_temperature(z, y)

    def objective(x: Floats) -> float:
        a, b = x[:classes], x[classes:]
        log_p = special.log_softmax(a * z / t + b, axis=1)
        return float(-log_p[np.arange(len(y)), y].sum() + ((a - 1) ** 2).sum() / 2 + (b**2).sum() / 2)

    best = optimize.minimize(objective, np.full(2 * classes, 0.3), tol=1e-10).x
    fitted = fit_vector_scaling(z, y)
    np.testing.assert_allclose(fitted.scale * t, best[:classes], atol=1e-4)
    np.testing.assert_allclose(fitted.offset, best[classes:], atol=1e-4)


def test_known_scales_and_offsets_are_found() -> None:
    """From 40,000 rows, offsets up to the constant that softmax does not see."""
    scale, offset = np.array([0.5, 1.0, 0.7]), np.array([0.8, 0.0, -0.8])
    z, y = scores(2, 40_000, 3, scale, offset)
    fitted = fit_vector_scaling(z, y)
    np.testing.assert_allclose(fitted.scale, scale, atol=0.03)
    np.testing.assert_allclose(fitted.offset - fitted.offset.mean(), offset, atol=0.04)


def test_separable_classes_and_classes_without_parts_stay_finite() -> None:
    """The likelihood alone has no minimum there."""
    z, _ = scores(3, 50, 3)
    for y in (z.argmax(axis=1), np.zeros(50, np.int64), z[:, :2].argmax(axis=1)):
        fitted = fit_vector_scaling(z, y)
        assert np.isfinite([fitted.scale, fitted.offset]).all()
        assert np.abs(fitted.offset).max() < 10


def test_one_wrong_logit_does_not_move_it() -> None:
    """The row is as implausible to it as to the temperature."""
    z, y = scores(4, 200, 3)
    plain, extra = fit_vector_scaling(z, y), fit_vector_scaling(np.vstack([z, [1e6, 0, 0]]), np.append(y, 1))
    np.testing.assert_allclose(extra.scale, plain.scale, rtol=1e-9)
    np.testing.assert_allclose(extra.offset, plain.offset, rtol=1e-9)


def test_the_unit_of_the_logits_does_not_matter() -> None:
    """Ten times the logits: a tenth of the scale, the same probabilities."""
    z, y = scores(5, 300, 3)
    p, q = fit_vector_scaling(z, y).probabilities(z), fit_vector_scaling(10 * z, y).probabilities(10 * z)
    np.testing.assert_allclose(p, q, atol=1e-6)


def test_huge_logits_are_no_obstacle() -> None:
    """Nothing overflows, and a second fit is the same."""
    z, y = scores(6, 100, 3)
    fitted = fit_vector_scaling(z * 1e6, y)
    assert np.isfinite(fitted.probabilities(z * 1e6)).all()
    assert np.array_equal(fitted.scale, fit_vector_scaling(z * 1e6, y).scale)


@pytest.mark.parametrize(
    ("logits", "labels", "told"),
    [([[0.0, np.nan]], [0], "not finite"), (np.zeros((0, 2)), [], "no samples"), ([[0.0, 1.0]], [2], "outside")],
)
def test_unusable_scores_are_refused(logits: object, labels: object, told: str) -> None:
    """As by the temperature."""
    with pytest.raises(ValueError, match=told):
        fit_vector_scaling(logits, labels)  # type: ignore[arg-type]


def test_another_number_of_classes_is_refused() -> None:
    """Two scales do not fit three logits."""
    with pytest.raises(ValueError, match=r"expected \(n, 2\)"):
        VectorScaling(np.ones(2), np.zeros(2)).probabilities(np.zeros((4, 3)))
