"""Evidence: the frames that verdicts were made from, as PNG files that say which verdict they belong to.

A file lies at `evidence/camera-NAME/CLASS/SEQ.png`: its name comes from ids alone. Pixels are stored without loss; a
text chunk holds the record that binds them to one row of table verdict, and the SHA-256 of the pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np

from appliance.words import Reason
from calibration.images import ImageError, decode_image
from calibration.preprocess import Frame

_KEYWORD = b"lineguard\0"
_END = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


class EvidenceClass(str, Enum):
    """Classes share no quota. UNSURE parts are open review cases until a person has judged them."""

    DEFECT = "defect"
    UNSURE = "unsure"
    SAMPLE = "sample"
    OTHER = "other"


CLASSES = tuple(EvidenceClass)
_CLASS = {
    Reason.DEFECT: EvidenceClass.DEFECT,
    Reason.UNSURE: EvidenceClass.UNSURE,
}


class EvidenceError(ValueError):
    """The file is no evidence, or damaged."""


@dataclass(frozen=True)
class EvidenceRecord:
    """Which verdict a frame belongs to: values of its row. crc is that of the preprocessed tensor."""

    seq: int
    camera: str
    trigger: int
    mono_ns: int
    crc: int
    bundle: str


class EvidenceChoice:
    """Which parts leave evidence: all of a class that has a quota, and a sample of the judged ones.

    Parts of the sample are those that a person shall judge again. Their pictures lie in one folder whatever the model
    said of them, so that no path gives it away.
    """

    def __init__(self, quotas: dict[EvidenceClass, int], passed_share: float, defect_share: float) -> None:
        """`quotas` in bytes; a class with 0 is off. The shares, 0 to 1, of passed and of DEFECT parts make the sample;
        UNSURE parts all wait for a person anyway."""
        self._quotas = quotas
        self._shares = {Reason.NONE: passed_share, Reason.DEFECT: defect_share}

    def wanted(self, reason: Reason) -> EvidenceClass | None:
        """The class to keep a part's frame in; None for not at all."""
        if self._quotas.get(EvidenceClass.SAMPLE) and _chance(self._shares.get(reason, 0.0)):
            return EvidenceClass.SAMPLE
        kind = None if reason is Reason.NONE else _CLASS.get(reason, EvidenceClass.OTHER)
        return kind if kind is not None and self._quotas.get(kind) else None


def _chance(share: float) -> bool:
    return random.random() < share  # noqa: S311  a sample, no secret


def camera_folder(root: Path, camera: str) -> Path:
    """Where one camera's evidence lies, whatever signs its name has."""
    return root / f"camera-{quote(camera, safe='')}"


def find_evidence(root: Path, camera: str, seq: int) -> Path | None:
    """The evidence of a row, of whatever class it is."""
    paths = (camera_folder(root, camera) / kind.value / f"{seq}.png" for kind in CLASSES)
    return next((path for path in paths if path.is_file()), None)


def frame_of(root: Path, row: Mapping[str, Any]) -> Frame:
    """The frame that a row of table verdict was judged from.

    Raises:
        EvidenceError: none was kept, it is damaged, or it belongs to another row of that number.
    """
    path = find_evidence(root, row["camera"], row["seq"])
    if path is None:
        raise EvidenceError("no frame was kept of it, or it was freed; see [evidence] in station.toml")
    try:
        record, frame = decode_evidence(path.read_bytes())
    except (OSError, EvidenceError) as error:
        raise EvidenceError(f"{path}: {error}") from None
    if record != EvidenceRecord(**{name: row[name] for name in record.__dataclass_fields__}):
        raise EvidenceError(f"{path}: belongs to another part, of a run whose last rows a power cut took")
    return frame


def encode_evidence(frame: Frame, record: EvidenceRecord) -> bytes:
    """A frame, uint8 (H, W) or (H, W, 3) BGR, as PNG with its record."""
    pixels = np.ascontiguousarray(frame)
    try:
        data = cv2.imencode(".png", pixels)[1].tobytes()
    except cv2.error as error:
        raise EvidenceError(f"a frame of shape {frame.shape} cannot be stored: {error.err}") from None
    if not data.endswith(_END):
        raise EvidenceError(f"a frame of shape {frame.shape} cannot be stored")
    told = {**asdict(record), "sha256": hashlib.sha256(pixels.data).hexdigest(), "shape": list(frame.shape)}
    text = b"tEXt" + _KEYWORD + json.dumps(told).encode("ascii")
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    return data[: -len(_END)] + chunk + _END


def decode_evidence(data: bytes) -> tuple[EvidenceRecord, Frame]:
    """Inverse of encode_evidence.

    Raises:
        EvidenceError: no evidence, or a byte of it has changed.
    """
    told = _record(data)
    try:
        shape, digest = tuple(told.pop("shape")), told.pop("sha256")
        record = EvidenceRecord(**told)
        frame = decode_image(data, 3 if len(shape) == 3 else 1)
    except (ImageError, TypeError, KeyError) as error:
        raise EvidenceError(f"damaged: {error}") from None
    if frame.shape != shape or hashlib.sha256(frame.data).hexdigest() != digest:
        raise EvidenceError("damaged: the pixels are not those that were stored")
    return record, frame


def _record(data: bytes) -> dict[str, Any]:
    """The record in a PNG's text chunk, its checksum verified."""
    start = data.rfind(b"tEXt" + _KEYWORD)
    if start < 4:
        raise EvidenceError("no record in it")
    length = 4 + struct.unpack(">I", data[start - 4 : start])[0]
    text, end = data[start : start + length], data[start + length : start + length + 4]
    if end != struct.pack(">I", zlib.crc32(text)):
        raise EvidenceError("damaged: its record has changed")
    try:
        told = json.loads(text[4 + len(_KEYWORD) :])
    except ValueError as error:
        raise EvidenceError(f"damaged: {error}") from None
    if not isinstance(told, dict):
        raise EvidenceError("damaged: its record is no object")
    return told


def write_durably(path: Path, data: bytes) -> None:
    """Write a file that is there whole after a power cut, or not at all. Raises OSError."""
    temporary = path.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
