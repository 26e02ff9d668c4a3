"""A release with a stated escape bound: the thresholds keep it, the bundle says so, too few defects are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from calibration.conformal import escape_bound
from calibration.crossfit import group_index
from calibration.errors import InputError
from calibration.histogram import confidence_histogram
from calibration.preprocess import PreprocessSpec
from calibration.risk import Costs
from calibration.scores import Scores
from deploy.bundle import open_bundle
from tests.trainer.conftest import Released
from trainer.cli import cli
from trainer.figures import fit

SPEC = PreprocessSpec(8, 8, 1, (8, 8), (8, 8))


def generated(defects: int, good: int, shots: int = 1) -> Scores:
    """Scores of three classes, class 0 good; `shots` equal images of each part."""
    rng = np.random.default_rng(0)
    labels = np.concatenate([rng.integers(1, 3, defects), np.zeros(good, np.int64)])
    logits = rng.normal(0, 1.5, (len(labels), 3))
    logits[np.arange(len(labels)), labels] += 3
    labels, logits = np.repeat(labels, shots), np.repeat(logits, shots, axis=0)
    groups = tuple(f"part-{i // shots}" for i in range(len(labels)))
    names = tuple(f"{i}.png" for i in range(len(labels)))
    return Scores(("ok", "pit", "dent"), "ok", names, groups, labels, logits.astype(np.float32))


def test_the_bound_limits_what_the_costs_alone_would_pass() -> None:
    """It is the bound of the calibrated probabilities, and the rule lies within it."""
    scores, cheap = generated(300, 600), Costs(escape=1, overkill=1, review=0.5)
    free, bounded = fit(scores, cheap, None, "", SPEC), fit(scores, cheap, None, "", SPEC, 0.01)
    assert free.bound is None
    assert bounded.bound == escape_bound(bounded.rule.defect_probability(scores.logits), scores.is_defect, 0.01)
    assert bounded.rule.ok_below <= bounded.bound.threshold < free.rule.ok_below
    assert bounded.cost_per_part > free.cost_per_part
    passed = bounded.rule.defect_probability(scores.logits) <= bounded.rule.ok_below
    assert passed[scores.is_defect].sum() <= bounded.bound.allowed < 3


@pytest.mark.parametrize(("prevalence", "good", "bad"), [(None, 600, 300), (0.01, 600, 6), (0.5, 300, 300)])
def test_drift_is_measured_from_the_stated_share_of_defects(prevalence: float | None, good: int, bad: int) -> None:
    """The class of which the line has fewer counts for less; the other keeps its parts, and with them the noise that an
    alarm has to allow for."""
    scores = generated(300, 600)
    fitted = fit(scores, Costs(), prevalence, "", SPEC)
    probability = fitted.rule.defect_probability(scores.logits)
    counts = np.array(fitted.baseline)
    assert counts.sum() == good + bad
    apart = [confidence_histogram(probability[scores.is_defect == is_bad]) for is_bad in (False, True)]
    expected = apart[0] * good / 600 + apart[1] * bad / 300
    assert np.abs(counts - expected).max() < 2


def test_thresholds_of_the_float_model_are_taken_over_within_the_own_bound() -> None:
    """The same cuts under the model's own temperature, and never more than its own bound lets pass."""
    first, second, cheap = generated(300, 600), generated(280, 610), Costs(escape=1, overkill=1, review=0.5)
    reference = fit(first, cheap, None, "", SPEC).rule
    taken = fit(second, cheap, None, "", SPEC, reference=reference)
    assert (taken.rule.ok_below, taken.rule.defect_above) == (reference.ok_below, reference.defect_above)
    assert taken.rule.temperature == fit(second, cheap, None, "", SPEC).rule.temperature != reference.temperature
    assert taken.cost_per_part >= fit(second, cheap, None, "", SPEC).cost_per_part
    bounded = fit(second, cheap, None, "", SPEC, 0.01, reference)
    assert bounded.bound is not None
    assert bounded.rule.ok_below == bounded.bound.threshold < reference.ok_below
    assert bounded.rule.defect_above == reference.defect_above


def test_dear_escapes_keep_thresholds_below_the_bound() -> None:
    """The bound is a limit, no target."""
    scores, dear = generated(300, 600), Costs(escape=5000, overkill=1, review=0.5)
    free, bounded = fit(scores, dear, None, "", SPEC), fit(scores, dear, None, "", SPEC, 0.2)
    assert bounded.rule == free.rule


def test_images_of_one_part_are_one_defect_to_the_bound() -> None:
    """Fifty parts, four images each: enough for 2 % and not for 1 %."""
    scores = generated(50, 50, shots=4)
    assert len(set(group_index(scores).tolist())) == 100
    found = fit(scores, Costs(), None, "", SPEC, 0.02)
    assert found.bound is not None
    assert found.bound.defects == 50
    with pytest.raises(InputError, match=r"validation fold: 50 defects are too few .* at least 99 .* --max-escape"):
        fit(scores, Costs(), None, "", SPEC, 0.01)


def call(*words: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `trainer`."""
    result = CliRunner().invoke(cli, [str(word) for word in words])
    return result.exit_code, result.stdout, result.stderr


def test_the_bundle_and_its_report_state_the_bound(released: Released, tmp_path: Path) -> None:
    """For each variant its own threshold, from its own scores."""
    file = tmp_path / "bounded.lgb"
    code, out, err = call("release", released.run, "--out", file, "--max-escape", 0.3, "--json")
    assert code == 0, err
    told = json.loads(out)
    manifest = open_bundle(file).manifest
    for name, variant in manifest.variants.items():
        val = Scores.read(released.run / "export" / f"scores.{name}.val.csv")
        expected = escape_bound(variant.rule.defect_probability(val.logits), val.is_defect, 0.3, group_index(val))
        stated = variant.escape_bound
        assert stated is not None
        assert (stated.alpha, stated.method) == (0.3, "conformal risk control")
        assert (stated.defects, stated.threshold) == (expected.defects, expected.threshold)
        assert variant.rule.ok_below <= stated.threshold
        assert told["fitted"][name]["bound"]["threshold"] == stated.threshold
    assert "0.3 (by conformal risk control" in open_bundle(file).members["report.html"].decode()
    assert "0.3 in mean, from" in call("release", released.run, "--out", file, "--max-escape", 0.3)[1]


def test_without_a_bound_none_is_stated(released: Released) -> None:
    """Neither in the manifest nor in the report."""
    bundle = open_bundle(released.bundle)
    assert all(variant.escape_bound is None for variant in bundle.manifest.variants.values())
    assert "no bound stated" in bundle.members["report.html"].decode()


def test_too_few_defects_refuse_the_release(released: Released, tmp_path: Path) -> None:
    """Exit code 2 with the number needed; no bundle, and the report of the last release is left alone."""
    file, before = tmp_path / "refused.lgb", (released.run / "report.html").read_bytes()
    code, out, err = call("release", released.run, "--out", file, "--max-escape", 0.005)
    assert (code, out) == (2, "")
    assert "defects are too few" in err
    assert "at least 199 are needed" in err
    assert not file.exists()
    assert (released.run / "report.html").read_bytes() == before
