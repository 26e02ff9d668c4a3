"""What supervisor and workers say to each other, once a part or once a batch: packed records over ZeroMQ.

Each message is one byte of kind and a record, little-endian. Rare messages (failures, the engine's settings) carry
JSON. Nothing here can execute anything, and a record of the wrong length raises WireError.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import zmq
from numpy.typing import NDArray

from appliance.words import Reason
from calibration.values import BINS

HELLO = b"H"
FRAME = b"F"
MISSED = b"X"
END = b"E"
CREDIT = b"C"
STOP = b"Q"
LOAD = b"L"
READY = b"R"
BATCH = b"B"
SCORES = b"S"
KEEP = b"K"
EVIDENCE = b"V"
COUNT = b"N"
ALIVE = b"A"
TRIGGER = b"T"
SWITCH = b"W"
TRIM = b"M"

LOOKED_AT = 4
"""A camera measures light and focus of one frame in so many: these change slowly, and looking costs time."""

_NOT_LOOKED_AT = 255
_FRAME = struct.Struct("<cQIIqqQHHBB")
_KEEP = struct.Struct("<IQB")
_BATCH = struct.Struct("<cQ")
_SCORES = struct.Struct("<cQqqI")


_READABLE = int(zmq.POLLIN)  # the flag classes take longer than the question itself


class WireError(ValueError):
    """A worker sent something that is no message of ours."""


def has_message(channel: zmq.Socket[bytes]) -> bool:
    """Whether a message can be received without waiting."""
    return bool(int(channel.getsockopt(zmq.EVENTS)) & _READABLE)


class FrameNote(NamedTuple):
    """A camera has put a frame into a slot.

    Times: nanoseconds, monotonic. crc: CRC-32 of the tensor. serial, lot: of the part; empty where the source does not
    know them. tag: what the line calls the part. looks: bins of the frame's brightness and sharpness (see
    calibration.appearance); None where they were not measured.
    """

    trigger: int
    slot: int
    crc: int
    triggered_ns: int
    ready_ns: int
    name: str
    serial: str = ""
    lot: str = ""
    tag: int = 0
    looks: tuple[int, int] | None = None

    def pack(self) -> bytes:
        """Message of kind FRAME."""
        serial, lot = self.serial.encode("utf-8", "replace"), self.lot.encode("utf-8", "replace")
        times = (self.triggered_ns, self.ready_ns)
        looks = self.looks or (_NOT_LOOKED_AT, 0)
        head = (self.trigger, self.slot, self.crc, *times, self.tag, len(serial), len(lot), *looks)
        return _FRAME.pack(FRAME, *head) + serial + lot + self.name.encode("utf-8", "surrogateescape")

    @classmethod
    def unpack(cls, data: bytes) -> FrameNote:
        """Inverse of pack. Raises WireError."""
        if len(data) < _FRAME.size:
            raise WireError(f"frame message of {len(data)} bytes")
        _, trigger, slot, crc, triggered, ready, tag, serial_end, lot_length, *found = _FRAME.unpack_from(data)
        text = data[_FRAME.size :]
        lot_end = serial_end + lot_length
        if len(text) < lot_end:
            raise WireError(f"frame message of {len(data)} bytes, too short for its serial and lot")
        pieces = (text[lot_end:], text[:serial_end], text[serial_end:lot_end])
        name, serial, lot = (piece.decode("utf-8", "replace") for piece in pieces)
        looks = None if found[0] == _NOT_LOOKED_AT else (found[0], found[1])
        if looks and max(looks) >= BINS:
            raise WireError(f"frame message with brightness and sharpness in bins {looks}, of {BINS}")
        return cls(trigger, slot, crc, triggered, ready, name, serial, lot, tag, looks)


@dataclass(frozen=True)
class MissNote:
    """A trigger without a usable frame, and why. serial, lot: as in FrameNote."""

    trigger: int
    triggered_ns: int
    reason: Reason
    name: str
    detail: str
    serial: str = ""
    lot: str = ""

    def pack(self) -> bytes:
        """Message of kind MISSED."""
        texts = (self.name, self.detail, self.serial, self.lot)
        return MISSED + json.dumps([self.trigger, self.triggered_ns, self.reason.value, *texts]).encode("ascii")

    @classmethod
    def unpack(cls, data: bytes) -> MissNote:
        """Inverse of pack. Raises WireError."""
        try:
            trigger, triggered, reason, name, detail, serial, lot = json.loads(data[1:])
            # File names may hold bytes that are no text; nothing that reads the database should meet them.
            clean = [str(text).encode("utf-8", "replace").decode() for text in (name, detail, serial, lot)]
            return cls(int(trigger), int(triggered), Reason(reason), *clean)
        except (ValueError, TypeError) as error:
            raise WireError(f"miss message: {error}") from None


def pack_credit(slots: Sequence[int]) -> bytes:
    """Message of kind CREDIT: these slots may be written."""
    return CREDIT + struct.pack(f"<{len(slots)}I", *slots)


def unpack_credit(data: bytes) -> tuple[int, ...]:
    """Inverse of pack_credit. Raises WireError."""
    return _integers(data[1:])


def pack_keep(wanted: Sequence[tuple[int, int, int]]) -> bytes:
    """Message of kind KEEP: store the frames of these (slot, row number, index of the class) as evidence."""
    return KEEP + b"".join(_KEEP.pack(*item) for item in wanted)


def unpack_keep(data: bytes) -> list[tuple[int, int, int]]:
    """Inverse of pack_keep. Raises WireError."""
    if (len(data) - 1) % _KEEP.size:
        raise WireError(f"keep message of {len(data)} bytes")
    return list(_KEEP.iter_unpack(data[1:]))


def pack_batch(number: int, slots: Sequence[int], crcs: Sequence[int]) -> bytes:
    """Message of kind BATCH: judge these slots, whose tensors must have these checksums."""
    return _BATCH.pack(BATCH, number) + struct.pack(f"<{2 * len(slots)}I", *slots, *crcs)


def unpack_batch(data: bytes) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Inverse of pack_batch: (number, slots, checksums). Raises WireError."""
    if len(data) <= _BATCH.size:
        raise WireError(f"batch message of {len(data)} bytes")
    values = _integers(data[_BATCH.size :])
    half = len(values) // 2
    return _BATCH.unpack_from(data)[1], values[:half], values[half:]


