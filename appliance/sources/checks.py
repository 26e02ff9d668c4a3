"""What is wrong with a picture, as far as its pixels alone can tell. Pure."""

from __future__ import annotations

import cv2

from calibration.preprocess import Frame

GRAIN = 32
"""After the first pixel, every GRAIN-th is looked at when a frame is checked for being black."""

CONTRAST_GRAIN = 8
"""Every CONTRAST_GRAIN-th pixel of each direction says how much contrast there is."""


def is_dead(frame: Frame) -> bool:
    """Whether a frame is wholly black or wholly saturated."""
    level = frame.item(0)
    return level in (0, 255) and bool((frame[::GRAIN, ::GRAIN] == level).all()) and bool((frame == level).all())


def contrast(frame: Frame) -> float:
    """Standard deviation of the grey levels (of the channels, together): 0 for a picture of one level."""
    return float(cv2.meanStdDev(frame[::CONTRAST_GRAIN, ::CONTRAST_GRAIN].reshape(-1))[1].item())
