"""Files that hold a secret: readable by their owner alone, or not used."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from calibration.errors import InputError

SECRET_MAX = 4096


def read_secret(path: Path) -> str:
    """The file's text without outer space.

    Raises:
        InputError: missing, too long, no text, of another user, or readable by others; what to do about it.
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            data = file.read(SECRET_MAX + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; it must hold a secret") from None
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise InputError(f"{path}: others may read it (mode {stat.S_IMODE(found.st_mode):04o}); chmod 600 {path}")
    if found.st_uid not in (os.getuid(), 0):
        raise InputError(f"{path}: it belongs to user {found.st_uid}; chown it to user {os.getuid()}")
    if len(data) > SECRET_MAX or not data.strip():
        raise InputError(f"{path}: empty or longer than {SECRET_MAX} bytes; it must hold a secret")
    try:
        return data.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise InputError(f"{path}: no text; it must hold a secret") from None


def write_secret(path: Path, text: str) -> None:
    """A new file of mode 0600, durable. Raises FileExistsError where there is one, OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
