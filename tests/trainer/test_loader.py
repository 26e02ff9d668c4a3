"""Decoding a split: the pixels the appliance would see, from disk once and from the cache after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.errors import InputError
from calibration.images import read_image
from tests.support.folders import FolderSpec, write_folder
from trainer.data.importers import import_folder
from trainer.data.loader import CACHES_KEPT, load_split, soft_labels, spec_for
from trainer.data.manifest import Dataset, Item, read_dataset, write_dataset


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Thirty grey parts of 24x40, imported."""
    root = write_folder(tmp_path / "images", FolderSpec(24, 40, (18, 12)))
    return import_folder(root, tmp_path / "data").dataset


def test_a_split_is_what_the_specification_makes_of_its_files(data: Dataset) -> None:
    """Bit for bit, in the order of the manifest, with labels, groups and progress."""
    spec = spec_for(data, 48, 80)
    done: list[tuple[int, int]] = []
    loaded = load_split(data, spec, "test", lambda count, total: done.append((count, total)))
    items = data.of("test")
    assert len(loaded) == len(items)
    assert loaded.images.shape == (len(items), 1, 48, 80)
    assert loaded.images.dtype == np.uint8
    for image, item in zip(loaded.images, items, strict=True):
        assert np.array_equal(image, spec.apply(read_image(data.root / item.path, 1)))
    assert loaded.labels.tolist() == data.labels("test").tolist()
    assert loaded.paths == tuple(item.path for item in items)
    assert loaded.groups == tuple(item.group for item in items)
    assert done[-1] == (len(items), len(items))


def test_the_second_time_comes_from_the_cache(data: Dataset) -> None:
    """No image is decoded again, the pixels are the same, and they cannot be written to."""
    spec = spec_for(data, 24, 40)
    first = load_split(data, spec, "train")
    calls: list[int] = []
    second = load_split(data, spec, "train", lambda done, total: calls.append(done))
    assert calls == []
    assert np.array_equal(first.images, second.images)
    with pytest.raises(ValueError, match="read-only"):
        second.images[0, 0, 0, 0] = 1


def test_a_changed_image_is_read_again(data: Dataset) -> None:
    """A cache that answers with old pixels would be worse than none."""
    spec = spec_for(data, 24, 40)
    item = data.of("val")[0]
    load_split(data, spec, "val")
    cv2.imwrite(str(data.root / item.path), np.full((24, 40), 77, np.uint8))
    again = read_dataset(data.folder or Path())
    assert (load_split(again, spec, "val").images[0] == 77).all()


def test_old_caches_go(data: Dataset) -> None:
    """Trying many sizes does not fill the disk."""
    for width in range(40, 40 + CACHES_KEPT + 3):
        load_split(data, spec_for(data, 24, width), "val")
    assert len(list((data.folder or Path()).glob("cache/*"))) == CACHES_KEPT


def test_a_dataset_in_memory_needs_no_cache(data: Dataset) -> None:
    """Without a folder the pixels are decoded into memory."""
    spec = spec_for(data, 24, 40)
    loaded = load_split(replace(data, folder=None), spec, "val")
    assert np.array_equal(loaded.images, load_split(data, spec, "val").images)
    with pytest.raises(ValueError, match="read-only"):
        loaded.images[0, 0, 0, 0] = 1


def test_a_place_that_cannot_be_written_is_no_obstacle(data: Dataset) -> None:
    """A file where the cache would be: decoded into memory."""
    ((data.folder or Path()) / "cache").write_text("in the way")
    assert len(load_split(data, spec_for(data, 24, 40), "val")) == len(data.of("val"))


def test_a_damaged_cache_is_named(data: Dataset) -> None:
    """With what to do about it."""
    spec = spec_for(data, 24, 40)
    load_split(data, spec, "val")
    (path,) = (data.folder or Path()).glob("cache/*/val.npy")
    np.save(path, np.zeros((1, 1, 2, 2), np.uint8))
    with pytest.raises(InputError, match="delete the cache folder"):
        load_split(data, spec, "val")
    path.write_bytes(b"no array")
    with pytest.raises(InputError, match="delete the cache folder"):
        load_split(data, spec, "val")


