"""What the line really did: shared by the test, the daemon and its workers, in one file that outlives them all.

The journal is the truth about every part: when it was triggered, what it was, what was done to its picture. Orders are
words that the test writes and a simulated thing reads.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TypeAlias

import numpy as np

PARTS_MAX = 1 << 20
_WORDS = 64
_RECORD = struct.Struct("<qii")
VARIABLE = "LINEGUARD_SIMULATOR"
"""In the environment of the daemon and its workers: directory of the world, seed, rate, mutant."""


class Word(IntEnum):
    """Places in the shared memory, signed 64-bit each."""

    NEXT = 0  # number of the line's next part
    CAMERA = 1  # one CameraOrder, taken by the next shot
    ENGINE = 2  # one EngineOrder, taken by the next batch
    DISK = 3  # one DiskOrder, in force until it is cleared
    CLOCK_NS = 4  # added to the wall clock
    FRAME = 6  # one Kind, for the next shot
    DIRTY = 5  # PASSes that left before their rows were durable
    SWAPPED = 7  # the engine gives each class the score of the other while this is not 0, goldens included
    SYNC_MS = 8  # every sync of the log takes so much longer
    SYNCING = 9  # such a sync is under way


class Kind(IntEnum):
    """What was done to the picture of a part."""

    CLEAN = 0
    EMPTY = 1  # no bytes at all
    TRUNCATED = 2  # a compressed picture cut off
    GEOMETRY = 3  # another size or type
    BLACK = 4  # all pixels 0, or all 255
    FROZEN = 5  # the picture before, under a new number
    OLD = 6  # a picture of a few parts ago
    NO_FRAME = 7  # the trigger's picture never came
    LATE = 8  # it came after the deadline
    FLIPPED = 9  # one bit changed in memory, after its checksum
    OVERWRITTEN = 10  # another part's picture in its place in memory, after its checksum
    UNSEEN = 11  # the line counted the part, nobody was told


class CameraOrder(IntEnum):
    """What the camera shall do at its next shot."""

    NONE = 0
    UNPLUG = 1
    STALL = 2


class EngineOrder(IntEnum):
    """What the engine shall do with its next batch."""

    NONE = 0
    HANG = 1
    ABORT = 2
    KILL = 3
    NAN = 4
    INFINITE = 5
    SLOW = 6
    FEWER = 7
    RAISE = 8


class DiskOrder(IntEnum):
    """How the disk behaves until it is told otherwise."""

    NONE = 0
    FULL = 1
    ERROR = 2
    SLOW = 3


Order: TypeAlias = CameraOrder | EngineOrder | DiskOrder
_DONE: dict[type[IntEnum], int] = {CameraOrder: 16, EngineOrder: 24, DiskOrder: 40}
"""Words in which it is counted how often an order was carried out: the first of each."""


@dataclass(frozen=True)
class Event:
    """One part. at_ns: monotonic, when it was triggered; 0 where it was not. part: index into the pool of pictures."""

    at_ns: int
    kind: Kind
    part: int


class World:
    """The shared file. One process at a time adds to the journal: the camera's, or the test while no daemon runs."""

    def __init__(self, directory: Path) -> None:
        """Open it, made when missing."""
        self.directory = directory
        descriptor = os.open(directory / "world", os.O_RDWR | os.O_CREAT, 0o600)
        size = 8 * _WORDS + _RECORD.size * PARTS_MAX
        os.ftruncate(descriptor, size)
        self._map = mmap.mmap(descriptor, size)
        os.close(descriptor)

    def get(self, word: Word) -> int:
        """The value of a word."""
        return self._get(word)

    def set(self, word: Word, value: int) -> None:
        """Change it."""
        self._set(word, value)

    def _get(self, word: int) -> int:
        return int(struct.unpack_from("<q", self._map, 8 * word)[0])

    def _set(self, word: int, value: int) -> None:
        struct.pack_into("<q", self._map, 8 * word, value)

    def take(self, word: Word) -> int:
        """Its value, which is 0 from now on."""
        value = self.get(word)
        if value:
            self.set(word, 0)
        return value

    def carried_out(self, order: Order) -> None:
        """Count an order, by whoever obeys it and just before; one that nobody came to is no fault."""
        self._set(_DONE[type(order)] + order, self.done(order) + 1)

    def done(self, order: Order) -> int:
        """How often it was carried out."""
        return self._get(_DONE[type(order)] + order)

    def add(self, event: Event) -> int:
        """Write one part into the journal; its number. The number is taken only once the record is whole."""
        number = self.get(Word.NEXT)
        _RECORD.pack_into(self._map, 8 * _WORDS + number * _RECORD.size, event.at_ns, event.kind, event.part)
        self.set(Word.NEXT, number + 1)
        return number

    def event(self, number: int) -> Event:
        """What the journal says of a part."""
        at_ns, kind, part = _RECORD.unpack_from(self._map, 8 * _WORDS + number * _RECORD.size)
        return Event(at_ns, Kind(kind), part)

    def spoil(self, parts: Iterable[int]) -> None:
        """Note that what the engine said of these was no judgement."""
        with (self.directory / "spoiled").open("ab") as file:
            file.write(b"".join(part.to_bytes(4, "little") for part in parts))

    def spoiled(self) -> set[int]:
        """Numbers of all those parts."""
        path = self.directory / "spoiled"
        return set(np.frombuffer(path.read_bytes(), "<u4").tolist()) if path.exists() else set()

    @property
    def parts(self) -> int:
        """How many the line has counted."""
        return self.get(Word.NEXT)
