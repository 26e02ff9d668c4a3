"""Where good ends: the offset of the good class, against what it must do and a general optimiser."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from calibration.metrics import softmax
from trainer.compare.calls import WIDEST, called, ok_offset

LABELS = np.array([0] * 60 + [1] * 8 + [2] * 4)


def _probabilities(seed: int, bias: float = 0.0) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Of three classes, the first good; its logit is too high by `bias`."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * np.eye(3)[LABELS] + rng.normal(size=(len(LABELS), 3))
    return np.asarray(softmax(logits + bias * np.eye(3)[0]))


@given(st.integers(0, 1000))
def test_the_offset_minimises_the_likelihood_with_classes_counted_alike(seed: int) -> None:
    """As scipy's bounded search finds it."""
    p = _probabilities(seed)

    def loss(offset: float) -> float:
        z = np.log(p) + offset * np.eye(3)[0]
        each = np.log(np.exp(z).sum(1)) - z[np.arange(len(LABELS)), LABELS]
        return float(np.mean([each[label == LABELS].mean() for label in range(3)]))

    found = minimize_scalar(loss, bounds=(-WIDEST, WIDEST), method="bounded", options={"xatol": 1e-9})
    assert ok_offset(p, LABELS, 0) == pytest.approx(found.x, abs=1e-3)


@given(st.integers(0, 100), st.floats(-5, 5))
def test_a_bias_of_the_good_class_is_taken_out(seed: int, bias: float) -> None:
    """Whatever was added to its logit, the calls are the same."""
    plain, biased = _probabilities(seed), _probabilities(seed, bias)
    assert ok_offset(biased, LABELS, 0) == pytest.approx(ok_offset(plain, LABELS, 0) - bias, abs=1e-6)
    calls = [called(p, ok_offset(p, LABELS, 0), 0) for p in (plain, biased)]
    assert np.array_equal(*calls)


def test_a_model_that_calls_defects_good_calls_them_defects() -> None:
    """Half of the defects had been called good; afterwards few are, and the order of defect classes stays."""
    p = _probabilities(1, bias=3.0)
    calls = called(p, ok_offset(p, LABELS, 0), 0)
    defects = LABELS != 0
    assert (p[defects].argmax(1) == 0).mean() > 0.5
    assert (calls[defects] == 0).mean() < 0.3
    bad = calls != 0
    assert np.array_equal(calls[bad], 1 + p[bad, 1:].argmax(1))


@pytest.mark.parametrize("labels", [np.zeros(72, np.int64), np.ones(72, np.int64), np.array([1, 2] * 36)])
def test_without_good_parts_or_without_defects_nothing_is_shifted(
    labels: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> None:
    """There is nothing to fit."""
    assert ok_offset(_probabilities(0), labels, 0) == 0.0


def test_certainty_is_no_error() -> None:
    """Probabilities of 0 and 1, as float64 rounds them."""
    p = np.eye(3)[LABELS]
    assert np.array_equal(called(p, ok_offset(p, LABELS, 0), 0), LABELS)
    assert abs(ok_offset(np.roll(p, 1, axis=1), LABELS, 0)) <= WIDEST
