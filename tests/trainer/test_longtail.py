"""The long-tail benchmark, small: its tail is one, and logit adjustment is worth what the documents say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp
from torch.nn.functional import cross_entropy

from benchmarks.longtail import CLASSES, FEW_SHOT, Row, long_tail, markdown, paired, trained
from calibration.values import Interval
from trainer.losses import adjust_logits, logit_adjusted_loss


def test_the_tail_is_one_to_a_hundred_and_the_test_set_level_and_apart() -> None:
    """100 images down to 1, another digit rare with another seed; no test image is learned from."""
    problem, other = long_tail(0), long_tail(1)
    assert sorted(problem.counts.tolist()) == [1, 2, 3, 5, 8, 13, 22, 36, 60, 100]
    assert np.bincount(problem.train_y).tolist() == problem.counts.tolist() != other.counts.tolist()
    assert np.bincount(problem.test_y).tolist() == [60] * CLASSES
    seen = {picture.numpy().tobytes() for picture in problem.train_x}
    assert not any(picture.numpy().tobytes() in seen for picture in problem.test_x)


def test_logit_adjustment_lifts_the_rare_classes_in_the_loss_and_post_hoc() -> None:
    """At least 12 points of recall of the rare classes over cross-entropy, mean of two seeds."""
    gains = []
    for seed in (0, 1):
        problem = long_tail(seed)
        rare = problem.counts[problem.test_y] < FEW_SHOT
        plain = trained(problem, cross_entropy, seed)
        adjusted = trained(problem, lambda z, y, n=problem.counts: logit_adjusted_loss(z, y, n, 1.0), seed)  # type: ignore[misc]
        with torch.no_grad():
            logits = (plain(problem.test_x), adjusted(problem.test_x))
        answers = (logits[0], logits[1], adjust_logits(logits[0], problem.counts, 1.0))
        recall = [float((z.argmax(1).numpy() == problem.test_y)[rare].mean()) for z in answers]
        gains.append([recall[1] - recall[0], recall[2] - recall[0]])
    assert (np.mean(gains, axis=0) >= 0.12).all()


def test_paired_intervals_are_students() -> None:
    """Equal to SciPy's t interval of the differences."""
    differences = np.array([0.1, 0.2, 0.15, 0.4])
    interval, expected = paired(differences), ttest_1samp(differences, 0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_the_table_has_a_line_for_each_technique() -> None:
    """Percent and points; the baseline has no difference to itself."""
    rows = [Row(name, 0.7, 0.5, 0.9, Interval(0.1, 0.05, 0.15), Interval(0.2, 0.1, 0.3)) for name in ("a", "b")]
    assert markdown(rows, 3).splitlines()[-2:] == [
        "| a | 70.0 | 50.0 | 90.0 |  |  |",
        "| b | 70.0 | 50.0 | 90.0 | +10.0 [+5.0, +15.0] | +20.0 [+10.0, +30.0] |",
    ]
