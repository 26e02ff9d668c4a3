"""The generator of frames with small defects: what it writes is what the benchmark says of it."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.surfaces import CLASSES, HEIGHT, WIDTH, Surfaces, frame_of, texture_files, write_surfaces
from calibration.errors import InputError
from tests.support.folders import FolderSpec, write_folder
from trainer.data.importers import import_folder

SMALL = Surfaces(counts=(12, 6, 6), size=(256, 320), seed=4)


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Sixteen generated pictures of good parts in the place of photographs."""
    root = write_folder(tmp_path_factory.mktemp("textures") / "good", FolderSpec(80, 100, (16,)))
    return texture_files(root)


def test_defects_fill_boxes_of_the_stated_share_and_lie_nowhere_else(textures: list[Path]) -> None:
    """The same frame with and without its defect differs inside the box alone, and there by the stated depth."""
    for share in (0.01, 0.1):
        for kind in CLASSES[1:]:
            frame, box = frame_of(textures[0], kind, Surfaces(share=share, contrast=(0.4, 0.4)), _rng())
            clean, same = frame_of(textures[0], kind, Surfaces(share=share, contrast=(0.0, 0.0)), _rng())
            assert box is not None
            assert box == same
            assert box.height * box.width == pytest.approx(share * HEIGHT * WIDTH, rel=0.02)
            changed = np.abs(frame.astype(int) - clean) > 1
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            blur = 3
            assert box.top - blur <= rows.min() <= rows.max() < box.top + box.height + blur
            assert box.left - blur <= columns.min() <= columns.max() < box.left + box.width + blur
            assert rows.max() - rows.min() >= 0.5 * box.height
            assert changed.mean() < share / 4


def _rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_good_frames_have_no_box(textures: list[Path]) -> None:
    """Frames are of the asked size, grey, neither black nor burnt out."""
    frame, box = frame_of(textures[1], "ok", SMALL, np.random.default_rng(0))
    assert box is None
    assert frame.shape == (256, 320)
    assert frame.dtype == np.uint8
    assert 80 <= frame.mean() <= 160


def test_the_folder_is_one_that_import_takes_with_textures_kept_together(textures: list[Path], tmp_path: Path) -> None:
    """Counts, boxes and groups are as asked; the import keeps a texture's frames in one fold; OK is the good class."""
    boxes = write_surfaces(tmp_path / "images", SMALL, textures)
    assert len(boxes) == 12
    assert {path.split("/")[0] for path in boxes} == {"pit", "scratch"}
    with (tmp_path / "images" / "groups.csv").open() as file:
        groups = {row["path"]: row["group"] for row in csv.DictReader(file)}
    assert len(groups) == 24
    assert len(set(groups.values())) == 6
    dataset = import_folder(tmp_path / "images", tmp_path / "data", ok="ok").dataset
    assert dataset.classes == CLASSES
    folds: dict[str, set[str]] = {}
    for item in dataset.items:
        folds.setdefault(groups[item.path], set()).add(item.split)
    assert all(len(splits) == 1 for splits in folds.values())


def test_equal_seeds_give_equal_frames(textures: list[Path], tmp_path: Path) -> None:
    """Written twice, every file is the same; another seed gives others."""
    once, twice = (write_surfaces(tmp_path / name, SMALL, textures) for name in ("a", "b"))
    assert once == twice
    for path in sorted((tmp_path / "a").rglob("*.png")):
        other = tmp_path / "b" / path.relative_to(tmp_path / "a")
        np.testing.assert_array_equal(cv2.imread(str(path)), cv2.imread(str(other)))
    assert write_surfaces(tmp_path / "c", Surfaces((12, 6, 6), size=(256, 320), seed=5), textures) != once


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    """The message names the folder and what it should hold."""
    with pytest.raises(InputError, match="give a folder of good parts"):
        texture_files(tmp_path)
