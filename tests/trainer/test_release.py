"""Release: what is fitted where, what the bundle holds, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.decision import DecisionRule
from calibration.errors import InputError
from calibration.metrics import accuracy, softmax
from calibration.preprocess import PreprocessSpec
from calibration.risk import Costs
from calibration.scores import Scores
from calibration.temperature import fit_temperature
from deploy.bundle import open_bundle
from tests.trainer.conftest import Released
from trainer.figures import fit, measure, warnings_of
from trainer.goldens import MARGIN, choose
from trainer.onnx_graph import run_logits, session
from trainer.provenance import code_revision, created
from trainer.release import release_run
from trainer.run import read_settings

SPEC = PreprocessSpec(8, 8, 1, (8, 8), (8, 8))


def generated(n: int, classes: int, seed: int, absent: tuple[int, ...] = ()) -> Scores:
    """Overconfident scores of n parts; class 0 is good; `absent` classes have no part."""
    rng = np.random.default_rng(seed)
    present = [c for c in range(classes) if c not in absent]
    labels = rng.choice(present, n)
    logits = rng.normal(0, 3, (n, classes))
    logits[np.arange(n), labels] += 4
    names = tuple(f"{i}.png" for i in range(n))
    kinds = tuple(f"c{i}" for i in range(classes))
    return Scores(kinds, "c0", names, names, labels.astype(np.int64), logits.astype(np.float32))


def test_the_bundle_reproduces_its_goldens(released: Released) -> None:
    """Decoded, preprocessed and run through the bundle's own models, every golden gives its recorded logits."""
    bundle = open_bundle(released.bundle)
    spec = bundle.manifest.preprocess
    goldens = bundle.goldens()
    assert len(goldens) == released.released.goldens == min(16, released.released.fitted["cpu"].parts)
    tensors = np.stack([spec.apply(golden.frame) for golden in goldens])
    for variant in ("cpu", "trt"):
        running = session(bundle.model(variant), fuse_integers=variant == "cpu")
        expected = np.stack([golden.logits[variant] for golden in goldens])
        np.testing.assert_allclose(run_logits(running, tensors), expected, atol=1e-4)


def test_temperature_and_thresholds_come_from_the_exported_models_validation_scores(released: Released) -> None:
    """Each variant is calibrated on its own scores, never on the test fold, and bound to its own file by hash."""
    manifest = open_bundle(released.bundle).manifest
    for name, variant in manifest.variants.items():
        val = Scores.read(released.run / "export" / f"scores.{name}.val.csv")
        assert variant.rule.temperature == fit_temperature(val.logits, val.labels)
        assert sum(variant.baseline.counts) == len(val.labels)
        assert variant.parity.parts == len(val.labels)
    assert manifest.variants["cpu"].rule.model_sha256 != manifest.variants["trt"].rule.model_sha256


def test_temperature_leaves_every_answer_alone(released: Released) -> None:
    """Accuracy with and without the temperature is equal to the last sample, in every model."""
    for name, found in released.released.measured.items():
        test = Scores.read(released.run / "export" / f"scores.{name}.test.csv")
        after = released.released.fitted[name].rule.probabilities(test.logits)
        assert accuracy(softmax(test.logits), test.labels) == accuracy(after, test.labels)
        assert found.accuracy_before == found.figures["accuracy"].value


def test_figures_carry_intervals_and_names(released: Released) -> None:
    """The manifest holds the cpu variant's test figures by plain names, the other models' behind a prefix."""
    metrics = open_bundle(released.bundle).manifest.metrics
    for name in ("accuracy", "auroc", "escape", "overkill", "unsure", "escape_at_10_overkill", "ece_before", "ece"):
        for key in (name, f"fp32.{name}", f"trt.{name}"):
            assert metrics[key].low <= metrics[key].high


def test_provenance_says_how_to_make_it_again(released: Released) -> None:
    """Dataset hash, seed, recipe, revision, versions and the reason of the input size."""
    origin, settings = open_bundle(released.bundle).manifest.provenance, read_settings(released.run)
    assert (origin.dataset_sha256, origin.seed, origin.recipe) == (settings.dataset_sha256, 3, "frozen")
    assert "set by hand" in origin.input_size_reason
    assert {"python", "torch", "onnx", "onnxruntime", "numpy"} <= origin.versions.keys()
    assert origin.code_revision == code_revision() != ""


