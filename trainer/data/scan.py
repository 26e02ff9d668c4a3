"""One look at every image file before training: readable, its size, grey or colour, and a thumbnail."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.cli_support import Report
from calibration.errors import InputError
from calibration.images import IMAGE_SUFFIXES, ImageError, decode_image
from trainer.data.names import is_safe, printable
from trainer.data.twins import SIDE, thumbnail

THREADS = 2


@dataclass(frozen=True)
class Listing:
    """Image files below a folder.

    Attributes:
        images: POSIX paths relative to the folder, sorted.
        ignored: how many files were passed over, by kind: "hidden", a suffix, or "unprintable name".
    """

    images: tuple[str, ...]
    ignored: dict[str, int]


@dataclass(frozen=True)
class Look:
    """What the pixels of readable images say.

    Attributes:
        readable: bool (n,), for each path asked for.
        reasons: why the others are not, by path.
        channels: 3 when any image shows colour, else 1.
        coloured, blank: how many images show colour, and how many are of one single value.
        heights, widths, aspects: inclusive (least, most); aspect is width / height.
        thumbnails: float32 (readable images, 256).
    """

    readable: NDArray[np.bool_]
    reasons: dict[str, str]
    channels: int
    coloured: int
    blank: int
    heights: tuple[int, int]
    widths: tuple[int, int]
    aspects: tuple[float, float]
    thumbnails: NDArray[np.float32]


def list_images(folder: Path, table: Path | None = None) -> Listing:
    """All image files below `folder`, links followed, hidden files and folders left out. `table`: a file that is read
    for itself, and not passed over."""
    images: list[str] = []
    ignored: Counter[str] = Counter()
    visited: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in visited:  # a link back to a folder above: it would never end
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        for name in files:
            if table is not None and Path(place, name) == table:
                continue
            path = (Path(place) / name).relative_to(folder).as_posix()
            if name.startswith("."):
                ignored["hidden"] += 1
            elif not name.lower().endswith(IMAGE_SUFFIXES):
                ignored[printable(Path(name).suffix.lower()) or "no suffix"] += 1
            elif not is_safe(path):
                ignored["unprintable name"] += 1
            else:
                images.append(path)
    return Listing(tuple(sorted(images)), dict(ignored))


def look_at(root: Path, paths: Sequence[str], progress: Report | None = None) -> Look:
    """Decode every image once.

    Args:
        progress: called with (images done, images in all).

    Raises:
        InputError: not a single one is readable.
    """

    def one(path: str) -> _Seen | str:
        try:
            return _see(root / path)
        except ImageError as error:
            return str(error)

    seen: list[_Seen] = []
    noise = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what is wrong is said below, by name
    readable = np.zeros(len(paths), dtype=np.bool_)
    reasons: dict[str, str] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        for position, result in enumerate(pool.map(one, paths)):
            if isinstance(result, str):
                reasons[paths[position]] = result.removeprefix(f"{root / paths[position]}: ")
            else:
                readable[position] = True
                seen.append(result)
            if progress is not None:
                progress(position + 1, len(paths))
    cv2.utils.logging.setLogLevel(noise)
    if not seen:
        first = next(iter(reasons.items()), ("", "no image file"))
        raise InputError(f"{root}: none of {len(paths)} images can be read ({printable(first[0])}: {first[1]})")
    heights, widths = [s.height for s in seen], [s.width for s in seen]
    aspects = [s.width / s.height for s in seen]
    coloured = sum(s.coloured for s in seen)
    return Look(
        readable=readable,
        reasons=reasons,
        channels=3 if coloured else 1,
        coloured=coloured,
        blank=sum(s.blank for s in seen),
        heights=(min(heights), max(heights)),
        widths=(min(widths), max(widths)),
        aspects=(min(aspects), max(aspects)),
        thumbnails=np.stack([s.thumbnail for s in seen]).reshape(len(seen), SIDE * SIDE),
    )


@dataclass(frozen=True)
class _Seen:
    height: int
    width: int
    coloured: bool
    blank: bool
    thumbnail: NDArray[np.float32]


def _see(path: Path) -> _Seen:
    if path.exists() and not path.is_file():
        raise ImageError("not a regular file")  # reading a pipe would never end
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from None
    image = decode_image(data, 3, str(path))
    if is_cut_short(data):
        raise ImageError("the file is cut short: it has no end mark")
    blue, green, red = image[:, :, 0], image[:, :, 1], image[:, :, 2]
    coloured = not (np.array_equal(blue, green) and np.array_equal(green, red))
    return _Seen(
        height=image.shape[0],
        width=image.shape[1],
        coloured=coloured,
        blank=bool((image == image[0, 0]).all()),
        thumbnail=thumbnail(image if coloured else np.ascontiguousarray(blue)),
    )


def is_cut_short(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end: decoders fill the missing part with grey, or with an older picture."""
    if data.startswith(b"\xff\xd8"):
        # inside the coded picture every ff is followed by 00 or a restart mark, so these two are found for certain
        return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data[-4096:]
    return False
