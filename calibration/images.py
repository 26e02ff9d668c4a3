"""Decoding image files, the same way in training and on the line.

A compressed picture is untrusted input: its size is read from the header and refused above `MAX_PIXELS` before a
pixel is decoded (a 389 kB PNG can otherwise claim gigabytes). OpenCV has such a limit too, but only takes it from the
environment at its first import, which may have come before ours.
"""

from __future__ import annotations

import os
from pathlib import Path

MAX_PIXELS = 64_000_000
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from calibration.imagesize import claimed_size  # noqa: E402
from calibration.preprocess import Frame  # noqa: E402

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff")


class ImageError(ValueError):
    """The bytes are no readable image."""


def decode_image(data: bytes, channels: int, name: str = "image") -> Frame:
    """Decode an image to uint8 grey (H, W) for channels 1 or BGR (H, W, 3) for channels 3.

    16-bit images are reduced to their upper 8 bits. EXIF rotation is ignored: a camera's pixels stay where they are.

    Raises:
        ImageError: empty, truncated, of more than MAX_PIXELS, or no PNG, JPEG, BMP or TIFF.
    """
    if not data:
        raise ImageError(f"{name}: the file is empty")
    try:
        height, width = claimed_size(data)
    except ValueError as error:
        raise ImageError(f"{name}: not a readable image ({error})") from None
    if height * width > MAX_PIXELS:
        raise ImageError(f"{name}: {width}x{height} pixels are more than the {MAX_PIXELS} that are read")
    colour = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_BGR
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), colour | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError(f"{name}: {error.err or 'cannot be decoded'}") from None
    if image is None or image.shape[:2] != (height, width):
        raise ImageError(f"{name}: not a readable image (damaged or cut short)")
    return np.asarray(image, dtype=np.uint8)


def read_image(path: Path, channels: int) -> Frame:
    """Read and decode one file. Raises ImageError for whatever is wrong with it, a missing file included."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from None
    return decode_image(data, channels, str(path))


def is_grey(path: Path) -> bool:
    """Whether the file's pixels carry no colour (one channel, or three equal ones). Raises ImageError."""
    image = read_image(path, 3)
    return bool((image[:, :, 0] == image[:, :, 1]).all() and (image[:, :, 1] == image[:, :, 2]).all())
