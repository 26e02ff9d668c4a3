"""`calibration bound`: the thresholds of the library, what they cost, and refusals that name the number needed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from calibration.bound import bound_report
from calibration.cli import cli
from calibration.conformal import confident_escape_bound, escape_bound
from calibration.metrics import softmax
from calibration.scores import Scores


def scores(defects: int, good: int = 200, shots: int = 1, seed: int = 0) -> Scores:
    """`shots` images of each part; defects score higher."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [defects, good])
    lean = rng.normal(np.where(labels == 1, 2.0, -2.0), 1.0)
    labels, lean = np.repeat(labels, shots), np.repeat(lean, shots) + rng.normal(0, 0.1, shots * (defects + good))
    names = tuple(str(i) for i in range(len(labels)))
    groups = tuple(f"part-{i // shots}" for i in range(len(labels)))
    logits = np.stack([-lean, lean], axis=1).astype(np.float32)
    return Scores(("ok", "crack"), "ok", names, groups, labels.astype(np.int64), logits)


def run(*arguments: object) -> Result:
    """Run `calibration`."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_it_tells_the_thresholds_of_the_library_and_what_they_cost(tmp_path: Path) -> None:
    """Counted again on the same parts."""
    made, path = scores(400), tmp_path / "s.csv"
    made.write(path)
    told = json.loads(run("bound", path, "--alpha", 0.02, "--json").stdout)
    p, defect = softmax(made.logits)[:, 1], made.is_defect
    for kind, bound in (("expected", escape_bound(p, defect, 0.02)), ("confident", confident_escape_bound(p, defect, 0.02))):  # fmt: skip  # noqa: E501
        assert told[kind]["bound"]["threshold"] == bound.threshold
        assert told[kind]["passed"] == (p[defect] <= bound.threshold).sum() == bound.allowed
        assert told[kind]["overkill"]["value"] == pytest.approx((p[~defect] > bound.threshold).mean())
    assert (told["parts"], told["defects"], told["needed_confidently"]) == (600, 400, 149)
    text = " ".join(run("bound", path, "--alpha", 0.02).stdout.split())
    assert "400 defects among 600 parts" in text
    assert f"{told['expected']['bound']['threshold']:.6g}" in text


def test_thirty_defects_cannot_promise_half_a_percent(tmp_path: Path) -> None:
    """Exit code 2, the file, the number needed, nothing on standard output."""
    path = tmp_path / "few.csv"
    scores(30).write(path)
    result = run("bound", path, "--alpha", 0.005, "--json")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {path}: 30 defects are too few")
    assert "at least 199 are needed" in result.stderr
    assert result.stdout == ""


def test_enough_in_mean_may_be_too_few_for_confidence(tmp_path: Path) -> None:
    """Then the number is told beside the bound in mean."""
    path = tmp_path / "some.csv"
    scores(120).write(path)
    told = json.loads(run("bound", path, "--alpha", 0.01, "--json").stdout)
    assert told["confident"] is None
    assert told["expected"]["bound"]["allowed"] == 0
    assert "needs 299 defects" in " ".join(run("bound", path, "--alpha", 0.01).stdout.split())


def test_images_of_one_part_are_one_defect(tmp_path: Path) -> None:
    """Forty parts photographed five times are no 200 defects."""
    path = tmp_path / "shots.csv"
    scores(40, shots=5).write(path)
    assert "40 defects are too few" in run("bound", path, "--alpha", 0.01).stderr
    assert json.loads(run("bound", path, "--alpha", 0.1, "--json").stdout)["defects"] == 40


def test_without_good_parts_there_is_a_bound_and_no_overkill() -> None:
    """It is not known, from 0 to 1."""
    found = bound_report(Path("x"), scores(60, good=0), 0.05)
    assert np.isnan(found.expected.overkill.value)
    assert (found.expected.overkill.low, found.expected.overkill.high) == (0, 1)


def test_probabilities_that_do_not_sum_to_one_are_named_by_line(tmp_path: Path) -> None:
    """Exit code 2; likewise without any defect."""
    path = tmp_path / "p.csv"
    path.write_text("path,group,label,probability:ok*,probability:bad\na,a,ok,0.9,0.1\nb,b,bad,0.9,0.9\n")
    result = run("bound", path, "--alpha", 0.1)
    assert result.exit_code == 2
    assert f"{path}, line 3: the probabilities sum to 1.8, not to one" in result.stderr
    path.write_text("path,group,label,probability:ok*,probability:bad\na,a,ok,0.9,0.1\n")
    assert "0 defects are too few" in run("bound", path, "--alpha", 0.1).stderr


@pytest.mark.parametrize("alpha", ["0", "1", "-0.1", "nan"])
def test_an_alpha_that_is_no_share_is_refused(alpha: str, tmp_path: Path) -> None:
    """Exit code 2."""
    path = tmp_path / "s.csv"
    scores(40).write(path)
    result = run("bound", path, "--alpha", alpha)
    assert result.exit_code == 2
    assert "alpha" in result.stderr
