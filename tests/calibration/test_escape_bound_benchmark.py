"""The benchmark of the escape bounds, on generated scores: they hold, and it would tell if they did not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import escape_bound as benchmark
from calibration.scores import Scores


def scores(defects: int, good: int = 300, seed: int = 0) -> Scores:
    """Parts of one image each; defects score higher."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [defects, good])
    lean = rng.normal(np.where(labels == 1, 1.5, -1.5), 1.0)
    names = tuple(str(i) for i in range(len(labels)))
    logits = np.stack([-lean, lean], axis=1).astype(np.float32)
    return Scores(("ok", "crack"), "ok", names, names, labels.astype(np.int64), logits)


def alphas(*values: float) -> list[str]:
    """As options."""
    return [word for value in values for word in ("--alpha", str(value))]


def test_the_bounds_hold_over_a_thousand_splits(tmp_path: Path) -> None:
    """300 calibration defects: in mean what the law says to within its error, with confidence in 95 % of splits."""
    path = tmp_path / "scores.csv"
    scores(600).write(path)
    done = CliRunner().invoke(
        benchmark.main, [str(path), "--json", *["--alpha", "0.01", "--alpha", "0.05", "--alpha", "0.1"]]
    )
    assert done.exit_code == 0, done.output
    for found in json.loads(done.stdout):
        mean, confident, alpha = found["in_mean"], found["confident"], found["alpha"]
        assert found["calibration"] == 300
        assert mean["escape"] == pytest.approx(mean["exact"], abs=4 * mean["error"])
        assert mean["escape"] <= alpha + 2 * mean["error"]
        assert mean["low"] <= mean["escape"] <= mean["high"]
        assert confident["failures"] <= 0.05
        assert confident["overkill"] > mean["overkill"]


def test_a_threshold_that_breaks_its_promise_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Thresholds a little above the bound: the benchmark says so and ends with exit code 1."""

    def lax(*arguments: object) -> object:
        bound = benchmark_bound(*arguments)  # type: ignore[arg-type]
        return replace(bound, threshold=min(0.99, bound.threshold * 1.5))

    benchmark_bound = benchmark.escape_bound
    monkeypatch.setattr(benchmark, "escape_bound", lax)
    path = tmp_path / "scores.csv"
    scores(400).write(path)
    done = CliRunner().invoke(benchmark.main, [str(path), "--alpha", "0.05", "--splits", "200", "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)[0]["in_mean"]["holds"] is False


def test_thirty_defects_are_refused_with_the_number_needed(tmp_path: Path) -> None:
    """In the table, beside what can be measured; a file without defects is an error."""
    path = tmp_path / "few.csv"
    scores(60).write(path)
    done = CliRunner().invoke(
        benchmark.main, [str(path), "--alpha", "0.005", "--alpha", "0.2", "--splits", "50", "--json"]
    )
    assert done.exit_code == 0, done.output
    refused, measured = json.loads(done.stdout)
    assert (refused["calibration"], refused["needed"], refused["in_mean"]) == (30, 199, None)
    assert (measured["in_mean"]["holds"], measured["needed_confidently"]) == (True, 14)
    scores(0).write(path)
    done = CliRunner().invoke(benchmark.main, [str(path)])
    assert done.exit_code == 2
    assert f"{path}: 0 defects; at least 2 are needed" in done.stderr
