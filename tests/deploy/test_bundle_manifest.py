"""Manifest, goldens and members of a bundle that do not fit one another: refused, the fault named."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from deploy.bundle import BundleError, parse_bundle
from tests.deploy.sealed import HERE, refusal, remade
from tests.support.tiny import tiny_model, tiny_spec


@pytest.fixture(scope="module")
def good(bundles: list[Path]) -> bytes:
    """The bytes of a good bundle."""
    return bundles[0].read_bytes()


@pytest.fixture(scope="module")
def members(good: bytes) -> Mapping[str, bytes]:
    """Its files, manifest.json included."""
    return parse_bundle(good, HERE).members


@pytest.mark.parametrize("missing", ["golden/expected.json", "report.html", "sbom.cdx.json", "model.cpu.onnx"])
def test_a_missing_member_is_named(members: Mapping[str, bytes], missing: str) -> None:
    """Left out of the archive and of the manifest's list."""
    files = {name: data for name, data in members.items() if name != missing}
    message = refusal(remade(files, lambda manifest: None))
    assert missing in message or "another model" in message


def test_a_member_swapped_for_another_is_named(members: Mapping[str, bytes]) -> None:
    """The archive whole and sealed, but the report is not the one the manifest names."""
    files = {**members, "report.html": b"all is well"}
    message = refusal(remade(files, lambda manifest: None, rehash=False))
    assert "report.html is not the file that manifest.json names" in message


def test_an_extra_golden_frame_is_named(members: Mapping[str, bytes]) -> None:
    """Nothing rides along."""
    files = {**members, "golden/200.png": b"x"}
    assert "golden/200.png" in refusal(remade(files, lambda manifest: None, rehash=False))


def test_mix_and_match_of_model_and_rule_is_refused(members: Mapping[str, bytes]) -> None:
    """Another model, hashes in order: its thresholds were not fitted on it."""
    files = {**members, "model.cpu.onnx": tiny_model(gain=60.0)}
    assert "the decision rule was fitted on another model" in refusal(remade(files, lambda manifest: None))


def test_mix_and_match_of_preprocessing_and_rule_is_refused(members: Mapping[str, bytes]) -> None:
    """Another geometry than the rule was fitted with."""

    def edit(manifest: dict[str, Any]) -> None:
        manifest["preprocess"]["fit"] = "pad"

    assert tiny_spec().fit == "stretch"
    assert "fitted on another preprocessing" in refusal(remade(members, edit))


@pytest.mark.parametrize("classes", [["scratch", "ok"], ["ok", "dent"]])
def test_mix_and_match_of_labels_and_rule_is_refused(members: Mapping[str, bytes], classes: list[str]) -> None:
    """Labels swapped or renamed in the manifest alone."""

    def edit(manifest: dict[str, Any]) -> None:
        manifest["classes"] = classes

    assert "its classes are not those of the manifest" in refusal(remade(members, edit))


def rule_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """The decision rule inside a manifest."""
    found: dict[str, Any] = manifest["variants"]["cpu"]["rule"]
    return found


@pytest.mark.parametrize("field", ["ok_below", "defect_above", "temperature"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, 2, "0,9", "0.5", None, True, [0.5], 0])
def test_a_threshold_that_is_no_number_in_range_is_refused(
    members: Mapping[str, bytes], field: str, value: object
) -> None:
    """NaN, infinity, -1, 2, text, null, truth values: refused with the field's place. A temperature of 2 is fine."""
    if (field, value) in (("temperature", 2), ("ok_below", 0)):
        return
    message = refusal(remade(members, lambda manifest: rule_of(manifest).update({field: value})))
    assert "variants.cpu.rule" in message


