"""Cameras that OpenCV can read: RTSP streams through FFmpeg, and V4L2 devices.

FFmpeg hides damaged pictures of a compressed stream as well as it can: what a lost packet did to a picture is then not
known here. Over TCP, which is used, packets are not lost but late.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from appliance.sources.grabber import CameraError, WrongCameraError
from appliance.sources.protocol import ShotError
from appliance.words import Reason
from calibration.preprocess import Frame

OPTIONS_KEY = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
FFMPEG_OPTIONS = "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay|err_detect;explode"
_SECRET = re.compile(r"//[^/@]*@")


def without_secret(url: str) -> str:
    """A URL without user and password, for messages."""
    return _SECRET.sub("//", url)


class OpenCvDriver:
    """See Driver."""

    def __init__(self, where: str, backend: int, parameters: list[int], channels: int, what: str) -> None:
        """`where`: URL or device. `parameters`: of cv2.VideoCapture. `what`: the camera, for people."""
        self._where, self._backend, self._parameters = where, backend, parameters
        self._channels, self._what = channels, what
        self._capture: cv2.VideoCapture | None = None

    def open(self) -> None:
        """See Driver.open."""
        try:
            self._capture = cv2.VideoCapture(self._where, self._backend, self._parameters)
        except cv2.error as error:
            raise CameraError(f"{self._what}: {error.err}") from None
        if not self._capture.isOpened():
            raise CameraError(f"{self._what}: cannot be opened")

    def read(self) -> Frame:
        """See Driver.read."""
        if self._capture is None:
            raise CameraError(f"{self._what}: not open")
        try:
            good, picture = self._capture.read()
        except cv2.error as error:
            raise CameraError(f"{self._what}: {error.err}") from None
        if not good or picture is None:
            raise CameraError(f"{self._what}: no more pictures")
        return with_channels(picture, self._channels)

    def close(self) -> None:
        """See Driver.close."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None


class V4l2Driver(OpenCvDriver):
    """A V4L2 device that must be the one named. Not tried on a device: the machines it was written on have none."""

    def __init__(self, path: Path, name: str, parameters: list[int], channels: int) -> None:
        """`name`: that the kernel must give for the device; empty where any will do."""
        super().__init__(str(path), cv2.CAP_V4L2, parameters, channels, str(path))
        self._path, self._name = path, name

    def open(self) -> None:
        """See Driver.open."""
        if self._name and (found := v4l2_name(self._path)) != self._name:
            raise WrongCameraError(f"{self._path}: the device is {found!r}, not {self._name!r}")
        super().open()


class RtspDriver(OpenCvDriver):
    """A stream. FFmpeg's options reach it through the environment alone, and would cost a video file opened later in
    the same process its first picture: they are there only while a stream is opened.
    """

    def open(self) -> None:
        """See Driver.open."""
        before = os.environ.get(OPTIONS_KEY)
        os.environ.setdefault(OPTIONS_KEY, FFMPEG_OPTIONS)
        try:
            super().open()
        finally:
            if before is None:
                del os.environ[OPTIONS_KEY]


def rtsp_driver(url: str, timeout_ms: float, channels: int) -> RtspDriver:
    """A stream; opening it, and each picture, take at most `timeout_ms`."""
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(timeout_ms), cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(timeout_ms)]
    return RtspDriver(url, cv2.CAP_FFMPEG, limits, channels, without_secret(url))


def v4l2_driver(path: Path, name: str, width: int, height: int, channels: int) -> V4l2Driver:
    """A device, asked for this geometry; what it gives is checked with each picture."""
    wanted = [cv2.CAP_PROP_FRAME_WIDTH, width, cv2.CAP_PROP_FRAME_HEIGHT, height, cv2.CAP_PROP_BUFFERSIZE, 2]
    return V4l2Driver(path, name, wanted, channels)


def v4l2_name(path: Path) -> str:
    """What the kernel calls a device; empty where it knows none."""
    try:
        return Path(f"/sys/class/video4linux/{path.resolve().name}/name").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def with_channels(picture: NDArray[Any], channels: int) -> Frame:
    """A decoded picture as grey (H, W) or BGR (H, W, 3).

    Raises:
        ShotError: it is something else than 8-bit grey or colour.
    """
    if (
        picture.dtype != np.uint8
        or picture.ndim not in (2, 3)
        or (picture.ndim == 3 and picture.shape[2] not in (1, 3))
    ):
        raise ShotError(Reason.FORMAT, f"a picture of {picture.dtype} {picture.shape}, neither 8-bit grey nor colour")
    grey = picture.ndim == 2 or picture.shape[2] == 1
    if channels == 1:
        single = picture.reshape(picture.shape[:2]) if grey else cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        return np.asarray(single, np.uint8)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR) if grey else picture, np.uint8)
