"""Replaying recorded frames: image files in name order, or raw frames of one .npy file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from appliance.sources.protocol import Shot, ShotError
from appliance.words import Reason
from calibration.errors import InputError
from calibration.images import IMAGE_SUFFIXES, ImageError, decode_image
from calibration.preprocess import Frame


class Replay:
    """Recorded frames, in order, once or again and again.

    Trigger k shows frame k modulo the number of frames; which makes `start` exact after a restart.

    Attributes:
        names: of the frames, in order.
    """

    live = False

    def __init__(
        self,
        names: Sequence[str],
        read: Callable[[int], Frame],
        fps: float,
        loop: bool,
        count: int | None,
        start: int,
    ) -> None:
        """`count` bounds the triggers; without `loop` there are never more than frames."""
        self.fps, self.names = fps, names
        self._read, self._next = read, start
        self._end = count if loop else min(len(names), len(names) if count is None else count)

    def shoot(self) -> Shot | None:
        """The next trigger; None after the last."""
        if self._end is not None and self._next >= self._end:
            return None
        index = self._next % len(self.names)
        self._next += 1
        return Shot(self.names[index], partial(self._read, index))


def folder_source(path: Path, fps: float, loop: bool, count: int | None, channels: int, start: int) -> Replay:
    """Image files of a directory and everything below it, in order of their relative names.

    Raises:
        InputError: no such directory, or no image in it.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such directory; set the camera's path to a folder of images")
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not files:
        raise InputError(f"{path}: no image in it ({', '.join(IMAGE_SUFFIXES)}); put at least one there")

    def read(index: int) -> Frame:
        file = files[index]
        try:
            data = file.read_bytes()
        except OSError as error:
            raise ShotError(Reason.NO_FRAME, error.strerror or str(error)) from None
        try:
            return decode_image(data, channels, file.name)
        except ImageError as error:
            raise ShotError(Reason.DECODE, str(error)) from None

    names = [os.fsencode(file.relative_to(path)).decode("utf-8", "replace") for file in files]
    return Replay(names, read, fps, loop, count, start)


def raw_source(path: Path, fps: float, loop: bool, count: int | None, channels: int, start: int) -> Replay:
    """Frames of one .npy file, uint8 (n, height, width) grey or (n, height, width, 3) BGR, mapped and not decoded.

    Raises:
        InputError: no such file, or another kind of array.
    """
    try:
        frames = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}; give a .npy file of frames, uint8 (n, height, width[, 3])") from None
    if frames.dtype != np.uint8 or frames.ndim not in (3, 4) or len(frames) == 0:
        raise InputError(f"{path}: it is {frames.dtype} {frames.shape}; give frames, uint8 (n, height, width[, 3])")

    def read(index: int) -> Frame:
        return np.asarray(frames[index])

    return Replay([f"{path.name}#{index}" for index in range(len(frames))], read, fps, loop, count, start)