EDITS: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("unknown field", lambda m: m.update(colour="red"), "colour"),
    ("unknown field of the rule", lambda m: rule_of(m).update(margin=0.1), "variants.cpu.rule"),
    ("unknown field of the preprocessing", lambda m: m["preprocess"].update(mean=3), "preprocess"),
    ("schema version 2", lambda m: m.update(schema_version=2), "schema_version is 2; this program reads 1"),
    ("schema version '1'", lambda m: m.update(schema_version="1"), "schema_version is '1'"),
    ("schema version true", lambda m: m.update(schema_version=True), "schema_version is True"),
    ("no schema version", lambda m: m.pop("schema_version"), "schema_version is None"),
    ("no classes", lambda m: m.update(classes=[]), "classes"),
    ("one class", lambda m: m.update(classes=["ok"]), "classes"),
    ("a class twice", lambda m: m.update(classes=["ok", "ok"]), "a name occurs twice"),
    ("no OK class", lambda m: m.update(ok_class="fine"), "none of the classes"),
    ("ESC in a class name", lambda m: m.update(classes=["ok", "\x1b]52;c;aGk=\x07"]), "printable"),
    ("bidi override in a class name", lambda m: m.update(classes=["ok", "a\u202eb"]), "printable"),
    ("empty class name", lambda m: m.update(classes=["ok", ""]), "printable"),
    ("endless class name", lambda m: m.update(classes=["ok", "x" * 65]), "printable"),
    ("ESC in the bundle's name", lambda m: m.update(name="\x1b[2J"), "printable"),
    ("a time without a zone", lambda m: m.update(created="2026-01-01T00:00:00"), "created"),
    ("no view of a part", lambda m: m.update(views=0), "views"),
    ("batch 0", lambda m: m.update(max_batch=0), "max_batch"),
    ("no variant", lambda m: m.update(variants={}), "variants"),
    ("a variant under another name", lambda m: m.update(variants={"gpu": m["variants"]["cpu"]}), "gpu"),
    ("a path for a model", lambda m: m["variants"]["cpu"].update(model="/tmp/m.onnx"), "model"),  # noqa: S108
    ("negative baseline", lambda m: m["variants"]["cpu"]["baseline"].update(counts=[-1, 2]), "counts"),
    ("empty baseline", lambda m: m["variants"]["cpu"]["baseline"].update(counts=[0, 0]), "counts"),
    ("another number of bins", lambda m: m["variants"]["cpu"]["baseline"].update(counts=[1, 2]), "counts"),
    ("a metric that is NaN", lambda m: m["metrics"]["accuracy"].update(low=float("nan")), "metrics.accuracy"),
    ("a metric that is text", lambda m: m["metrics"]["accuracy"].update(low="0.5"), "metrics.accuracy"),
    ("an unknown field of a metric", lambda m: m["metrics"]["accuracy"].update(sd=0.5), "metrics.accuracy"),
    ("a seed that is text", lambda m: m["provenance"].update(seed="1"), "seed"),
    ("agreement of 1.1", lambda m: m["variants"]["cpu"]["parity"].update(agreement=1.1), "agreement"),
    ("a file's hash in capitals", lambda m: m["files"].update({"report.html": "A" * 64}), "files"),
    ("input of 0 pixels", lambda m: m["preprocess"].update(height=0), "preprocess"),
    ("two channels", lambda m: m["preprocess"].update(channels=2), "preprocess"),
    ("frame range upside down", lambda m: m["preprocess"].update(frame_heights=[9, 3]), "preprocess"),
]


@pytest.mark.parametrize(("edit", "told"), [e[1:] for e in EDITS], ids=[e[0] for e in EDITS])
def test_a_manifest_with_one_thing_wrong_is_refused(
    members: Mapping[str, bytes], edit: Callable[[dict[str, Any]], Any], told: str
) -> None:
    """The message names the place."""
    assert told in refusal(remade(members, edit))


def test_markup_and_other_scripts_are_allowed_in_names(members: Mapping[str, bytes]) -> None:
    """Names are text: what a screen does with brackets is the screen's business."""

    def edit(manifest: dict[str, Any]) -> None:
        manifest["name"] = "Lötstellen [red] 検査"

    assert parse_bundle(remade(members, edit), HERE).manifest.name == "Lötstellen [red] 検査"


def goldens_edited(members: Mapping[str, bytes], edit: Callable[[list[dict[str, Any]]], Any]) -> bytes:
    """The bundle with golden/expected.json edited and all hashes in order."""
    expected = json.loads(members["golden/expected.json"])
    edit(expected)
    return remade({**members, "golden/expected.json": json.dumps(expected).encode()}, lambda manifest: None)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda g: g.clear(), "no golden frames"),
        (lambda g: g[0].update(frame="golden/900.png"), "golden/900.png"),
        (lambda g: g[0].update(frame="../x.png"), "frame"),
        (lambda g: g[0].update(logits={}), "variant's logits are missing"),
        (lambda g: g[0].update(logits={"cpu": [1.0]}), "do not match the 2 classes"),
        (lambda g: g[0].update(logits={"cpu": [1.0, float("nan")]}), "golden/expected.json"),
        (lambda g: g[0].update(logits={"cpu": [1.0, "2"]}), "golden/expected.json"),
        (lambda g: g[0].update(label="dent"), "dent"),
        (lambda g: g[0].update(weight=2), "golden/expected.json"),
        (lambda g: g.append(3), "golden/expected.json"),
    ],
    ids=["none", "no frame", "path", "no logits", "one logit", "NaN", "text", "label", "unknown field", "number"],
)
def test_wrong_goldens_are_refused(
    members: Mapping[str, bytes], edit: Callable[[list[dict[str, Any]]], Any], told: str
) -> None:
    """A bundle that could not be checked on the device is none."""
    assert told in refusal(goldens_edited(members, edit))


def test_goldens_that_are_no_list_are_refused(members: Mapping[str, bytes]) -> None:
    """Any other JSON, or none."""
    for text in (b"", b"3", b"null", b'{"a": 1}'):
        message = refusal(remade({**members, "golden/expected.json": text}, lambda manifest: None))
        assert "golden" in message


def test_a_golden_frame_that_is_no_picture_is_named(members: Mapping[str, bytes]) -> None:
    """Found when the goldens are read, that is before the bundle may judge."""
    bundle = parse_bundle(remade({**members, "golden/003.png": b"noise"}, lambda manifest: None), HERE)
    with pytest.raises(BundleError, match=r"golden frame golden/003.png"):
        bundle.goldens()
