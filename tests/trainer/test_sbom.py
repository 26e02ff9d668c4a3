"""The bill of materials: valid in form, complete, and the same for the same bundle."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from trainer.sbom import Subject, sbom

SUBJECT = Subject(
    name="parts",
    models={"model.cpu.onnx": b"one", "model.trt.onnx": b"two"},
    classes=("ok", "scratch"),
    dataset="parts",
    dataset_sha256="0" * 64,
    licence="CC BY 4.0",
    created="2026-01-01T00:00:00Z",
)


def bill() -> dict[str, Any]:
    """The parsed document."""
    document: dict[str, Any] = json.loads(sbom(SUBJECT))
    return document


def test_it_is_cyclonedx_1_6() -> None:
    """The fields the standard requires, with a serial number in the form it requires."""
    document = bill()
    assert (document["bomFormat"], document["specVersion"], document["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", document["serialNumber"])  # fmt: skip  # noqa: E501
    assert document["metadata"]["timestamp"] == "2026-01-01T00:00:00Z"


def test_models_are_named_with_their_hash() -> None:
    """Each model is a machine-learning-model component that points at the dataset."""
    found = {item["name"]: item for item in bill()["components"] if item["type"] == "machine-learning-model"}
    for name, data in SUBJECT.models.items():
        assert found[name]["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(data).hexdigest()}]
        assert found[name]["modelCard"]["modelParameters"]["datasets"] == [{"ref": "dataset"}]


def test_packages_are_there_with_what_they_need() -> None:
    """torch, onnx and numpy are listed with version and package URL; what they depend on is listed too."""
    document = bill()
    packages = {item["name"].lower(): item for item in document["components"] if item["type"] == "library"}
    assert {"torch", "onnx", "onnxruntime", "numpy", "protobuf"} <= packages.keys()
    for item in packages.values():
        assert re.fullmatch(r"pkg:pypi/[a-z0-9.-]+@[^+ ]+", item["purl"])
        assert item["version"]


def test_references_are_unique_and_resolve() -> None:
    """No reference is used twice, and every dependency exists."""
    document = bill()
    references = [item["bom-ref"] for item in document["components"]] + ["bundle"]
    assert len(set(references)) == len(references)
    for entry in document["dependencies"]:
        assert entry["ref"] in references
        assert set(entry["dependsOn"]) <= set(references)


def test_equal_bundles_have_equal_bills() -> None:
    """No random serial number, no time of day."""
    assert sbom(SUBJECT) == sbom(SUBJECT)
