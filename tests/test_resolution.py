"""What the benchmark of input sizes counts as an escape."""

from __future__ import annotations

import numpy as np

from benchmarks.resolution import passed
from calibration.risk import escape_at_overkill
from calibration.scores import Scores


def test_a_defect_passes_that_scores_no_higher_than_nine_tenths_of_the_good_parts() -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], [40, 20])
    logit = rng.normal(labels * 1.5, 1.0)
    names = [f"{i}.png" for i in range(60)]
    logits = np.stack([np.zeros(60), logit], axis=1).astype(np.float32)
    scores = Scores(("ok", "scratch"), "ok", tuple(names), tuple(names), labels, logits)
    probability = 1 / (1 + np.exp(-logit))
    found = passed(scores)
    assert found.shape == (20,)
    assert 0 < found.mean() < 1
    assert found.mean() == escape_at_overkill(probability, labels == 1, 0.10)
