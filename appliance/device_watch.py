"""The daemon's eye on its device root: which bundle is to judge, and what the daemon has to say of it.

The installer and the daemon meet in the slot state alone. Nothing here waits: what cannot be said now, because
somebody else holds the lock or the disk is full, is said again later, in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

from deploy.install import Device
from deploy.record import STATE, STATE_COPY, DeviceError, read_state
from deploy.slots import Slot, SlotError, Slots


class DeviceWatch:
    """One device root; or none, where the station's bundle is a plain file.

    Attributes:
        slots: as they were when last looked at; None where there is no root.
        trouble: why the slots cannot be read, or the last word not be said yet; empty in good health.
    """

    def __init__(self, path: Path, station: str) -> None:
        """Look for the first time."""
        self._root = path if path.is_dir() else None
        self._who = f"appliance {station}"
        self._words: deque[Callable[[Device], object]] = deque()
        self._stamp: tuple[int, int] | None = None
        self.slots: Slots | None = None
        self.trouble = ""
        self.look()

    @property
    def wanted(self) -> Slot | None:
        """The slot whose bundle is to judge."""
        return None if self.slots is None else self.slots.active_slot

    @property
    def watches(self) -> bool:
        """Whether there is a device root."""
        return self._root is not None

    def look(self) -> None:
        """Say what is still to be said, and see what the slots are now."""
        if self._root is None:
            return
        self.trouble = ""
        self._say()
        try:
            stamp = _stamp(self._root)
            if stamp != self._stamp:
                self.slots, self._stamp = read_state(self._root), stamp
        except (OSError, DeviceError) as error:
            self.trouble = str(error)

    def confirm(self, sha256: str) -> None:
        """The bundle on trial has stood it."""
        self._tell(lambda device: device.confirm(sha256))

    def reject(self, sha256: str, reason: str) -> None:
        """The bundle on trial has failed."""
        self._tell(lambda device: device.reject(sha256, reason))

    def pause(self, sha256: str) -> None:
        """The daemon stops in good order during the trial."""
        self._tell(lambda device: device.pause(sha256))

    def _tell(self, word: Callable[[Device], object]) -> None:
        self._words.append(word)
        self._say()

    def _say(self) -> None:
        if self._root is None:
            self._words.clear()
            return
        device = Device(self._root, who=self._who)
        while self._words:
            try:
                self._words[0](device)
            except SlotError:
                pass  # somebody has decided otherwise meanwhile: the slots say what
            except DeviceError as error:
                self.trouble = str(error)
                return
            self._words.popleft()


def _stamp(root: Path) -> tuple[int, int]:
    """What changes with every change of the record: of its copy where the file itself is gone. Raises OSError."""
    try:
        stat = (root / STATE).stat()
    except FileNotFoundError:
        stat = (root / STATE_COPY).stat()
    return stat.st_mtime_ns, stat.st_ino
