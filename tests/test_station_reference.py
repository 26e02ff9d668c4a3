"""docs/station.md says what station.toml takes."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_the_reference_is_what_the_models_say() -> None:
    """Otherwise: python docs/make_station_reference.py."""
    made = runpy.run_path(str(DOCS / "make_station_reference.py"))
    assert (DOCS / "station.md").read_text(encoding="utf-8") == made["page"]()


def test_every_key_is_explained() -> None:
    """No key without a word on what it does."""
    rows = [line for line in (DOCS / "station.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(rows) > 80
    assert [row for row in rows if row.endswith("|  |")] == []
