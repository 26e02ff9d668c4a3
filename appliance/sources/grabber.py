"""Pictures of a live camera as they come: a thread reads the driver for ever, the process's main loop waits for none.

A driver that fails is closed, and opened again after a while, for ever. Of one that hangs `hangs` tells: then the
process no longer says that it lives, and the supervisor kills it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import NamedTuple, Protocol

from appliance.sources.protocol import ShotError
from appliance.words import Reason
from calibration.preprocess import Frame

BACK_OFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)
KEEP = 4
"""Pictures kept until a trigger asks for them."""


class CameraError(RuntimeError):
    """The camera cannot be used as it is; it is closed and opened again."""


class WrongCameraError(CameraError):
    """Another camera than the one that station.toml names: its pictures are nobody's."""


class Picture(NamedTuple):
    """One picture, or what was wrong with it. at_ns: when it arrived, monotonic."""

    at_ns: int
    frame: Frame | None
    fault: tuple[Reason, str] | None = None


class Driver(Protocol):
    """One camera: blocking calls from one thread, each with a time-out of its own."""

    def open(self) -> None:
        """Connect and start. Raises CameraError, WrongCameraError."""

    def read(self) -> Frame:
        """The next picture, in memory of its own. Raises CameraError; ShotError where one came that is unusable."""

    def close(self) -> None:
        """Give it back; may be called at any time, and more than once."""


class Grabber:
    """The thread around one driver.

    Attributes:
        trouble: what is wrong with the camera; empty while pictures come.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._pictures: deque[Picture] = deque()
        self._new = threading.Condition()
        self._dropped_ns = 0
        self._busy_ns: int | None = None
        self._refusal: tuple[Reason, str] | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="grabber", daemon=True)
        self.trouble = "not opened yet"

    def start(self) -> None:
        """Open the camera in the background; may be called again."""
        if self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        """Ask the thread to close the camera and end; wait for it a moment."""
        with self._new:
            self._stopping = True
            self._new.notify_all()
        if self._thread.ident is not None:
            self._thread.join(1.0)

    def hangs(self, now_ns: int, limit_ns: int) -> bool:
        """Whether a call of the driver lasts longer than that, or the thread has died."""
        busy_ns = self._busy_ns
        if busy_ns is not None and now_ns >= busy_ns + limit_ns:
            return True
        return self._thread.ident is not None and not self._thread.is_alive() and not self._stopping

    def first_since(self, since_ns: int, timeout_ns: int) -> Frame:
        """The first picture that arrived at or after `since_ns` (monotonic); waits for it at most `timeout_ns`.

        Raises:
            ShotError: none came, it came and is no longer kept, or something is wrong with it.
        """
        until = time.monotonic_ns() + timeout_ns
        with self._new:
            while True:
                if self._refusal is not None:
                    raise ShotError(*self._refusal)
                if self._dropped_ns >= since_ns:
                    raise ShotError(Reason.STALE, "its picture was overwritten by later ones before it was fetched")
                picture = next((one for one in self._pictures if one.at_ns >= since_ns), None)
                if picture is not None:
                    break
                left = until - time.monotonic_ns()
                if left <= 0:
                    old = " (only older ones)" if self._pictures else ""
                    raise ShotError(
                        Reason.NO_FRAME, self.trouble or f"no picture within {timeout_ns / 1e6:.0f} ms{old}"
                    )
                self._new.wait(left / 1e9)
        if picture.fault is not None:
            raise ShotError(*picture.fault)
        assert picture.frame is not None  # noqa: S101  a picture without a fault has a frame
        return picture.frame

    def next_time(self, after_ns: int) -> int | None:
        """When the first picture after `after_ns` arrived; None where none has yet: how one that runs free triggers.

        Where pictures came and went unasked, that of the last of them, so that there is a reject to see."""
        with self._new:
            if self._dropped_ns > after_ns:
                return self._dropped_ns
            return next((one.at_ns for one in self._pictures if one.at_ns > after_ns), None)

    def _run(self) -> None:
        tries = 0
        while not self._stopping:
            try:
                self._busy_ns = time.monotonic_ns()
                self._driver.open()
                self._refusal, self.trouble = None, ""
                tries = self._read_on(tries)
            except CameraError as error:
                self._lost(error)
            except Exception as error:  # the top of a worker: a camera's driver may raise anything
                self._lost(CameraError(f"{type(error).__name__}: {error}"))
            self._driver.close()
            self._busy_ns = None
            with self._new:
                self._new.wait_for(lambda: self._stopping, BACK_OFF_S[min(tries, len(BACK_OFF_S) - 1)])
            tries += 1

    def _read_on(self, tries: int) -> int:
        """Read until told to stop; the number of failed tries: none any more once a picture came."""
        while not self._stopping:
            self._busy_ns = time.monotonic_ns()
            try:
                frame = self._driver.read()
            except ShotError as error:
                self._keep(Picture(time.monotonic_ns(), None, (error.reason, str(error))))
            else:
                self._keep(Picture(time.monotonic_ns(), frame))
            tries = 0
        return tries

    def _keep(self, picture: Picture) -> None:
        with self._new:
            if len(self._pictures) == KEEP:
                self._dropped_ns = self._pictures.popleft().at_ns
            self._pictures.append(picture)
            self._new.notify_all()

    def _lost(self, error: CameraError) -> None:
        with self._new:
            self.trouble = str(error)
            if isinstance(error, WrongCameraError):
                self._refusal = (Reason.CAMERA, str(error))
            self._pictures.clear()
            self._new.notify_all()
