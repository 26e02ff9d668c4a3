"""Tiling: a large frame judged in full resolution, in tiles that overlap.

A tile is looked at as a small frame would be. What the tiles say is joined twice: the mean over them is about what one
look at the whole frame would give, and the largest of them is of the tile where a feature is strongest: a defect that
is lost in the mean of a frame stands out in the mean of its tile. Everything is one graph from the whole frame to
logits; all tiles of a frame are one batch of it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from calibration.errors import InputError
from trainer.models.classifier import ClassifierConfig
from trainer.models.full_resolution import FullResolution

SIDE = 512
"""Longest side of a tile in pixels: larger ones dilute small defects, smaller ones overlap more."""

OVERLAP = 64
"""Pixels that neighbouring tiles share at least: what is no larger lies whole in one of them."""

ALIGNED = 32
"""Sides of tiles are multiples of this where the frame has room: the stride of the last map."""


@dataclass(frozen=True)
class TilesConfig(ClassifierConfig):
    """What a TiledFrame is built from.

    rows, columns: of tiles, >= 1, more than one in all. tile_height, tile_width: of each in pixels, >= 32. Any frame
    that is no larger than the tiles together and no smaller than one of them can be judged.
    """

    tile_height: int = SIDE
    tile_width: int = SIDE
    rows: int = 1
    columns: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.rows, self.columns) < 1 or self.rows * self.columns < 2:
            raise InputError(f"tiling: {self.rows} rows of {self.columns} tiles; it needs at least two tiles")
        if min(self.tile_height, self.tile_width) < 32:
            raise InputError(
                f"tiling: tiles are {self.tile_width}x{self.tile_height}; a stride-32 network needs 32 pixels"
            )


def with_tiles(config: ClassifierConfig, height: int, width: int) -> TilesConfig:
    """The configuration with tiles for frames of this size in pixels.

    Raises InputError where one tile holds the frame, or the frame is too narrow.
    """
    if min(height, width) < 32:
        raise InputError(f"tiling: frames of {width}x{height} are too narrow for tiles; use recipe quick")
    (rows, tile_height), (columns, tile_width) = _split(height), _split(width)
    if rows * columns == 1:
        raise InputError(f"tiling: frames of {width}x{height} fit into one tile; use recipe quick")
    return TilesConfig(**asdict(config), tile_height=tile_height, tile_width=tile_width, rows=rows, columns=columns)


def _split(length: int) -> tuple[int, int]:
    """Into how many tiles, and how long each is."""
    if length <= SIDE:
        return 1, length
    count = -(-(length - OVERLAP) // (SIDE - OVERLAP))
    least = -(-(length + (count - 1) * OVERLAP) // count)
    return count, min(length, -(-least // ALIGNED) * ALIGNED)


def starts(length: int, tile: int, count: int) -> list[int]:
    """Where ``count`` tiles begin on a side of ``length`` pixels, evenly spread from its beginning to its end."""
    return [round(i * (length - tile) / max(1, count - 1)) for i in range(count)]


class TiledFrame(FullResolution):
    """Mean and maximum over the tiles of each pooled feature of a tile; see FullResolution."""

    def __init__(self, config: TilesConfig) -> None:
        super().__init__(config)
        self.tiles_config = config

    def cut(self, pixels: Tensor) -> Tensor:
        """The tiles of frames (N, C, H, W): (tiles * N, C, tile_height, tile_width), row by row, each of all frames.

        Raises InputError for frames that the tiles do not cover, or that are smaller than a tile.
        """
        config, (height, width) = self.tiles_config, pixels.shape[2:]
        tall, wide = config.tile_height, config.tile_width
        fits = tall <= height <= config.rows * tall and wide <= width <= config.columns * wide
        if not fits:
            raise InputError(
                f"tiling: {config.columns}x{config.rows} tiles of {wide}x{tall} do not fit frames of {width}x{height}"
            )
        tops, lefts = starts(height, tall, config.rows), starts(width, wide, config.columns)
        return torch.cat([pixels[:, :, y : y + tall, x : x + wide] for y in tops for x in lefts])

    def look(self, pixels: Tensor) -> Tensor:
        """See FullResolution."""
        maps = self.backbone.upper(self.backbone.lower(self.cut(pixels), 0), 0)
        features = self.pool(*maps)
        seen = features.reshape(self.tiles_config.rows * self.tiles_config.columns, -1, features.shape[1])
        return torch.cat((seen.mean(0), seen.amax(0)), 1)
