"""How a frame was taken, in two numbers that know nothing of parts or classes: its brightness and its sharpness.

A lamp that ages, a shutter that was moved or a film of dust changes these long before enough verdicts have changed to
show it, and says what to look at. Neither moves with the other: sharpness is a share of the frame's own contrast, and
light that fades by a factor leaves it as it is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Appearance(NamedTuple):
    """brightness: mean grey level, 0 black to 1 white. sharpness: share of the contrast (standard deviation) that a
    3x3 mean removes, 0 to 1; 0 for a frame of one colour."""

    brightness: float
    sharpness: float


def appearance(tensor: NDArray[np.uint8]) -> Appearance:
    """Of a preprocessed frame: uint8 (channels, height, width), C-contiguous, as PreprocessSpec.apply makes it."""
    import cv2

    planes = tensor.reshape(-1, tensor.shape[2])
    mean, contrast = cv2.meanStdDev(planes)
    _, smooth = cv2.meanStdDev(cv2.blur(planes, (3, 3)))
    total, left = float(contrast[0, 0]) ** 2, float(smooth[0, 0]) ** 2
    return Appearance(min(1.0, float(mean[0, 0]) / 255), max(0.0, 1 - left / total) ** 0.5 if total else 0.0)