def pack_trim(size: int) -> bytes:
    """Message of kind TRIM: a full batch has so many parts from here on."""
    return TRIM + struct.pack("<I", size)


def unpack_trim(data: bytes) -> int:
    """Inverse of pack_trim. Raises WireError."""
    values = _integers(data[1:])
    if len(values) != 1:
        raise WireError(f"trim message of {len(data)} bytes")
    return values[0]


@dataclass(frozen=True, eq=False)
class ScoreNote:
    """The engine's answer for one batch.

    Attributes:
        number: of the batch.
        started_ns, ended_ns: monotonic.
        whole: bool (n,): whether the tensor in the slot had the checksum it was announced with.
        logits: float32 (n, classes).
    """

    number: int
    started_ns: int
    ended_ns: int
    whole: NDArray[np.bool_]
    logits: NDArray[np.float32]

    def pack(self) -> bytes:
        """Message of kind SCORES."""
        head = _SCORES.pack(SCORES, self.number, self.started_ns, self.ended_ns, len(self.whole))
        return head + self.whole.tobytes() + np.ascontiguousarray(self.logits, "<f4").tobytes()

    @classmethod
    def unpack(cls, data: bytes, classes: int) -> ScoreNote:
        """Inverse of pack for a model with so many classes. Raises WireError."""
        if len(data) < _SCORES.size:
            raise WireError(f"score message of {len(data)} bytes")
        _, number, started, ended, n = _SCORES.unpack_from(data)
        if len(data) != _SCORES.size + n + 4 * n * classes:
            raise WireError(f"score message of {len(data)} bytes for {n} parts and {classes} classes")
        whole = np.frombuffer(data, np.bool_, n, _SCORES.size)
        logits = np.frombuffer(data, "<f4", n * classes, _SCORES.size + n).reshape(n, classes)
        return cls(number, started, ended, whole, logits)


def pack_json(kind: bytes, value: Any) -> bytes:
    """A rare message: kind and JSON."""
    return kind + json.dumps(value).encode("ascii")


def unpack_json(data: bytes) -> Any:
    """Value of a message made by pack_json. Raises WireError."""
    try:
        return json.loads(data[1:])
    except ValueError as error:
        raise WireError(f"message {data[:1]!r}: {error}") from None


def unpack_evidence(data: bytes) -> tuple[int, int, str]:
    """Frames stored and dropped by a camera process, and its trouble, from a message EVIDENCE. Raises WireError."""
    try:
        written, dropped, trouble = unpack_json(data)
        return int(written), int(dropped), str(trouble)[:200]
    except (TypeError, ValueError) as error:
        raise WireError(f"evidence message: {error}") from None


def _integers(data: bytes) -> tuple[int, ...]:
    if len(data) % 4:
        raise WireError(f"{len(data)} bytes are no row of integers")
    return struct.unpack(f"<{len(data) // 4}I", data)
