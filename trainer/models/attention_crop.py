"""Attention cropping: find the unusual places of a large frame, look at them in full resolution, judge both.

The kind of network that RA-CNN (Fu et al., CVPR 2017) and NTS-Net (Yang et al., ECCV 2018) are, for defects that a
down-scaled frame has lost. Three looks at one frame, by one backbone:

- overview: the frame at a few hundred pixels, all the way up, for what is large;
- locate: at twice that, through the first stages only. The distance of each place's features from those of good parts
  (Mahalanobis, as in PaDiM: Defard et al., ICPR 2021, but one Gaussian for all places) says how unusual it is. It
  needs no boxes, and unlike an attention learned from a few hundred image labels it does not overfit;
- crops: the most unusual places, cut from the frame's own pixels, all the way up.

Everything is one graph from the whole frame to logits: a device needs no second pass of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from calibration.errors import InputError
from trainer.models.backbones import Backbone
from trainer.models.classifier import ClassifierConfig
from trainer.models.full_resolution import FullResolution, normalised

LOCATE_STAGES = 3
"""Stages of the locating look: stride 8, where a scratch of two pixels still is its own place."""

BORDER = 1
"""Places at each edge of the locating look that are left out: padding makes them unusual on every part. A defect there
still shows in their neighbours, and crops around those reach the edge."""

RIDGE = 0.01
"""Added to the features' covariance, as a share of their mean variance: directions in which good parts hardly vary
would otherwise turn rounding noise into distance."""

OVERVIEW, LOCATE, CROPS = range(3)
"""The looks."""

OVERVIEW_SIDE, LOCATE_SIDE = 320, 640
"""Long side of the frame in pixels, about, in the first two looks."""

CROP = 192
GOOD_FRAMES = 256
"""Good parts that the locator is fitted on, at most."""


@dataclass(frozen=True)
class AttentionCropConfig(ClassifierConfig):
    """What an AttentionCrop is built from.

    crops: how many places are looked at, >= 1. crop: their side in pixels of the frame. overview, locate: whole
    factors by which the frame is averaged down for these looks, >= 1; the first a multiple of the second.
    """

    crops: int = 2
    crop: int = CROP
    overview: int = 4
    locate: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.crops, self.locate, self.overview) < 1 or self.overview % self.locate:
            raise InputError(
                f"attention cropping: crops {self.crops}, overview {self.overview}, locate {self.locate}; each must "
                "be at least 1, and overview a multiple of locate"
            )
        if self.crop < 32:
            raise InputError(f"attention cropping: crop is {self.crop} pixels; a stride-32 network needs 32")


def with_crops(config: ClassifierConfig, crops: int, height: int, width: int) -> ClassifierConfig:
    """The configuration with attention cropping for frames of this size in pixels, or as it is where crops is 0.

    Raises InputError where the frames are too small to crop.
    """
    if not crops:
        return config
    long, short = max(height, width), min(height, width)
    if short < 64:
        raise InputError(f"attention cropping: frames of {width}x{height} are too small to crop; use recipe quick")
    locate = max(1, round(long / LOCATE_SIDE))
    overview = locate * max(1, round(long / OVERVIEW_SIDE / locate))
    crop = min(CROP, short // 2 // 16 * 16)
    return AttentionCropConfig(**asdict(config), crops=crops, crop=crop, overview=overview, locate=locate)


class AttentionCrop(FullResolution):
    """Features of the overview, the strongest of the crops, and how unusual these are; see FullResolution."""

    together = 4
    locate_mean: Tensor
    locate_whiten: Tensor

    def __init__(self, config: AttentionCropConfig) -> None:
        super().__init__(config, (config.crops,))
        self.crop_config = config
        with torch.no_grad():
            probe = self.backbone.lower(torch.zeros(1, config.channels, 64, 64), LOCATE_STAGES)
        self.stride = 64 // probe.shape[2] * config.locate
        self.register_buffer("locate_mean", torch.zeros(probe.shape[1]))
        self.register_buffer("locate_whiten", torch.eye(probe.shape[1]))
        self.own: nn.ModuleList | None = None

    def separated(self) -> AttentionCrop:
        """The same network with a backbone for each look, as an exporter wants it: batch norm folds into weights that
        one convolution has to itself, and each look's activations get a range and roundings of their own.
        """
        copy = deepcopy(self)
        copy.own = nn.ModuleList(deepcopy(self.backbone) for _ in range(3))
        return copy

    def _backbone(self, look: int) -> Backbone:
        return self.backbone if self.own is None else cast(Backbone, self.own[look])

    def fit_locator(self, frames: NDArray[np.uint8], good: NDArray[np.bool_], progress: Callable[..., None]) -> None:
        """Learn what good parts look like to the locating stages: mean and covariance over all their places.

        Args:
            frames: uint8 (n, C, H, W). good: bool (n,), which of them show good parts.
            progress: called with (what, done, total).

        Raises:
            InputError: none does.
        """
        rows = np.flatnonzero(good)
        if not len(rows):
            raise InputError("attention cropping: no training image of a good part; it needs some to know them by")
        rows = rows[np.linspace(0, len(rows) - 1, min(GOOD_FRAMES, len(rows))).astype(np.int64)]
        count, size = 0, len(self.locate_mean)
        total, squares = torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
        with torch.no_grad():
            for start in range(0, len(rows), self.together):
                seen = self._places(normalised(frames[rows[start : start + self.together]])).flatten(0, 1).double()
                count, total, squares = count + len(seen), total + seen.sum(0), squares + seen.T @ seen
                progress("good parts", min(start + self.together, len(rows)), len(rows))
            mean = total / count
            covariance = squares / count - torch.outer(mean, mean)
            ridge = RIDGE * covariance.diagonal().mean() + 1e-12
            precision = torch.linalg.inv(covariance + ridge * torch.eye(size, dtype=torch.float64))
            self.locate_mean.copy_(mean)
            self.locate_whiten.copy_(torch.linalg.cholesky(precision))

    def look(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (N, C, H, W) float32 -> features (N, ``self.features``): overview, crops, how unusual."""
        config = self.crop_config
        backbone = self._backbone(OVERVIEW)
        coarse = backbone.lower(self._reduced(pixels, config.overview), LOCATE_STAGES)
        overview = self.pool(*backbone.upper(coarse, LOCATE_STAGES))
        # where both looks are of one size, the locator's is the first part of the overview
        crops, distances = self.crops(pixels, coarse if config.overview == config.locate else None)
        backbone = self._backbone(CROPS)
        seen = self.pool(*backbone.upper(backbone.lower(crops, 0), 0))
        strongest = seen.reshape(-1, config.crops, seen.shape[1]).amax(1)
        return torch.cat((overview, strongest, torch.log1p(distances)), 1)

    def crops(self, pixels: Tensor, located: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The most unusual places of normalised pixels (N, C, H, W), most unusual first.

        Args:
            located: the map of the locating look where it is known already.

        Returns:
            Crops (N * crops, C, crop, crop), and each one's squared distance from good parts (N, crops), >= 0.
        """
        config, (channels, height, width) = self.crop_config, pixels.shape[1:]
        if min(height, width) < config.crop:
            raise InputError(f"attention cropping: frames of {width}x{height} are smaller than crops of {config.crop}")
        places = (self._places(pixels, located) - self.locate_mean) @ self.locate_whiten
        distance = places.square().sum(2)
        columns = _cells(width, config.locate, self.stride)
        rows = _cells(height, config.locate, self.stride)
        y = torch.arange(BORDER, BORDER + rows).repeat_interleave(columns) * self.stride
        x = torch.arange(BORDER, BORDER + columns).repeat(rows) * self.stride
        middle = (self.stride - config.crop) // 2
        corner = (y + middle).clamp(0, height - config.crop) * width + (x + middle).clamp(0, width - config.crop)
        corners, found = [], []
        for _ in range(config.crops):
            place = distance.argmax(1)
            found.append(distance.amax(1))
            corners.append(corner[place])
            away_y, away_x = (y - y[place][:, None]).abs(), (x - x[place][:, None]).abs()
            distance = torch.where(torch.maximum(away_y, away_x) < config.crop // 2, -1.0, distance)
        side = torch.arange(config.crop)
        within = side[:, None] * width + side
        offsets = (torch.arange(channels)[:, None] * (height * width) + within.flatten()).flatten()
        index = torch.stack(corners, 1)[:, :, None] + offsets
        cut = torch.gather(pixels.flatten(1), 1, index.flatten(1))
        return cut.reshape(-1, channels, config.crop, config.crop), torch.stack(found, 1).clamp(min=0)

    def _places(self, pixels: Tensor, located: Tensor | None = None) -> Tensor:
        """Features of the places in the locating look, without its border: (N, places, channels)."""
        if located is None:
            located = self._backbone(LOCATE).lower(self._reduced(pixels, self.crop_config.locate), LOCATE_STAGES)
        inner = located[:, :, BORDER:-BORDER, BORDER:-BORDER]
        return inner.flatten(2).transpose(1, 2)

    @staticmethod
    def _reduced(pixels: Tensor, factor: int) -> Tensor:
        """Averaged over squares of ``factor`` pixels: exact, and grey levels stay grey levels."""
        return pixels if factor == 1 else F.avg_pool2d(pixels, factor)


def _cells(size: int, factor: int, stride: int) -> int:
    """Places along one side of the locating look, without its border."""
    return -(-(size // factor) // (stride // factor)) - 2 * BORDER
