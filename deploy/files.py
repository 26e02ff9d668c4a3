"""File operations that a power cut cannot leave half done, and the lock of a device root.

Durable means: the bytes are synced, then the name, then the directory that holds the name.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

FILE_MODE, DIRECTORY_MODE = 0o600, 0o700
CHUNK = 1 << 20
PART = ".part"


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_directory(path: Path) -> None:
    """A directory of mode 0700 and its parents, durable. One that exists is made private.

    Whoever made one that exists may have been killed before it was durable, so its name is synced again.
    """
    missing = {path, *(p for p in path.parents if not p.exists())}
    path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    path.chmod(DIRECTORY_MODE)
    for made in missing:
        sync_directory(made.parent)


def write_durably(path: Path, data: bytes) -> None:
    """Replace a small file: the old bytes or the new ones are there at any instant, never a mix."""
    part = path.with_name(path.name + PART)
    with _private(part) as handle:
        _write_all(handle, data)
        os.fsync(handle)
    put_in_place(part, path)


def put_in_place(part: Path, path: Path) -> None:
    """Give a synced file the name it is for, durably; what had that name is gone."""
    os.replace(part, path)
    sync_directory(path.parent)


def settle(path: Path) -> None:
    """Make durable a file that was found: whoever put it in place may have been killed before it was."""
    sync_file(path)
    sync_directory(path.parent)


def sync_file(path: Path) -> None:
    """Make the bytes of a file durable; its name is another matter."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def append_durably(path: Path, line: bytes) -> None:
    """Add one line (without its end) to a log. A torn last line of an earlier power cut is ended first."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        end = os.lseek(handle, 0, os.SEEK_END)
        torn = end > 0 and os.pread(handle, 1, end - 1) != b"\n"
        _write_all(handle, (b"\n" if torn else b"") + line + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)
    sync_directory(path.parent)


def copy_part(source: Path, target: Path, progress: Callable[[int, int], None]) -> Path:
    """Copy `source` beside `target`, under the name TARGET.part, synced; returns that path.

    Args:
        progress: called with (bytes done, bytes in all).
    """
    part = target.with_name(target.name + PART)
    with source.open("rb") as file, _private(part) as handle:
        total, done = os.fstat(file.fileno()).st_size, 0
        while chunk := file.read(CHUNK):
            _write_all(handle, chunk)
            done += len(chunk)
            progress(done, max(total, done))
        os.fsync(handle)
    return part


def digest_of(path: Path) -> str:
    """SHA-256 of a file, hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def free_bytes(path: Path) -> int:
    """What an ordinary user may still write to the file system of `path`."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


@contextmanager
def exclusive(path: Path, wait_s: float) -> Iterator[bool]:
    """Hold the lock file `path`; yields whether it was got within `wait_s` seconds. Freed when the process dies."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        yield _locked(handle, time.monotonic() + wait_s)
    finally:
        os.close(handle)


def _locked(handle: int, until: float) -> bool:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.02)
        else:
            return True


@contextmanager
def _private(path: Path) -> Iterator[int]:
    """A new file of mode 0600 opened for writing; a leftover of that name is removed first, not written through."""
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    try:
        yield handle
    finally:
        os.close(handle)


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
