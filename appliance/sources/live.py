"""Live cameras as a source: which picture belongs to which trigger, and whether it is one to be judged."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from appliance.sources.checks import contrast
from appliance.sources.grabber import Grabber
from appliance.sources.protocol import Shot, ShotError
from appliance.sources.triggers import Trigger
from appliance.words import Reason
from calibration.preprocess import Frame

if TYPE_CHECKING:
    from appliance.sources.listener import TriggerListener


PICTURE_MS = 5
"""A camera that runs free is asked so often whether it has given a picture."""


class LiveSource:
    """See Source. A trigger gets the first picture that arrived no sooner than `latency_ns` after it."""

    live = True

    def __init__(
        self,
        grabber: Grabber,
        fps: float,
        frame_ns: int,
        latency_ns: int = 0,
        geometry: tuple[int, int] | None = None,
        min_contrast: float = 0.0,
        hang_ns: int = 10**10,
        count: int | None = None,
    ) -> None:
        """
        Args:
            grabber: of the camera.
            fps: triggers a second; 0: every picture is one.
            frame_ns: how long a trigger waits for its picture.
            latency_ns: what arrives sooner after the trigger was exposed before it.
            geometry: (width, height) that the camera must give; None where any will do.
            min_contrast: grey levels; see checks.contrast.
            hang_ns: a driver that is silent for longer hangs.
            count: no more triggers than that.
        """
        self.fps = fps
        self._grabber, self._frame_ns, self._latency_ns = grabber, frame_ns, latency_ns
        self._geometry, self._min_contrast, self._hang_ns = geometry, min_contrast, hang_ns
        self._last_ns = time.monotonic_ns()
        self._shots, self._count = 0, count
        self._listener: TriggerListener | None = None

    def watch(self, listener: TriggerListener) -> None:
        """Whoever listens for this camera's triggers belongs to it: `hangs` and `trouble` tell of both."""
        self._listener = listener

    @property
    def trouble(self) -> str:
        """What is wrong with the camera or its triggers; empty while pictures come."""
        self._grabber.start()
        if self._grabber.trouble or self._listener is None or not self._listener.refused + self._listener.strangers:
            return self._grabber.trouble
        return f"{self._listener.refused} messages were no triggers, {self._listener.strangers} strangers knocked"

    @property
    def hangs(self) -> bool:
        """Whether its driver is stuck in a call, or nobody hears its triggers any more."""
        deaf = self._listener is not None and not self._listener.alive
        return deaf or self._grabber.hangs(time.monotonic_ns(), self._hang_ns)

    def triggered(self) -> Trigger | None:
        """A camera that runs free has triggered by itself, by a picture since the last shot; None where it has not."""
        self._grabber.start()
        self._latency_ns = 0  # such a picture is its own trigger
        at_ns = self._grabber.next_time(self._last_ns)
        return None if at_ns is None else Trigger(at_ns)

    def shoot(self) -> Shot | None:
        """See Source.shoot: a trigger of this moment."""
        return self.at(time.monotonic_ns())

    def at(self, triggered_ns: int) -> Shot | None:
        """The shot of a trigger at that time; None after the last."""
        if self._count is not None and self._shots >= self._count:
            return None
        self._grabber.start()
        self._shots += 1
        self._last_ns = triggered_ns
        return Shot(f"live-{self._shots}", partial(self._read, triggered_ns + self._latency_ns))

    def close(self) -> None:
        """Give the camera back, and its triggers."""
        if self._listener is not None:
            self._listener.close()
        self._grabber.stop()

    def _read(self, since_ns: int) -> Frame:
        frame = self._grabber.first_since(since_ns, self._frame_ns)
        height, width = frame.shape[:2]
        if self._geometry is not None and (width, height) != self._geometry:
            expected = f"{self._geometry[0]}x{self._geometry[1]}"
            raise ShotError(Reason.FORMAT, f"the camera gives {width}x{height} pixels, not {expected}")
        if self._min_contrast and (found := contrast(frame)) < self._min_contrast:
            raise ShotError(Reason.BAD_IMAGE, f"contrast {found:.1f} grey levels: lens cap, light or sensor")
        return frame
