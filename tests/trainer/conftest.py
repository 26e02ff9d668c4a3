"""One small run, trained, exported and released once for all tests that look at what came out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.folders import FolderSpec, write_folder
from trainer.data.importers import import_folder
from trainer.export import ExportResult, export_run
from trainer.recipes import FROZEN
from trainer.release import ReleaseResult, release_run
from trainer.train import train


@dataclass(frozen=True)
class Released:
    """A run folder with its dataset, and the results of export and release."""

    run: Path
    data: Path
    bundle: Path
    exported: ExportResult
    released: ReleaseResult


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    """Three classes of 48x64 grey parts, head on frozen features, 48x64 input."""
    root = tmp_path_factory.mktemp("released")
    write_folder(root / "images", FolderSpec(48, 64, (40, 16, 16)))
    dataset = import_folder(root / "images", root / "data", licence="none").dataset
    train(dataset, root / "run", FROZEN, seed=3, size=(48, 64))
    exported = export_run(root / "run")
    result = release_run(root / "run", root / "parts.lgb", name="parts")
    return Released(root / "run", root / "data", root / "parts.lgb", exported, result)
