"""Figures of a run from its recorded scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.errors import InputError
from calibration.scores import Scores
from trainer.evaluate import evaluate_run, report


def scores(n: int, classes: tuple[str, ...] = ("crack", "ok"), noise: float = 1.0, seed: int = 0) -> Scores:
    """Logits that favour the true class by 2, with noise; two rows of each part."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(classes), n)
    logits = 2 * np.eye(len(classes))[labels] + noise * rng.normal(size=(n, len(classes)))
    names = tuple(f"{i}.png" for i in range(n))
    groups = tuple(str(i // 2) for i in range(n))
    return Scores(classes, "ok", names, groups, labels, logits.astype(np.float32))


def test_a_perfect_model_has_perfect_figures() -> None:
    """No mistakes: every rate is 1, nothing escapes."""
    result = report(scores(60, noise=0.0), 1.0, draws=20)
    assert (result.accuracy, result.auroc, result.macro_f1, result.binary_accuracy) == (1, 1, 1, 1)
    assert result.escape == 0
    assert set(result.per_class.values()) == {1.0}


def test_temperature_changes_trust_but_no_verdict() -> None:
    """Accuracy, AUROC and escapes stay to the last sample; calibration error moves."""
    some = scores(400)
    one, two = report(some, 1.0, draws=10), report(some, 4.0, draws=10)
    assert (one.accuracy, one.auroc, one.escape) == (two.accuracy, two.auroc, two.escape)
    assert one.ece != two.ece
    assert one.ece == one.ece_before == two.ece_before


def test_confusing_two_defects_is_no_escape() -> None:
    """Over classes a mistake, against OK none."""
    some = scores(60, ("crack", "ok", "pit"), noise=0.0)
    swapped = Scores(some.classes, "ok", some.paths, some.groups, some.labels, some.logits[:, [2, 1, 0]])
    result = report(swapped, 1.0, draws=10)
    assert result.accuracy < 1
    assert result.binary_accuracy == 1
    assert result.escape == 0


def test_intervals_contain_the_figure() -> None:
    """Bootstrap over groups brackets accuracy, AUROC and escape rate."""
    result = report(scores(300, noise=1.5), 1.0, draws=100)
    for figure, interval in (
        (result.accuracy, result.accuracy_interval),
        (result.auroc, result.auroc_interval),
        (result.escape, result.escape_interval),
    ):
        assert interval.low <= figure <= interval.high


@pytest.mark.parametrize(("variant", "folder", "middle"), [(None, "", ""), ("cpu", "export", "cpu.")])
def test_a_run_is_judged_by_the_temperature_of_its_validation(
    tmp_path: Path, variant: str | None, folder: str, middle: str
) -> None:
    """The net's own scores, or those of an exported variant; never a temperature from test data."""
    for seed, split in enumerate(("val", "test")):
        scores(300, seed=seed).write(tmp_path / folder / f"scores.{middle}{split}.csv")
    result = evaluate_run(tmp_path, variant, draws=10)
    assert result.test == report(scores(300, seed=1), result.temperature, draws=10)


def test_a_run_without_scores_says_what_to_do(tmp_path: Path) -> None:
    """The message names the file and the command."""
    with pytest.raises(InputError, match=r"scores\.val\.csv: no scores here; run `trainer train`"):
        evaluate_run(tmp_path)
