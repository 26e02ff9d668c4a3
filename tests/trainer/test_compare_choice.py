"""The nested choice: what it looks at, and what it takes where a fold is too small to say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from calibration.metrics import softmax
from calibration.risk import mean_escape
from tests.trainer.test_compare_statistics import LABELS, TRUTH, outcomes
from trainer.compare.calls import called
from trainer.compare.choice import chosen_by_validation, selection_score
from trainer.compare.statistics import levels, pool


def test_the_choice_sees_the_validation_fold_alone() -> None:
    """A recipe that is best in validation and worst in test is chosen, and its test figures are the ones that count."""
    honest, lucky = outcomes(1.0), outcomes(3.0, noise=3)
    rng = np.random.default_rng(0)
    useless = [replace(o, test_logits=rng.normal(size=o.test_logits.shape)) for o in lucky]
    chosen, names = chosen_by_validation({"useless": useless, "honest": honest}, TRUTH, 0.1)
    assert names == ["useless"] * 10
    assert levels(pool(chosen, TRUTH), TRUTH, 0.1, 20)["balanced_accuracy"].value < 0.5


def test_of_recipes_that_a_fold_cannot_tell_apart_the_last_is_taken() -> None:
    """Equally skilled ones: the more standard errors are allowed, the more the order decides and the less chance."""
    rivals = {name: outcomes(2.0, noise=noise) for noise, name in enumerate(("first", "second", "last"))}
    place = list(rivals).index
    hasty, careful, deaf = (
        [place(name) for name in chosen_by_validation(rivals, TRUTH, 0.1, errors)[1]] for errors in (0, 1, 100)
    )
    assert all(a <= b for a, b in zip(hasty, careful, strict=True))
    assert sum(hasty) < sum(careful) < sum(deaf)
    assert deaf == [2] * 10


def test_the_same_answers_differ_by_no_standard_error() -> None:
    """A copy of the best is as good as the best, and one that is blind to a class is not."""
    best = outcomes(3.0)
    blind = [replace(o, val_logits=np.where(np.arange(3) == 2, -9.0, o.val_logits)) for o in best]
    assert chosen_by_validation({"best": best, "copy": list(best)}, TRUTH, 0.1)[1] == ["copy"] * 10
    assert chosen_by_validation({"best": best, "blind": blind}, TRUTH, 0.1)[1] == ["best"] * 10


def test_the_selection_score_is_the_mean_of_balanced_accuracy_and_caught_defects() -> None:
    """Balanced accuracy alone where there is no defect."""
    outcome = outcomes(1.0)[0]
    y, p = LABELS[outcome.val], softmax(outcome.val_logits)
    calls = called(p, 0.5, 0)
    wanted = (balanced_accuracy_score(y, calls) + 1 - mean_escape(1 - p[:, 0], y != 0, 0.2)) / 2
    assert selection_score(p, calls, y, TRUTH, 0.1) == pytest.approx(wanted)
    good = y == 0
    alone = selection_score(p[good], calls[good], y[good], TRUTH, 0.1)
    assert alone == pytest.approx(float((calls[good] == 0).mean()))
