"""Tiling: the tiles cover the frame, and each is looked at as a small frame would be."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calibration.errors import InputError
from trainer.models.build import build, config_from_json
from trainer.models.classifier import Classifier, ClassifierConfig
from trainer.models.full_resolution import normalised
from trainer.models.tiles import OVERLAP, SIDE, TiledFrame, TilesConfig, starts, with_tiles
from trainer.recipes import ATTENTION_CROP, TILES

PLAIN = ClassifierConfig(classes=2, channels=1)
CONFIG = TilesConfig(classes=2, channels=1, tile_height=48, tile_width=64, rows=2, columns=3)


@pytest.fixture(scope="module")
def model() -> TiledFrame:
    """ImageNet weights, six tiles."""
    made = TiledFrame(CONFIG)
    made.load_imagenet()
    made.eval()
    return made


def parts(n: int, height: int = 90, width: int = 150) -> np.ndarray:
    """Frames of noise around grey, uint8 (n, 1, height, width)."""
    rng = np.random.default_rng(n)
    return rng.normal(120, 30, (n, 1, height, width)).clip(0, 255).astype(np.uint8)


@given(st.integers(32, 4096), st.integers(SIDE + 1, 4096))
def test_tiles_cover_the_frame_and_overlap(height: int, width: int) -> None:
    """No pixel is left out, none is invented, and neighbours share what a small defect needs to lie whole in one."""
    config = with_tiles(PLAIN, height, width)
    for length, tile, count in (
        (height, config.tile_height, config.rows),
        (width, config.tile_width, config.columns),
    ):
        begins = starts(length, tile, count)
        assert begins[0] == 0
        assert begins[-1] + tile == length
        assert all(a + tile - b >= OVERLAP for a, b in pairwise(begins))
        assert tile <= SIDE


def test_a_tile_is_a_window_of_its_frame(model: TiledFrame) -> None:
    """Row by row, each tile of all frames together, pixel for pixel."""
    frames = parts(2)
    tiles = (model.cut(normalised(frames)) * 128 + 127).numpy().reshape(2, 3, 2, 48, 64)
    for row, top in enumerate((0, 42)):
        for column, left in enumerate((0, 43, 86)):
            np.testing.assert_array_equal(tiles[row, column], frames[:, 0, top : top + 48, left : left + 64])


def test_features_are_mean_and_maximum_over_the_tiles(model: TiledFrame) -> None:
    """As a plain classifier sees each tile by itself."""
    frames = parts(2)
    plain = Classifier(PLAIN)
    plain.load_imagenet()
    plain.eval()
    with torch.no_grad():
        features = model.embed(model.lower(torch.from_numpy(frames), 0), 0)
        tiles = model.cut(torch.from_numpy(frames).float())
        each = plain.embed(plain.lower(tiles, 0), 0).reshape(6, 2, -1)
    assert features.shape == (2, model.features)
    torch.testing.assert_close(features, torch.cat((each.mean(0), each.amax(0)), 1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns", "tile_height", "tile_width"),
    [(1024, 1280, 3, 3, 384, 480), (96, 2048, 1, 5, 96, 480), (2048, 400, 5, 1, 480, 400)],
)
def test_tiles_follow_the_size_of_the_frame(
    height: int, width: int, rows: int, columns: int, tile_height: int, tile_width: int
) -> None:
    """As few as cover it; a run's settings bring the same network back."""
    config = with_tiles(PLAIN, height, width)
    assert (config.rows, config.columns, config.tile_height, config.tile_width) == (
        rows,
        columns,
        tile_height,
        tile_width,
    )
    assert config_from_json(config.to_json()) == config
    assert isinstance(build(config), TiledFrame)


def test_what_cannot_be_tiled_is_refused_with_a_remedy(model: TiledFrame) -> None:
    """A frame of one tile, one too narrow, one that the tiles do not fit, and recipes that contradict themselves."""
    with pytest.raises(InputError, match="fit into one tile; use recipe quick"):
        with_tiles(PLAIN, 480, 512)
    with pytest.raises(InputError, match="too narrow"):
        with_tiles(PLAIN, 31, 1024)
    with pytest.raises(InputError, match="do not fit frames of 200x90"):
        model.cut(normalised(parts(1, 90, 200)))
    with pytest.raises(InputError, match="at least two tiles"):
        replace(CONFIG, rows=1, columns=1)
    with pytest.raises(InputError, match="needs 32 pixels"):
        replace(CONFIG, tile_width=16)
    with pytest.raises(InputError, match="set epochs to 0"):
        replace(TILES, epochs=3)
    with pytest.raises(InputError, match="set one of them"):
        replace(ATTENTION_CROP, tiles=True)
    with pytest.raises(InputError, match="without anomaly and places"):
        replace(TILES, anomaly=True)
