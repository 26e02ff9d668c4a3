"""The escape bound in a manifest: optional, and never contradicted by the rule beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from deploy.bundle import open_bundle
from deploy.manifest import Variant

BOUND = {"alpha": 0.1, "method": "conformal risk control", "defects": 9, "threshold": 0.3}


def with_bound(bundle: Path, bound: dict[str, Any] | None) -> Variant:
    """The variant of a tiny bundle, whose ok_below is 0.3, with a bound written into its JSON."""
    variant = json.loads(open_bundle(bundle).manifest.variants["cpu"].model_dump_json())
    variant.pop("escape_bound")
    return Variant.model_validate_json(json.dumps(variant | ({"escape_bound": bound} if bound else {})))


def test_a_manifest_may_state_a_bound_or_none(bundles: list[Path]) -> None:
    """One written before there were bounds has no such field."""
    assert with_bound(bundles[0], None).escape_bound is None
    stated = with_bound(bundles[0], BOUND).escape_bound
    assert stated is not None
    assert stated.model_dump() == BOUND


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("threshold", 0.2999, r"ok_below is 0\.3, above the 0\.2999 of its escape_bound"),
        ("threshold", 1.5, "threshold"),
        ("alpha", 0.0, "alpha"),
        ("alpha", 1.0, "alpha"),
        ("defects", 0, "defects"),
        ("method", "hope", "method"),
        ("note", "x", "note"),
    ],
)
def test_a_rule_that_passes_more_than_its_bundle_promises_is_refused(
    bundles: list[Path], field: str, value: object, told: str
) -> None:
    """And a bound that is none."""
    with pytest.raises(ValidationError, match=told):
        with_bound(bundles[0], {**BOUND, field: value})
