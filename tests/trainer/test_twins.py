"""Near-twins: the same part found by its pixels, different parts of one product left alone."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support.folders import FolderSpec, write_folder
from trainer.data.scan import list_images, look_at
from trainer.data.twins import SIDE, find_twins, thumbnail, united

TILES = Path(__file__).parents[2].parent / "shared" / "data" / "magnetic-tile"


def part(seed: int, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """A part of one product: a common frame with an edge, and a texture of its own."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.normal(120, 18, (12, 16)).astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    image[:8] = image[-8:] = 20
    image[:, 30:34] = 230
    return image


def shot(image: np.ndarray, rng: np.random.Generator, gain: float = 1.0, shift: int = 0) -> np.ndarray:
    """One photograph of a part: exposure, shift and sensor noise."""
    moved = np.roll(image, shift, axis=1) * gain + rng.normal(0, 3, image.shape)
    return np.clip(moved, 0, 255).astype(np.uint8)


def thumbnails(frames: list[np.ndarray]) -> np.ndarray:
    return np.stack([thumbnail(frame) for frame in frames])


def test_other_exposure_a_small_shift_and_noise_leave_a_twin_a_twin() -> None:
    """Sixty parts, ten of them shot again darker and a pixel aside: exactly those ten pairs are found."""
    rng = np.random.default_rng(1)
    frames = [shot(part(seed), rng) for seed in range(60)]
    frames += [shot(part(seed), rng, gain=0.6, shift=1) for seed in range(10)]
    found = find_twins(thumbnails(frames))
    assert found.pairs.tolist() == [[seed, 60 + seed] for seed in range(10)]
    assert (found.similarity > 0.5).all()
    assert (found.similarity <= 1.0).all()


def test_good_parts_of_one_product_are_no_twins() -> None:
    """They look alike to a person, but nothing individual of theirs agrees."""
    rng = np.random.default_rng(2)
    assert len(find_twins(thumbnails([shot(part(seed), rng) for seed in range(80)])).pairs) == 0


def test_a_featureless_product_gives_no_twins() -> None:
    """Frames that differ by sensor noise alone carry nothing to recognise a part by."""
    rng = np.random.default_rng(3)
    assert len(find_twins(thumbnails([shot(part(0), rng) for _ in range(60)])).pairs) == 0


def test_only_pairs_from_different_splits_are_reported() -> None:
    """Twins in one split do no harm."""
    rng = np.random.default_rng(4)
    frames = [shot(part(seed // 2), rng) for seed in range(40)]
    same = [seed // 2 % 2 for seed in range(40)]
    assert len(find_twins(thumbnails(frames)).pairs) == 20
    assert len(find_twins(thumbnails(frames), same).pairs) == 0
    assert len(find_twins(thumbnails(frames), [seed % 2 for seed in range(40)]).pairs) == 20


def test_blocks_and_the_limit_per_image_lose_no_part() -> None:
    """1,100 copies of one frame among others are one group, though not all their 600,000 pairs are listed."""
    rng = np.random.default_rng(5)
    copies = [shot(part(0), rng)] * 1100
    frames = copies + [shot(part(seed), rng) for seed in range(1, 60)]
    twins = find_twins(thumbnails(frames))
    assert len(twins.pairs) <= 64 * 1100
    groups = united([str(i) for i in range(len(frames))], twins.pairs)
    assert set(groups[:1100]) == {"0"}
    assert len(set(groups)) == 60


def test_blank_frames_are_nobodys_twins() -> None:
    """A capped lens looks the same every time; that says nothing about the part."""
    blank = np.full((20, 30), 7, np.uint8)
    assert not thumbnail(blank).any()
    rng = np.random.default_rng(6)
    assert len(find_twins(thumbnails([blank] * 5 + [shot(part(s), rng) for s in range(20)])).pairs) == 0


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_very_small_sets_are_answered(count: int) -> None:
    """No image, one, two: no twins, no error."""
    rng = np.random.default_rng(7)
    frames = np.zeros((0, SIDE * SIDE), np.float32)
    if count:
        frames = thumbnails([shot(part(seed), rng) for seed in range(count)])
    assert find_twins(frames).pairs.shape == (0, 2)


def test_united_follows_chains() -> None:
    """a~b and b~c put all three together, under the first one's name, and declared groups come along."""
    assert united(["a", "b", "c", "d", "b"], np.array([[0, 1], [1, 2]])) == ("a", "a", "a", "d", "a")


def test_shots_of_generated_parts_are_found(tmp_path: Path) -> None:
    """Four shots of each of 30 parts: at least nine in ten images are paired, none with another part."""
    spec = FolderSpec(96, 128, (80, 40), shots=4)
    root = write_folder(tmp_path / "images", spec)
    paths = list_images(root).images
    with (root / "groups.csv").open() as file:
        group = {row["path"]: row["group"] for row in csv.DictReader(file)}
    twins = find_twins(look_at(root, paths).thumbnails).pairs
    assert all(group[paths[i]] == group[paths[j]] for i, j in twins.tolist())
    assert len(set(twins.ravel().tolist())) >= 0.9 * len(paths)


@pytest.mark.skipif(not TILES.exists(), reason="the magnetic tile photographs are not here")
def test_photographs_of_the_same_tile_are_found() -> None:
    """Of 1,344 real photographs 97 % are paired with one of the same tile, and none with one of another."""
    paths = list_images(TILES).images
    with (TILES / "groups.csv").open() as file:
        group = {row["path"]: row["group"] for row in csv.DictReader(file)}
    twins = find_twins(look_at(TILES, paths).thumbnails).pairs
    wrong = [(paths[i], paths[j]) for i, j in twins.tolist() if group[paths[i]] != group[paths[j]]]
    assert wrong == []
    assert len(set(twins.ravel().tolist())) / len(paths) > 0.97
