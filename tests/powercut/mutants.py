"""Device code that promises more than the disk has: each must be found by the checks that the real one passes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from deploy import files
from deploy.record import BUNDLE, STATE, TRUST
from deploy.slots import Slots
from deploy.steps import Steps

Mutant = Callable[[], AbstractContextManager[None]]


@contextmanager
def _instead(*changes: tuple[object, str, object]) -> Iterator[None]:
    """Attributes replaced for a while."""
    with ExitStack() as undo:
        for owner, name, new in changes:
            undo.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, new)
        yield


@contextmanager
def _without_sync(*functions: str) -> Iterator[None]:
    """These functions of deploy.files call no fsync."""
    within, sync = 0, os.fsync  # the recorder's or the system's, whichever is there when it is called

    def wrapped(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **named: Any) -> Any:
            nonlocal within, sync
            if not within:
                sync, os.fsync = os.fsync, lambda _handle: None
            within += 1
            try:
                return real(*words, **named)
            finally:
                within -= 1
                if not within:
                    os.fsync = sync

        return call

    with _instead(*((files, name, wrapped(getattr(files, name))) for name in functions)):
        yield


def _file_unsynced() -> AbstractContextManager[None]:
    """Small files are written and renamed; only their directory is synced."""

    def write(path: Path, data: bytes) -> None:
        part = path.with_name(path.name + files.PART)
        with files._private(part) as handle:
            files._write_all(handle, data)
        files.put_in_place(part, path)

    return _instead((files, "write_durably", write))


def _renamed_before_sync() -> AbstractContextManager[None]:
    def write(path: Path, data: bytes) -> None:
        part = path.with_name(path.name + files.PART)
        with files._private(part) as handle:
            files._write_all(handle, data)
            os.replace(part, path)
            os.fsync(handle)
        files.sync_directory(path.parent)

    return _instead((files, "write_durably", write))


def _written_in_place() -> AbstractContextManager[None]:
    def write(path: Path, data: bytes) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            files._write_all(handle, data)
            os.fsync(handle)
        finally:
            os.close(handle)
        files.sync_directory(path.parent)

    return _instead((files, "write_durably", write))


def _directory_unsynced(which: Callable[[Path], bool]) -> Mutant:
    def put(part: Path, path: Path) -> None:
        os.replace(part, path)
        if not which(part):
            files.sync_directory(path.parent)

    def sync(path: Path) -> None:
        if not which(path / BUNDLE if path.parent.name == "slots" else path / STATE):
            real(path)

    real = files.sync_directory
    return lambda: _instead((files, "put_in_place", put), (files, "sync_directory", sync))


def _postponed(name: str) -> Mutant:
    """The file of this name gets its place only after the next state has been written."""

    @contextmanager
    def plant() -> Iterator[None]:
        put, owed = files.put_in_place, []

        def later(part: Path, path: Path) -> None:
            if path.name == name:
                owed.append((part, path))
                return
            put(part, path)
            if path.name == STATE:
                while owed:
                    put(*owed.pop())

        with _instead((files, "put_in_place", later)):
            yield

    return plant


def _history_last() -> AbstractContextManager[None]:
    """A step first, its line afterwards."""
    note, write = Steps.note, Steps.write
    owed: list[tuple[Any, ...]] = []

    def later(self: Steps, what: str, *rest: Any) -> None:
        if what == "refuse":
            note(self, what, *rest)
        else:
            owed.append((self, what, *rest))

    def then(self: Steps, *words: Any) -> Any:
        made = write(self, *words)
        while owed:
            note(*owed.pop())
        return made

    return _instead((Steps, "note", later), (Steps, "write", then))


def _copied_over() -> AbstractContextManager[None]:
    """A bundle is written over the one in the slot."""
    copy = files.copy_part

    def over(source: Path, target: Path, progress: Callable[[int, int], None]) -> Path:
        part = copy(source, target, progress)
        os.replace(part, target)
        files.sync_directory(target.parent)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT, 0o600)  # what the caller looks at and renames
        try:
            files._write_all(handle, target.read_bytes())
            os.fsync(handle)
        finally:
            os.close(handle)
        return part

    return _instead((files, "copy_part", over))


MUTANTS: dict[str, Mutant] = {
    "small files not synced": _file_unsynced,
    "state renamed before it is synced": _renamed_before_sync,
    "state written in place": _written_in_place,
    "bundle not synced": lambda: _without_sync("copy_part"),
    "received bundle not synced": lambda: _without_sync("sync_file"),
    "nothing synced": lambda: _without_sync("copy_part", "write_durably", "append_durably", "sync_directory"),
    "no directory synced": _directory_unsynced(lambda _part: True),
    "directory of a slot not synced": _directory_unsynced(lambda part: part.name.startswith(BUNDLE)),
    "state written before the bundle is in place": _postponed(BUNDLE),
    "trust written after the state": _postponed(TRUST),
    "history written after the state": _history_last,
    "what a killed push left not synced": lambda: _instead((files, "settle", lambda _path: None)),
    "history not synced": lambda: _without_sync("append_durably"),
    "bundle copied over the one in the slot": _copied_over,
    "slot not cleared before its file is replaced": lambda: _instead((Slots, "cleared", lambda self, _sha256: self)),
}
