"""What the file system of a device root may hold after a power cut: its operations recorded, then played to a model.

Recorded are the calls by which Python changes files. What a cut leaves is what POSIX promises and journaling file
systems may do: of a file, everything before its last sync, and of each write after it all, nothing, some of its
512-byte sectors, or its length filled with zeros; of a directory, everything before its last sync, and of the names
made, replaced and removed after it either the first few, as a journal keeps them, or any. A file that moves to another
directory may be found under both names, or under none.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple

SECTOR = 512
Data = Literal["lost", "kept", "torn", "zeros", "any"]
Names = Literal["lost", "kept", "journal", "any"]


class Operation(NamedTuple):
    """One change, of `path` below the root. Kinds: mkdir, create, write, truncate, sync, rename (to `target`), remove.

    A sync of a directory makes the names in it durable. `file` numbers the file that a write, truncation or sync of
    contents means, whatever it is called by then.
    """

    kind: str
    path: str
    file: int = -1
    offset: int = 0
    data: bytes = b""
    target: str = ""


class Cut(BaseException):
    """The process ends here: raised in place of the operation where a recording is to be killed."""


class Recorder:
    """Every change below `root` while `recording`, in order; with `kill_at`, Cut in place of that operation."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log: list[Operation] = []
        self.kill_at: int | None = None
        self._handles: dict[int, tuple[str, int]] = {}
        self._files: dict[str, int] = {}
        self._next = 0

    def known(self) -> dict[str, bytes | None]:
        """The tree as it is now: path to contents, None for a directory. To be called before recording begins."""
        tree: dict[str, bytes | None] = {}
        for path in sorted(self.root.rglob("*")):
            tree[self._name(path)] = None if path.is_dir() else path.read_bytes()
        return tree

    def number(self, path: str) -> int:
        """Of the file that has this name now."""
        if path not in self._files:
            self._files[path] = self._next
            self._next += 1
        return self._files[path]

    def _name(self, path: Any) -> str:
        return os.path.relpath(os.path.abspath(os.fspath(path)), self.root)

    def _below(self, path: Any) -> bool:
        if isinstance(path, int):
            return False
        full = os.path.abspath(os.fspath(path))
        return full == str(self.root) or full.startswith(f"{self.root}{os.sep}")

    def _note(self, operation: Operation) -> None:
        if self.kill_at is not None and len(self.log) >= self.kill_at:
            raise Cut
        self.log.append(operation)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Watch the calls of this process; other trees are left alone."""
        real = {name: getattr(os, name) for name in _WATCHED}
        for name in _WATCHED:
            setattr(os, name, getattr(self, f"_{name}")(real[name]))
        try:
            yield
        finally:
            for name, call in real.items():
                setattr(os, name, call)
            self._handles.clear()

    def _open(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(path: Any, flags: int, *rest: Any, **named: Any) -> int:
            if not self._below(path):
                return real(path, flags, *rest, **named)
            name, there = self._name(path), os.path.lexists(path)
            if not there and flags & os.O_CREAT:
                self._files.pop(name, None)
                self._note(Operation("create", name, self.number(name)))
            elif there and flags & os.O_TRUNC:
                self._note(Operation("truncate", name, self.number(name)))
            handle = real(path, flags, *rest, **named)
            self._handles[handle] = (name, -1 if os.path.isdir(path) else self.number(name))
            return handle

        return call

    def _write(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(handle: int, data: Any) -> int:
            if handle not in self._handles:
                return real(handle, data)
            name, file = self._handles[handle]
            offset = os.lseek(handle, 0, os.SEEK_CUR)
            self._note(Operation("write", name, file, offset, bytes(data)))
            return real(handle, data)

        return call

    def _pwrite(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(handle: int, data: Any, offset: int) -> int:
            if handle in self._handles:
                name, file = self._handles[handle]
                self._note(Operation("write", name, file, offset, bytes(data)))
            return real(handle, data, offset)

        return call

    def _ftruncate(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(handle: int, length: int) -> None:
            if handle in self._handles:
                name, file = self._handles[handle]
                self._note(Operation("truncate", name, file, length))
            real(handle, length)

        return call

    def _fsync(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(handle: int) -> None:
            if handle in self._handles:
                self._note(Operation("sync", *self._handles[handle]))
            real(handle)

        return call

    def _close(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(handle: int) -> None:
            self._handles.pop(handle, None)
            real(handle)

        return call

    def _replace(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(source: Any, target: Any, **named: Any) -> None:
            if self._below(source) or self._below(target):
                old, new = self._name(source), self._name(target)
                self._note(Operation("rename", old, self.number(old), target=new))
                if old != new:
                    self._files[new] = self._files.pop(old)
            real(source, target, **named)

        return call

    _rename = _replace

    def _unlink(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(path: Any, **named: Any) -> None:
            if self._below(path) and os.path.lexists(path):
                self._note(Operation("remove", self._name(path)))
                self._files.pop(self._name(path), None)
            real(path, **named)

        return call

    _remove = _unlink

    def _mkdir(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(path: Any, *rest: Any, **named: Any) -> None:
            if self._below(path) and not os.path.lexists(path):
                self._note(Operation("mkdir", self._name(path)))
            real(path, *rest, **named)

        return call


_WATCHED = ("open", "write", "pwrite", "ftruncate", "fsync", "close", "replace", "rename", "unlink", "remove", "mkdir")


@dataclass
class _File:
    """What is durable of a file, and the changes since its last sync."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Operation] = field(default_factory=list)

    def sync(self) -> None:
        self.durable, self.pending = bytearray(self.left("kept", Random(0))), []

    def left(self, how: Data, random: Random) -> bytes:
        data = bytearray(self.durable)
        for operation in self.pending:
            fate = random.choice(("lost", "kept", "torn", "zeros")) if how == "any" else how
            if fate == "lost":
                continue
            if operation.kind == "truncate":
                del data[operation.offset :]
                data.extend(bytes(operation.offset - len(data)))
                continue
            end = operation.offset + len(operation.data)
            data.extend(bytes(max(0, end - len(data))))
            for start in range(0, 0 if fate == "zeros" else len(operation.data), SECTOR):
                if fate == "kept" or random.random() < 0.5:
                    piece = operation.data[start : start + SECTOR]
                    data[operation.offset + start : operation.offset + start + len(piece)] = piece
        return bytes(data)


