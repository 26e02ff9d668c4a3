"""Making a bundle ready beside the one that judges, in a thread: opening it takes longer than a part may."""

from __future__ import annotations

import threading
from collections.abc import Callable

from appliance.config import Station
from appliance.post import Post
from deploy.bundle import Bundle
from deploy.install import Device
from deploy.record import DeviceBusy, open_active_slot
from deploy.slots import Slot, SlotState

Build = Callable[[Bundle, int], Post]
"""Makes the post of a bundle with slots from a number on; for a thread. Raises what is wrong with the bundle here."""

LOCK_WAIT_S = 5.0


class Warming(threading.Thread):
    """Opens the wanted bundle and makes its post, while parts go on.

    Attributes:
        sha256: of the bundle.
        post: made; None where there is a problem.
        problem: what is wrong with the bundle on this machine.
        again: it has to be tried again, since the device root was being changed.
    """

    def __init__(self, station: Station, slot: Slot, build: Build, first: int) -> None:
        """Start it."""
        super().__init__(name="warming", daemon=True)
        self.sha256 = slot.sha256
        self._root, self._who = station.station.bundle, f"appliance {station.station.name}"
        self._slot, self._build, self._first = slot, build, first
        self.post: Post | None = None
        self.problem, self.again = "", False
        self.start()

    def run(self) -> None:
        """Count the attempt first: what kills the daemon from here on is held against the bundle."""
        try:
            if self._slot.state is SlotState.TRIAL:
                Device(self._root, who=self._who, wait_s=LOCK_WAIT_S).attempt(self.sha256)
            bundle, _ = open_active_slot(self._root)
            if bundle.sha256 != self.sha256:
                raise DeviceBusy(f"{self._root}: another bundle was activated meanwhile")
            post = self._build(bundle, self._first)
            post.drift.prepare()
            self.post = post
        except DeviceBusy:
            self.again = True
        except Exception as error:  # the top of a worker: whatever it is, this bundle does not judge
            self.problem = str(error) or type(error).__name__
