"""The decision rule: three answers, NaN never a good one, and a JSON form that gives the same rule back."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from calibration.decision import Decision, DecisionRule

ADAPTER = TypeAdapter(DecisionRule)


def rule(**changes: Any) -> DecisionRule:
    """A rule of three classes."""
    values: dict[str, Any] = {
        "classes": ("crack", "ok", "dent"),
        "ok_class": "ok",
        "temperature": 2.0,
        "ok_below": 0.2,
        "defect_above": 0.6,
        "model_sha256": "a" * 64,
        "preprocess_sha256": "b" * 64,
    }
    return DecisionRule(**{**values, **changes})


def logits_for(defect: float) -> list[list[float]]:
    """Logits that give this defect probability, both defects alike."""
    return [[2 * math.log(defect / 2), 2 * math.log(1 - defect), 2 * math.log(defect / 2)]]


@pytest.mark.parametrize(
    ("defect", "decision"),
    [
        (0.1, Decision.OK),
        (0.19, Decision.OK),
        (0.21, Decision.UNSURE),
        (0.59, Decision.UNSURE),
        (0.61, Decision.DEFECT),
    ],
)
def test_the_sum_of_the_defects_decides(defect: float, decision: Decision) -> None:
    """Two kinds of defect at 31 % each are a defect, though OK is the likeliest class."""
    assert rule().defect_probability(logits_for(defect))[0] == pytest.approx(defect)
    assert rule().decide(logits_for(defect)) == [decision]


def test_the_thresholds_belong_to_their_sides() -> None:
    """<= and >=."""
    assert rule().decide_probability(0.2) is Decision.OK
    assert rule().decide_probability(0.6) is Decision.DEFECT


@given(st.lists(st.lists(st.floats(), min_size=3, max_size=3), min_size=1, max_size=8))
def test_a_row_that_is_not_finite_is_unsure(rows: list[list[float]]) -> None:
    """Whatever its other logits say; and no row changes its neighbour."""
    decisions = rule().decide(rows)
    assert len(decisions) == len(rows)
    for row, decision in zip(rows, decisions, strict=True):
        if not all(math.isfinite(value) for value in row):
            assert decision is Decision.UNSURE
        assert [decision] == rule().decide([row])


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3))
def test_probabilities_are_probabilities(row: list[float]) -> None:
    """Sum one, defect probability within 0..1, the likeliest class unchanged by the temperature."""
    p = rule().probabilities([row])
    assert p.sum() == pytest.approx(1)
    assert 0 <= rule().defect_probability([row])[0] <= 1
    assert p[0][int(np.argmax(row))] == p.max()


def test_nan_is_never_ok() -> None:
    """Neither as a logit nor as a probability."""
    assert rule().decide_probability(math.nan) is Decision.UNSURE
    assert rule(ok_below=0.9999, defect_above=1.0).decide([[math.nan, 50, 0]]) == [Decision.UNSURE]


@pytest.mark.parametrize("logits", [[[1.0, 2.0]], [1.0, 2.0, 3.0], [[[1.0, 2.0, 3.0]]], [[1.0] * 4]])
def test_logits_of_another_shape_are_refused(logits: Any) -> None:
    """Not cut or padded."""
    with pytest.raises(ValueError, match=r"expected \(n, 3\)"):
        rule().decide(logits)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ok_below": math.nan}, "ok_below is nan"),
        ({"defect_above": math.nan}, "defect_above nan"),
        ({"ok_below": -1}, "ok_below is -1"),
        ({"defect_above": 2}, "defect_above 2"),
        ({"ok_below": 0.6}, "must hold"),
        ({"ok_below": 0.7}, "must hold"),
        ({"temperature": 0.0}, "temperature is 0"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"ok_class": "fine"}, "'fine' is none of the classes"),
        ({"classes": ("ok",)}, "at least two"),
        ({"classes": ("ok", "ok", "dent")}, "different names"),
    ],
)
def test_a_rule_that_makes_no_sense_cannot_be_made(changes: dict[str, Any], told: str) -> None:
    """Not in code, and not from a manifest."""
    with pytest.raises(ValueError, match=told):
        rule(**changes)
    with pytest.raises(ValidationError):
        ADAPTER.validate_json(json.dumps({**rule().to_json(), **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"ok_below": "0.2"},
        {"ok_below": "0,2"},
        {"ok_below": None},
        {"ok_below": True},
        {"margin": 1},
        {"classes": "ok"},
    ],
)
def test_a_rule_of_wrong_types_is_refused(changes: dict[str, Any]) -> None:
    """Text and truth values are no thresholds; unknown fields are not ignored."""
    with pytest.raises(ValidationError):
        ADAPTER.validate_json(json.dumps({**rule().to_json(), **changes}))


@given(
    low=st.floats(0, 1),
    high=st.floats(0, 1),
    temperature=st.floats(1e-3, 1e3),
)
def test_a_rule_survives_json(low: float, high: float, temperature: float) -> None:
    """Every float to the last bit."""
    if low == high:
        return
    made = rule(ok_below=min(low, high), defect_above=max(low, high), temperature=temperature)
    assert ADAPTER.validate_json(json.dumps(made.to_json())) == made
    assert ADAPTER.validate_json(ADAPTER.dump_json(made)) == made


def test_a_rule_cannot_be_changed() -> None:
    """Only replaced."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule().ok_below = 0.5  # type: ignore[misc]
