"""Importing: what is found in folders of every shape, what is named, what is refused."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.errors import InputError
from tests.support.folders import FolderSpec, write_folder
from trainer.data.importers import Options, import_elpv, import_folder
from trainer.data.manifest import read_dataset
from trainer.data.scan import is_cut_short

GREY = FolderSpec(24, 40, (20, 12))
REPLACE = Options(force=True)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twenty good parts and twelve scratched ones, grey, 24x40."""
    return write_folder(tmp_path / "images", GREY)


def put(path: Path, value: int = 90, size: tuple[int, ...] = (24, 40)) -> None:
    """One plain image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full(size, value, np.uint8))


def test_a_folder_becomes_a_dataset(images: Path, tmp_path: Path) -> None:
    """Labels from the folders, each image a group, sizes and channels as found, the OK class by its name."""
    seen: list[tuple[int, int]] = []
    result = import_folder(images, tmp_path / "data", progress=lambda done, total: seen.append((done, total)))
    data = read_dataset(tmp_path / "data")
    assert data == result.dataset
    assert data.classes == ("good", "scratch")
    assert (data.ok_class, data.ok_source) == ("good", "by its name 'good'")
    assert (data.channels, data.frame_heights, data.frame_widths) == (1, (24, 24), (40, 40))
    assert (data.name, data.root) == ("images", images)
    assert len({item.group for item in data.items}) == len(data.items) == 32
    assert all(item.soft is None for item in data.items)
    assert seen[-1] == (32, 32)
    assert not list(images.rglob("*.csv"))


@pytest.mark.parametrize(
    "spec",
    [
        FolderSpec(24, 40, (40,) + (8,) * 11),
        FolderSpec(480, 640, (8, 6), colour=True, suffix=".jpg"),
        FolderSpec(64, 64, (12, 8), suffix=".bmp", vary_size=0.3),
        FolderSpec(90, 33, (12, 6, 6), shots=2, suffix=".tif"),
    ],
    ids=["twelve classes", "large colour", "sizes vary", "with groups"],
)
def test_folders_of_every_shape_are_imported(spec: FolderSpec, tmp_path: Path) -> None:
    """Two classes or twelve, grey or colour, tiny or large, with groups.csv or without: every class in every split."""
    data = import_folder(write_folder(tmp_path / "in", spec), tmp_path / "data").dataset
    assert data.classes == tuple(sorted(spec.classes))
    assert data.channels == (3 if spec.colour else 1)
    assert len(data.items) == sum(spec.counts)
    assert len({item.group for item in data.items}) == sum(spec.counts) // spec.shots
    assert all(min(counts.values()) >= 1 for counts in data.counts().values())


def test_subfolders_hidden_files_and_other_files(images: Path, tmp_path: Path) -> None:
    """Images at any depth count; hidden files, others and images beside the classes are counted."""
    put(images / "good" / "shift2" / "line3" / "a.PNG")
    put(images / "good" / ".cache" / "b.png")
    put(images / "loose.png")
    (images / "good" / ".hidden.png").write_bytes(b"x")
    (images / "README.md").write_text("hello")
    (images / "scratch" / "Thumbs.db").write_bytes(b"x")
    (images / "empty").mkdir()
    result = import_folder(images, tmp_path / "data")
    assert "good/shift2/line3/a.PNG" in {item.path for item in result.dataset.items}
    assert len(result.dataset.items) == 33
    assert result.ignored == {"hidden": 1, ".md": 1, ".db": 1}
    assert any("beside the class folders" in w and "loose.png" in w for w in result.warnings)
    assert any("no image in folder(s) empty" in w for w in result.warnings)


def test_a_link_back_to_a_folder_above_ends(images: Path, tmp_path: Path) -> None:
    """Linked folders are followed, but never in a circle."""
    (images / "good" / "again").symlink_to(images)
    put(tmp_path / "elsewhere" / "x.png")
    (images / "good" / "linked").symlink_to(tmp_path / "elsewhere")
    paths = {item.path for item in import_folder(images, tmp_path / "data").dataset.items}
    assert "good/linked/x.png" in paths
    assert len(paths) == 33


def test_unreadable_images_are_named_counted_and_left_out(images: Path, tmp_path: Path) -> None:
    """Empty, cut short, no image at all, a broken link: the rest goes on."""
    whole = (images / "good" / "good-0000.png").read_bytes()
    (images / "good" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (images / "good" / "empty.jpg").write_bytes(b"")
    (images / "scratch" / "text.png").write_text("no image")
    (images / "scratch" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    photo = images / "good" / "photo.jpg"
    put(photo, size=(64, 64))
    photo.write_bytes(photo.read_bytes()[:-20])
    result = import_folder(images, tmp_path / "data")
    assert set(result.skipped) == {
        "good/cut.png",
        "good/empty.jpg",
        "good/photo.jpg",
        "scratch/text.png",
        "scratch/gone.png",
    }
    assert len(result.dataset.items) == 32
    warning = next(w for w in result.warnings if "cannot be read" in w)
    assert warning.startswith("5 of 37 images cannot be read and are left out: good/cut.png (")


def test_files_cut_short_are_recognised() -> None:
    """At every length a JPEG and a PNG that lack their end, and only those."""
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    for suffix in (".jpg", ".png"):
        whole = cv2.imencode(suffix, noise)[1].tobytes()
        assert not is_cut_short(whole)
        assert not is_cut_short(whole + b"\0" * 20)
        assert all(is_cut_short(whole[:length]) for length in range(700 if suffix == ".jpg" else 8, len(whole) - 12))
    assert not is_cut_short(cv2.imencode(".bmp", noise)[1].tobytes())


def test_colour_in_some_images_makes_all_colour_and_is_said(images: Path, tmp_path: Path) -> None:
    """Grey pixels in a three-channel file are grey; one coloured image is enough for colour."""
    put(images / "good" / "three-channels.png", size=(24, 40, 3))
    assert import_folder(images, tmp_path / "data").dataset.channels == 1
    red = np.zeros((24, 40, 3), np.uint8)
    red[..., 2] = 200
    cv2.imwrite(str(images / "good" / "red.png"), red)
    result = import_folder(images, tmp_path / "data", REPLACE)
    assert result.dataset.channels == 3
    assert any("1 of 34 images show colour" in w for w in result.warnings)


def test_frames_of_one_single_value_are_pointed_out(images: Path, tmp_path: Path) -> None:
    """A capped lens is no part."""
    put(images / "good" / "black.png", 0)
    assert any("1 image(s) are of one single value" in w for w in import_folder(images, tmp_path / "d").warnings)


def test_a_pipe_named_like_an_image_is_not_waited_for(images: Path, tmp_path: Path) -> None:
    """It is no image; reading it would never end."""
    os.mkfifo(images / "good" / "pipe.png")
    assert import_folder(images, tmp_path / "data").skipped == {"good/pipe.png": "not a regular file"}


def test_frames_of_very_different_sizes_are_pointed_out(images: Path, tmp_path: Path) -> None:
    """One panorama among parts decides the size of the model."""
    put(images / "good" / "wide.png", size=(24, 400))
    assert any("40 to 400 px wide" in w for w in import_folder(images, tmp_path / "data").warnings)


def test_a_missing_or_empty_folder_is_refused(tmp_path: Path) -> None:
    """With what is wanted instead."""
    with pytest.raises(InputError, match=r"nowhere: no such folder; give the folder"):
        import_folder(tmp_path / "nowhere", tmp_path / "data")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images in it"):
        import_folder(tmp_path / "empty", tmp_path / "data")


def test_images_without_class_folders_are_refused(tmp_path: Path) -> None:
    """A heap of images has no labels."""
    put(tmp_path / "heap" / "a.png")
    with pytest.raises(InputError, match=r"1 image\(s\) but no subfolders"):
        import_folder(tmp_path / "heap", tmp_path / "data")


def test_one_class_only_is_refused(images: Path, tmp_path: Path) -> None:
    """A folder without its defects, or whose defects are all unreadable."""
    for path in (images / "scratch").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match="only one class, 'good', has readable images"):
        import_folder(images, tmp_path / "data")


def test_no_readable_image_is_refused(tmp_path: Path) -> None:
    """And the first reason is told."""
    for name in ("a/1.png", "b/1.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        (tmp_path / "in" / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"none of 2 images can be read \(a/1.png: the file is empty\)"):
        import_folder(tmp_path / "in", tmp_path / "data")


def test_folders_that_are_splits_are_refused(tmp_path: Path) -> None:
    """train/ and test/ are no classes."""
    for name in ("train/ok/1.png", "test/ok/1.png"):
        put(tmp_path / "in" / name)
    with pytest.raises(InputError, match="are splits, not classes"):
        import_folder(tmp_path / "in", tmp_path / "data")


def test_near_twins_are_named_and_can_be_kept_together(tmp_path: Path) -> None:
    """Four shots of each part and no groups.csv: named in a warning, all listed in twins.csv, gone with group_twins."""
    root = write_folder(tmp_path / "in", FolderSpec(96, 128, (80, 40), shots=4))
    (root / "groups.csv").unlink()
    result = import_folder(root, tmp_path / "data")
    assert result.twin_test_images > 20
    warning = next(w for w in result.warnings if "near-twin" in w)
    assert "--group-twins" in warning
    assert len(re.findall(" ~ ", warning)) == 10
    with (tmp_path / "data" / "twins.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == result.twin_pairs
    assert all(row["first_split"] != row["second_split"] for row in rows)
    together = import_folder(root, tmp_path / "data", Options(group_twins=True, force=True))
    assert (together.twin_pairs, together.twin_test_images) == (0, 0)
    assert any("120 groups became" in w for w in together.warnings)


def test_only_a_dataset_is_replaced_and_only_when_told(images: Path, tmp_path: Path) -> None:
    """Other files, a file in the place, the image folder itself: refused."""
    out = tmp_path / "data"
    import_folder(images, out)
    with pytest.raises(InputError, match=r"holds a dataset already; .*--force"):
        import_folder(images, out)
    assert import_folder(images, out, Options(seed=1, force=True)).dataset.seed == 1
    other = tmp_path / "other"
    put(other / "holiday.jpg")
    with pytest.raises(InputError, match="holds other files"):
        import_folder(images, other, REPLACE)
    with pytest.raises(InputError, match="is a file"):
        import_folder(images, other / "holiday.jpg", REPLACE)
    for inside in (images, images / "data"):
        with pytest.raises(InputError, match="lies inside the image folder"):
            import_folder(images, inside, REPLACE)


def test_names_that_could_not_be_read_back_are_refused(images: Path, tmp_path: Path) -> None:
    """Before anything is written."""
    with pytest.raises(InputError, match="--name"):
        import_folder(images, tmp_path / "data", name="a\x1bb")
    assert not (tmp_path / "data").exists()


def test_the_same_seed_gives_the_same_dataset(images: Path, tmp_path: Path) -> None:
    """To the last byte."""
    for name in ("a", "b"):
        import_folder(images, tmp_path / name, Options(seed=5))
    assert (tmp_path / "a/manifest.csv").read_bytes() == (tmp_path / "b/manifest.csv").read_bytes()


def test_elpv_keeps_its_doubt(tmp_path: Path) -> None:
    """2,624 cells; 1/3 is OK and 2/3 a defect, each with its soft label; 656 of them for the test."""
    pytest.importorskip("elpv_dataset")
    result = import_elpv(tmp_path / "data")
    data = result.dataset
    assert (len(data.items), data.classes, data.ok_class, data.channels) == (2624, ("ok", "defect"), "ok", 1)
    assert abs(len(data.of("test")) - 656) <= 1
    doubt = [(item.label, round(item.soft[1], 3)) for item in data.items if item.soft]
    assert {kind: doubt.count(kind) for kind in set(doubt)} == {("ok", 0.333): 295, ("defect", 0.667): 106}
    for split in ("train", "val", "test"):
        defects = data.labels(split).mean()
        assert defects == pytest.approx((106 + 715) / 2624, abs=0.004)
    assert data.licence.startswith("CC BY-NC-SA")
    assert result.twin_test_images > 0  # cells photographed twice, and neighbours from one ingot
