"""Altered copies of the training frames, the very same for two networks of different input sizes.

A student learns most from its teacher where both look at the same picture (Beyer et al., "Knowledge distillation: A
good teacher is patient and consistent", CVPR 2022), so what is drawn here is the alteration, in units of the frame,
and each network gets it at its own resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from trainer.features import Pixels
from trainer.models.classifier import FLIPS, Flips

SHIFT = 0.04
"""Largest shift, as a share of the frame's side; what comes in is a reflection."""

ZOOM = 0.06
"""Largest enlargement or reduction, as a share."""

JITTER = 0.1
"""Contrast and brightness vary by up to this share."""

MIXED = 0.5
"""Largest share of another frame that is blended in (mixup: Zhang et al., ICLR 2018)."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Copies:
    """How each of n frames is altered in each copy; copy 0 is the frame itself.

    Attributes:
        place: float32 (copies, n, 2, 3), of ``torch.nn.functional.affine_grid``: mirror, zoom and shift.
        gain, offset: float32 (copies, n), contrast about grey level 127 and what is added to it.
        partner: int64 (copies, n), the frame that is blended in. share: float32 (copies, n), 0..MIXED, how much of it.
    """

    place: NDArray[np.float32]
    gain: NDArray[np.float32]
    offset: NDArray[np.float32]
    partner: Rows
    share: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.gain)

    def render(self, frames: Pixels, rows: Rows, copies: Rows) -> Tensor:
        """Copies ``copies`` of frames ``rows``: uint8 (len(rows), C, H, W).

        Args:
            frames: all n of them, uint8 (n, C, H, W), of any size.
        """
        at = (copies, rows)
        share = torch.from_numpy(self.share[at])[:, None, None, None]
        others = torch.from_numpy(frames[self.partner[at]]).float()
        mixed = torch.from_numpy(frames[rows]).float() * (1 - share) + others * share
        grid = F.affine_grid(torch.from_numpy(self.place[at]), list(mixed.shape), align_corners=False)
        placed = F.grid_sample(mixed, grid, padding_mode="reflection", align_corners=False)
        gain, offset = (torch.from_numpy(value[at])[:, None, None, None] for value in (self.gain, self.offset))
        return ((placed - 127) * gain + 127 + offset).round().clamp(0, 255).to(torch.uint8)

    def targets(self, targets: NDArray[np.float32], rows: Rows, copies: Rows) -> Tensor:
        """What the copies show, float32 (len(rows), classes), from what the frames show: (n, classes)."""
        share = self.share[copies, rows][:, None]
        return torch.from_numpy(targets[rows] * (1 - share) + targets[self.partner[copies, rows]] * share)


def draw_copies(frames: int, copies: int, flips: Flips, seed: int) -> Copies:
    """Alterations of ``frames`` frames, drawn from ``seed``.

    Args:
        copies: >= 1, with the unaltered one.
        flips: the mirrored views that a copy may show.
    """
    rng = np.random.default_rng([13, seed])
    shape = (copies, frames)
    views = [[-1.0 if 3 in axes else 1.0, -1.0 if 2 in axes else 1.0] for axes in FLIPS[flips]]
    mirror = np.array(views)[rng.integers(0, len(views), shape)]
    place = np.zeros((*shape, 2, 3))
    place[..., 0, 0] = mirror[..., 0] * (1 + rng.uniform(-ZOOM, ZOOM, shape))
    place[..., 1, 1] = mirror[..., 1] * (1 + rng.uniform(-ZOOM, ZOOM, shape))
    place[..., 2] = 2 * rng.uniform(-SHIFT, SHIFT, (*shape, 2))  # its unit is half the frame
    gain, offset = 1 + rng.uniform(-JITTER, JITTER, shape), 127 * rng.uniform(-JITTER, JITTER, shape)
    share = rng.uniform(0, MIXED, shape)
    place[0], gain[0], offset[0], share[0] = np.eye(2, 3), 1, 0, 0
    partner = rng.integers(0, frames, shape)
    floats = (array.astype(np.float32) for array in (place, gain, offset, share))
    placed, contrast, brightness, blended = floats
    return Copies(placed, contrast, brightness, partner, blended)
