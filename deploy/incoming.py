"""Where a bundle that comes over the network waits until all of it is there, and its slot takes it: DIR/incoming.

Nobody judges, stages or shows what lies here. It is scratch: not synced, because a transfer goes on only from bytes
whose hash the sender has compared, so what a power cut tore or lost is sent again; the slots have their own rules.
One transfer at a time holds the lock, from its first byte until its bundle is on trial.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy import files
from deploy.bundle import BundleError
from deploy.record import INCOMING, DeviceBusy, DeviceError, check_usable, explained
from deploy.trust_record import signature_path

_LOCK = "lock"
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Incoming:
    """One bundle on its way onto a device.

    Args:
        root: of the device.
        sha256, size: of the bundle: hex, bytes.
        headroom: bytes that must stay free beside it.
    """

    def __init__(self, root: Path, sha256: str, size: int, headroom: int) -> None:
        self.root, self.sha256, self.size, self.headroom = root, sha256, size, headroom
        self.path = root / INCOMING / f"{sha256}.lgb"

    def begin(self, signature: bytes | None) -> tuple[int, str]:
        """What is there of it already, as (bytes, their SHA-256). Remains of other transfers are removed.

        Raises:
            DeviceError: no room, no permission.
        """
        try:
            kept = {_LOCK, self.path.name}
            for other in self.path.parent.iterdir():
                if other.name not in kept:
                    other.unlink()
            if signature is not None:
                files.write_durably(signature_path(self.path), signature)
            if self.path.exists() and self.path.stat().st_size > self.size:
                self.path.unlink()
            have = self.path.stat().st_size if self.path.exists() else 0
            self._check_room(self.size - have)
            with self.path.open("rb") if have else open(os.devnull, "rb") as file:
                return have, hashlib.sha256(file.read()).hexdigest()
        except OSError as error:
            raise explained(error, self.root) from None

    def receive(self, offset: int, read: Callable[[int], bytes]) -> None:
        """Take the bytes from `offset` to the end.

        Args:
            read: up to so many bytes from the sender, at least one. Raises where the sender is gone: what has come
                so far stays, for the next time.

        Raises:
            BundleError: what came is another file than was offered. DeviceError: no room, no such offset.
        """
        try:
            handle = os.open(self.path, _FLAGS, files.FILE_MODE)
        except OSError as error:
            raise explained(error, self.root) from None
        try:
            have = os.fstat(handle).st_size
            if offset > have:
                raise DeviceError(f"{self.path}: has {have} bytes, not {offset}; push again")
            digest = hashlib.sha256(os.pread(handle, offset, 0))
            os.ftruncate(handle, offset)
            while offset < self.size:
                chunk = read(min(files.CHUNK, self.size - offset))
                digest.update(chunk)
                _write_at(handle, chunk, offset)
                offset += len(chunk)
        except OSError as error:
            raise explained(error, self.root) from None
        finally:
            os.close(handle)
        if digest.hexdigest() != self.sha256:
            self.path.unlink()
            raise BundleError(f"bundle {self.sha256[:12]}: changed on its way; push it again")

    def clear(self) -> None:
        """Remove what is left of it: the file is its slot's now, or never will be."""
        for path in (self.path, signature_path(self.path)):
            path.unlink(missing_ok=True)

    def _check_room(self, needed: int) -> None:
        free = files.free_bytes(self.path.parent)
        if free < needed + self.headroom:
            raise DeviceError(
                f"{self.root}: {free >> 20} MiB free, {((needed + self.headroom) >> 20) + 1} MiB needed; "
                "free some space"
            )


@contextmanager
def transfer_lock(root: Path, wait_s: float) -> Iterator[None]:
    """Be the only one who sends something to this device. The directories are made where they are missing.

    Raises:
        DeviceBusy: somebody else is sending. DeviceError: no device root, no permission.
    """
    check_usable(root)
    try:
        files.make_directory(root / INCOMING)
        with files.exclusive(root / INCOMING / _LOCK, wait_s) as got:
            if not got:
                raise DeviceBusy(f"{root}: BUSY, somebody else is pushing to this device; try again later")
            yield
    except OSError as error:
        raise explained(error, root) from None


def _write_at(handle: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(handle, data, offset)
        data, offset = data[written:], offset + written