def test_the_same_run_makes_the_same_bundle(
    released: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With SOURCE_DATE_EPOCH set, two releases are equal byte for byte."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    run = tmp_path / "run"
    shutil.copytree(released.run, run)
    files = [tmp_path / "a.lgb", tmp_path / "b.lgb"]
    for file in files:
        release_run(run, file, name="parts")
    assert files[0].read_bytes() == files[1].read_bytes()
    assert open_bundle(files[0]).manifest.created.isoformat() == "2026-01-01T00:00:00+00:00"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    with pytest.raises(InputError, match="SOURCE_DATE_EPOCH"):
        created()


def test_dearer_escapes_make_stricter_thresholds() -> None:
    """The dearer an escape, the fewer parts pass."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    odds = (rng.normal(0, 2, 400) + 2 * (2 * labels - 1)).astype(np.float32)
    names = tuple(map(str, range(400)))
    val = Scores(("ok", "bad"), "ok", names, names, labels, np.stack([-odds, odds], axis=1) / 2)
    limits = [fit(val, Costs(escape=escape), None, "", SPEC).rule.ok_below for escape in (1, 5, 400)]
    assert limits[0] > limits[1] >= limits[2]


@pytest.mark.parametrize(("kinds", "lacking"), [((1, 2), "good parts"), ((0,), "defects")])
def test_a_validation_fold_of_one_kind_is_refused(kinds: tuple[int, ...], lacking: str) -> None:
    """Without defects, or without good parts, no threshold can be chosen; the message says what to do."""
    absent = tuple({0, 1, 2} - set(kinds))
    with pytest.raises(InputError, match=rf"no {lacking}.*import again"):
        fit(generated(30, 3, 0, absent), Costs(), None, "", SPEC)


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 12), st.integers(8, 60), st.integers(0, 1000), st.data())
def test_small_sets_of_any_number_of_classes_are_served(classes: int, n: int, seed: int, data: st.DataObject) -> None:
    """2 to 12 classes, a few parts, classes absent in either fold: finite rules, honest warnings."""
    absent = data.draw(st.sets(st.integers(1, classes - 1), max_size=max(0, classes - 2)))
    val, test = generated(n, classes, seed), generated(n, classes, seed + 1, tuple(absent))
    if not val.is_defect.any() or val.is_defect.all():
        return
    rule = fit(val, Costs(), None, "", SPEC).rule
    measured = measure(test, rule)
    assert all(np.isfinite([f.value, f.low, f.high]).all() for f in measured.figures.values())
    assert measured.accuracy_before == pytest.approx(measured.detail.accuracy, abs=1e-12)
    told = " ".join(warnings_of(val, test, measured))
    for index in absent:
        assert f"'c{index}'" in told
    assert "only" in told  # fewer than sixty defects


def test_an_all_correct_fold_is_served() -> None:
    """Where every validation part is right the likelihood has no minimum; the temperature stays finite."""
    scores = generated(40, 2, 5)
    scores.logits[np.arange(40), scores.labels] += 50
    fitted = fit(scores, Costs(), None, "", SPEC)
    assert 0.01 <= fitted.rule.temperature <= 100
    assert measure(scores, fitted.rule).figures["accuracy"].value == 1.0


def test_goldens_hold_every_class_and_keep_their_distance() -> None:
    """One clear part of each class at least; those near a threshold are not so near that rounding could flip them."""
    scores = generated(400, 5, 2)
    rule = DecisionRule(scores.classes, "c0", 1.0, 0.2, 0.8, "", "")
    rows = choose({"cpu": rule}, {"cpu": scores.logits}, scores.labels, 16)
    assert len(rows) == len(set(rows)) == 16
    assert set(scores.labels[rows]) == set(range(5))
    p = rule.defect_probability(scores.logits[rows])
    odds = np.log(p / (1 - p))
    assert (np.abs(odds[:, None] - np.log([0.25, 4.0])).min(axis=1) >= MARGIN * 0.999).all()


def test_release_needs_a_whole_export(released: Released, tmp_path: Path) -> None:
    """Without an export, or with scores edited after it, nothing is written."""
    run = tmp_path / "run"
    shutil.copytree(released.run, run)
    with (run / "export" / "scores.cpu.val.csv").open("a") as file:
        file.write("extra.png,g,good,1.0,2.0,3.0\n")
    with pytest.raises(InputError, match=r"scores.cpu.val.csv has changed"):
        release_run(run, tmp_path / "x.lgb")
    shutil.rmtree(run / "export")
    with pytest.raises(InputError, match="trainer export"):
        release_run(run, tmp_path / "x.lgb")
    assert not (tmp_path / "x.lgb").exists()


def test_names_no_screen_should_show_are_refused(released: Released, tmp_path: Path) -> None:
    """A terminal obeys escape sequences inside a name."""
    with pytest.raises(InputError, match="--name"):
        release_run(released.run, tmp_path / "x.lgb", name="evil\x1b[2J")


def test_release_json_tells_the_same(released: Released) -> None:
    """RUN/release.json is the result, readable by other programs."""
    told = json.loads((released.run / "release.json").read_text())
    assert told["sha256"] == released.released.sha256 == open_bundle(released.bundle).sha256
    assert told["measured"]["cpu"]["figures"]["accuracy"]["value"] == pytest.approx(
        released.released.measured["cpu"].figures["accuracy"].value
    )
    assert told["parity"]["cpu"]["paired_escapes"] == released.released.parity["cpu"].paired_escapes


def test_a_golden_of_each_class_even_when_there_are_more_classes_than_goldens() -> None:
    """Twelve classes and a wish for four frames: twelve are taken."""
    scores = generated(300, 12, 3)
    rule = DecisionRule(scores.classes, "c0", 1.0, 0.2, 0.8, "", "")
    rows = choose({"cpu": rule, "trt": replace(rule, ok_below=0.1)}, {"cpu": scores.logits, "trt": scores.logits}, scores.labels, 4)  # fmt: skip  # noqa: E501
    assert sorted(scores.labels[rows]) == list(range(12))