def test_an_image_of_another_geometry_is_named(data: Dataset) -> None:
    """Never resized to fit."""
    item = data.of("val")[0]
    cv2.imwrite(str(data.root / item.path), np.zeros((30, 40), np.uint8))
    again = read_dataset(data.folder or Path())
    with pytest.raises(InputError, match=rf"{item.path}: frame is 40x30; .*import again"):
        load_split(again, spec_for(again, 24, 40), "val")
    assert not list((data.folder or Path()).glob("cache/*/*"))


def test_an_image_that_was_damaged_since_is_named(data: Dataset) -> None:
    """The importer leaves such images out; training on fewer than it was told to would be silent."""
    item = data.of("val")[0]
    (data.root / item.path).write_bytes(b"")
    again = read_dataset(data.folder or Path())
    with pytest.raises(InputError, match=f"{item.path}: .*the file is empty"):
        load_split(again, spec_for(again, 24, 40), "val")


def test_no_such_split_and_an_empty_one_are_refused(data: Dataset) -> None:
    """By name."""
    spec = spec_for(data, 24, 40)
    with pytest.raises(InputError, match="split 'dev'"):
        load_split(data, spec, "dev")
    with pytest.raises(InputError, match="no image is in split 'val'"):
        load_split(replace(data, items=data.of("train")), spec, "val")


def test_colour_is_loaded_as_rgb_planes(tmp_path: Path) -> None:
    """OpenCV's blue-green-red on disk, red-green-blue to the model."""
    root = tmp_path / "images"
    for name, shade in (("ok", (10, 20, 30)), ("bad", (40, 50, 60))):
        (root / name).mkdir(parents=True)
        for i in range(4):
            image = np.full((32, 32, 3), shade, np.uint8)
            image[0, 0] = i
            cv2.imwrite(str(root / name / f"{i}.png"), image)
    data = import_folder(root, tmp_path / "data").dataset
    loaded = load_split(data, spec_for(data, 32, 32), "test")
    labelled = zip(loaded.images, loaded.labels, strict=True)
    pixels = {data.classes[label]: image[:, 9, 9].tolist() for image, label in labelled}
    assert pixels == {"ok": [30, 20, 10], "bad": [60, 50, 40]}


def test_doubt_becomes_soft_labels(data: Dataset) -> None:
    """One-hot where nobody doubts."""
    items = (Item("a", "good", "a", "train"), Item("b", "scratch", "b", "train", (0.25, 0.75)))
    soft = soft_labels(items, data.classes)
    assert soft.dtype == np.float32
    assert soft.tolist() == [[1.0, 0.0], [0.25, 0.75]]


@pytest.mark.parametrize(
    ("aspects", "fit"), [((1.0, 1.0), "stretch"), ((1.2, 1.45), "stretch"), ((0.9, 1.2), "pad"), ((0.3, 3.0), "pad")]
)
def test_frames_of_many_shapes_are_padded(data: Dataset, aspects: tuple[float, float], fit: str) -> None:
    """Up to a quarter of difference in aspect ratio is stretched away."""
    spec = spec_for(replace(data, frame_aspects=aspects), 64, 96)
    assert (spec.fit, spec.height, spec.width, spec.channels) == (fit, 64, 96, 1)


def test_a_size_below_one_is_refused(data: Dataset) -> None:
    """As the user's mistake."""
    with pytest.raises(InputError, match="0x40"):
        spec_for(data, 0, 40)


def test_the_cache_follows_the_manifest(data: Dataset) -> None:
    """Moving an image to another split is seen."""
    spec = spec_for(data, 24, 40)
    before = load_split(data, spec, "test")
    items = tuple(replace(item, split="train") if item.path == before.paths[0] else item for item in data.items)
    changed = write_dataset(replace(data, items=items), data.folder or Path())
    assert before.paths[0] not in load_split(changed, spec, "test").paths
    assert len(load_split(changed, spec, "test").images) == len(before) - 1