Tree = dict[str, bytes | None]
"""Path to contents; None is a directory."""


class Disk:
    """The model: a recorded log is played to it, and it says what a cut may leave."""

    def __init__(self, tree: Tree, number: Callable[[str], int]) -> None:
        """`tree` is there and durable. `number` names its files as the log does."""
        self._files: dict[int, _File] = {}
        self._durable: dict[str, int | None] = {}
        self._pending: list[Operation] = []
        for path, data in tree.items():
            self._durable[path] = None
            if data is not None:
                self._durable[path] = number(path)
                self._files[number(path)] = _File(bytearray(data))

    def play(self, operation: Operation) -> None:
        """One operation, in the order of the log."""
        if operation.kind in ("write", "truncate"):
            self._files[operation.file].pending.append(operation)
        elif operation.kind == "sync" and operation.file >= 0:
            self._files[operation.file].sync()
        elif operation.kind == "sync":
            held = [op for op in self._pending if os.path.dirname(op.target or op.path) != _inside(operation.path)]
            for done in self._pending:
                if done not in held:
                    _rename(self._durable, done)
            self._pending = held
        elif operation.kind == "rename" and os.path.dirname(operation.path) != os.path.dirname(operation.target):
            self._pending.append(Operation("create", operation.target, operation.file))  # each directory has its own
            self._pending.append(Operation("remove", operation.path))  # half of it, and its own sync
        else:
            if operation.kind == "create":
                self._files[operation.file] = _File()
            self._pending.append(operation)

    def left(self, data: Data, names: Names, random: Random) -> Tree:
        """The tree that may be found after a power cut now."""
        kept = dict(self._durable)
        upto = {"lost": 0, "kept": len(self._pending)}.get(names, random.randint(0, len(self._pending)))
        for index, operation in enumerate(self._pending):
            if random.random() < 0.5 if names == "any" else index < upto:
                _rename(kept, operation)
        found: Tree = {}
        for path in sorted(kept):  # a directory before what is in it
            if (directory := os.path.dirname(path)) and directory not in found:
                continue
            file = kept[path]
            found[path] = None if file is None else self._files[file].left(data, random)
        return found


def _inside(directory: str) -> str:
    return "" if directory == "." else directory


def _rename(names: dict[str, int | None], operation: Operation) -> None:
    if operation.kind == "mkdir":
        names[operation.path] = None
    elif operation.kind == "remove":
        names.pop(operation.path, None)
    elif operation.kind == "create":
        names[operation.path] = operation.file
    elif operation.path != operation.target:
        names.pop(operation.path, None)
        names[operation.target] = operation.file


def digest(tree: Tree) -> bytes:
    """To know equal trees by."""
    made = hashlib.sha256()
    for path, data in sorted(tree.items()):
        made.update(f"{path}\0{'dir' if data is None else len(data)}\0".encode() + (data or b""))
    return made.digest()


def lay_out(tree: Tree, root: Path) -> None:
    """Write a tree to an empty directory."""
    root.mkdir()
    for path, data in sorted(tree.items()):
        if data is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(data)
