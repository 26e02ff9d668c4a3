"""What networks have in common that take a large frame whole and decide themselves what of it they look at, and how."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer.models.classifier import PIXEL_MEAN, PIXEL_SCALE, Classifier, ClassifierConfig


class FullResolution(Classifier):
    """Frames (N, C, H, W) of raw pixel values 0..255, uint8 or float -> logits (N, classes) float32.

    The backbone stays as it was trained on ImageNet. :meth:`lower` is all there is below the head, so what a cache
    holds are the features themselves, as (N, features, 1, 1).

    Attributes:
        together: frames that are looked at together while training, since whole frames are large.
    """

    together = 1

    def __init__(self, config: ClassifierConfig, extra: Sequence[int] = ()) -> None:
        """The features are those of two plain classifiers, and ``extra`` kinds of so many features."""
        super().__init__(config)
        self.pooled_sizes = (*self.pooled_sizes, *self.pooled_sizes, *extra)
        self.features = sum(self.pooled_sizes)
        self.register_buffer("feature_mean", torch.zeros(self.features))
        self.register_buffer("feature_scale", torch.ones(self.features))
        self.linear = nn.Linear(self.features, config.classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def separated(self) -> FullResolution:
        """The same network as an exporter wants it."""
        return self

    def look(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (N, C, H, W) float32 -> features (N, ``self.features``)."""
        raise NotImplementedError

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (N, C, H, W) float32 -> logits (N, classes)."""
        return self.classify(self.look(pixels))

    def lower(self, frames: Tensor, stages: int) -> Tensor:
        """All features, (N, features, 1, 1) float32, whatever the stages."""
        looked = [self.look(normalised(batch)) for batch in torch.split(frames, self.together)]
        return torch.cat(looked)[:, :, None, None]

    def embed(self, lower: Tensor, stages: int) -> Tensor:
        """Output of :meth:`lower` -> features (N, ``self.features``)."""
        return lower.flatten(1)


def normalised(frames: Tensor | NDArray[np.uint8]) -> Tensor:
    """Raw pixel values as the backbone takes them, float32."""
    pixels = (torch.as_tensor(frames).to(torch.float32) - PIXEL_MEAN) / PIXEL_SCALE
    return pixels.contiguous(memory_format=torch.channels_last)
