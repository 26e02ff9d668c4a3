"""One daemon per station: a lock that the kernel releases however its holder ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from calibration.errors import InputError


class StationBusyError(InputError):
    """Another process owns the station."""


@contextmanager
def station_lock(path: Path) -> Iterator[None]:
    """Own the station while the context lasts.

    The descriptor is not inherited by child processes, so a worker that outlives a killed daemon holds nothing.

    Raises:
        StationBusyError: another process owns it; the message names its pid.
        InputError: the file cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; set station.data to a directory that may be written") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise StationBusyError(
                f"{path.parent}: another daemon (pid {holder}) runs on this station; stop it first, "
                "or give this one its own station.data"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
