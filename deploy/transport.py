"""A way to a device, and the one to a device root on this machine. deploy.ssh is the other one."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from calibration.errors import InputError
from deploy.install import Device, Report
from deploy.record import DeviceStatus, check_usable, holds, read_state, read_status, read_trust
from deploy.slots import SlotName, Slots


class TransportError(InputError):
    """The device could not be reached, or the connection was cut. Nothing half-done can be seen there: try again."""


class Transport(Protocol):
    """A way to one device. All methods raise InputError (TransportError, DeviceError, SlotError, ...) on failure."""

    address: str

    def slots(self) -> Slots:
        """What the device holds; empty slots where nothing was ever pushed to it."""

    def enrolled(self) -> bool:
        """Whether it asks for signatures. One that does not is a device in development."""

    def verify(self, file: Path) -> None:
        """Raise TrustError where the device would refuse this bundle; nothing is changed."""

    def intact(self, slot: SlotName, sha256: str) -> bool:
        """Whether the file in a slot is this bundle, every byte of it."""

    def repair(self, file: Path, progress: Report) -> Slots:
        """Put a whole copy of a bundle back into the slot that holds it damaged."""

    def status(self, steps: int) -> DeviceStatus:
        """The same in full, the files verified, with the last `steps` steps of the history."""

    def stage(self, file: Path, progress: Report) -> Slots:
        """Copy a bundle into the spare slot, verified."""

    def activate(self, sha256: str) -> Slots:
        """Put this bundle, which is staged, on trial."""

    def rollback(self, reason: str) -> Slots:
        """Go back to the bundle before."""

    def close(self) -> None:
        """Hang up. The next call reaches the device anew."""


class LocalTransport:
    """A device root on this machine: `file:DIR`."""

    def __init__(self, root: Path) -> None:
        self.address = f"file:{root}"
        self._root, self._device = root, Device(root)

    def slots(self) -> Slots:
        """As Transport."""
        return read_state(self._root) if check_usable(self._root) else Slots()

    def enrolled(self) -> bool:
        """As Transport."""
        return read_trust(self._root) is not None

    def verify(self, file: Path) -> None:
        """As Transport."""
        self._device.verify(file)

    def intact(self, slot: SlotName, sha256: str) -> bool:
        """As Transport."""
        return holds(self._root, slot, sha256)

    def repair(self, file: Path, progress: Report) -> Slots:
        """As Transport."""
        return self._device.repair(file, progress)

    def status(self, steps: int) -> DeviceStatus:
        """As Transport."""
        return read_status(self._root, steps)

    def stage(self, file: Path, progress: Report) -> Slots:
        """As Transport."""
        return self._device.stage(file, progress)

    def activate(self, sha256: str) -> Slots:
        """As Transport."""
        return self._device.activate(sha256)

    def rollback(self, reason: str) -> Slots:
        """As Transport."""
        return self._device.rollback(reason)

    def close(self) -> None:
        """As Transport."""
