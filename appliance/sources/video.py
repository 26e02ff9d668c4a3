"""Replaying a video file, picture by picture."""

from __future__ import annotations

from pathlib import Path

import cv2

from appliance.sources.opencv import with_channels
from appliance.sources.protocol import Shot, ShotError
from appliance.words import Reason
from calibration.errors import InputError
from calibration.preprocess import Frame


class VideoSource:
    """See Source. A picture that the file announces and nobody can decode is a reject, never the one before again."""

    live = False

    def __init__(self, path: Path, fps: float, loop: bool, count: int | None, channels: int, start: int) -> None:
        """Raises InputError: no such file, or no video."""
        self.fps = fps
        self._path, self._channels, self._next = path, channels, start
        if not path.is_file():
            raise InputError(f"{path}: no such file; set the camera's path to a video")
        self._capture = self._opened()
        self._frames = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if self._frames < 1:
            raise InputError(f"{path}: it does not say how many pictures it has; convert it to one that does")
        self._at = 0
        self._end = count if loop else min(self._frames, self._frames if count is None else count)

    def shoot(self) -> Shot | None:
        """See Source.shoot."""
        if self._end is not None and self._next >= self._end:
            return None
        index = self._next % self._frames
        self._next += 1
        return Shot(f"{self._path.name}#{index}", lambda: self._read(index))

    def _read(self, index: int) -> Frame:
        """Picture `index`. Pictures depend on those before them: they are read on to it, never jumped to."""
        if index < self._at:
            self._capture.release()
            self._capture, self._at = self._opened(), 0
        while self._at < index:
            self._capture.grab()
            self._at += 1
        self._at += 1
        good, picture = self._capture.read()
        if not good or picture is None:
            raise ShotError(Reason.DECODE, f"picture {index} of {self._frames} cannot be decoded")
        return with_channels(picture, self._channels)

    def _opened(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise InputError(f"{self._path}: no video that can be read; convert it, for example to Motion JPEG")
        return capture
