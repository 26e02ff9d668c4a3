"""Bundles made once, for all tests of deploy."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.bundle import open_bundle
from tests.support.tiny import tiny_bundle


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three tiny bundles: one, two, three. Read only."""
    folder = tmp_path_factory.mktemp("bundles")
    return [tiny_bundle(folder / f"{name}.lgb", name=name) for name in ("one", "two", "three")]


@pytest.fixture(scope="session")
def shas(bundles: list[Path]) -> list[str]:
    """Their hashes."""
    return [open_bundle(path).sha256 for path in bundles]
