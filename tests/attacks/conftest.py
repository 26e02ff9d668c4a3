"""Bundles made once, and a fresh line for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks.line import Line
from tests.support.tiny import tiny_bundle


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two tiny bundles, unsigned. Read only."""
    folder = tmp_path_factory.mktemp("bundles")
    return [tiny_bundle(folder / f"{name}.lgb", name=name) for name in ("one", "two")]


@pytest.fixture
def line(tmp_path: Path) -> Line:
    """An enrolled device and its signer."""
    return Line.made(tmp_path)
