"""The size an image file claims, read from its header alone: what a decoder is about to allocate.

Only the four formats that cameras and archives use are known; everything else OpenCV could decode stays outside.
"""

from __future__ import annotations

import struct

KNOWN = "PNG, JPEG, BMP or TIFF"


def claimed_size(data: bytes) -> tuple[int, int]:
    """(height, width) in pixels of a PNG, JPEG, BMP or TIFF (its first page).

    Raises:
        ValueError: another format, or a header that is cut short or makes no sense.
    """
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR":
            width, height = struct.unpack_from(">II", data, 16)
        elif data.startswith(b"\xff\xd8"):
            height, width = _jpeg(data)
        elif data.startswith(b"BM"):
            width, height = struct.unpack_from("<ii", data, 18)
            height = abs(height)  # negative: rows from the top
        elif data[:4] in (b"II*\0", b"MM\0*"):
            height, width = _tiff(data)
        else:
            raise ValueError(f"not a {KNOWN} file")
    except (struct.error, IndexError):
        raise ValueError("the header is cut short") from None
    if height < 1 or width < 1:
        raise ValueError(f"the header claims {width}x{height} pixels")
    return int(height), int(width)


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    while True:
        while data[at] == 0xFF and data[at + 1] == 0xFF:  # fill bytes before a marker
            at += 1
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0xDA:
            raise ValueError("no frame header before the picture data")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return height, width
        standalone = marker == 0x01 or 0xD0 <= marker <= 0xD8
        at += 2 if standalone else 2 + struct.unpack_from(">H", data, at + 2)[0]


def _tiff(data: bytes) -> tuple[int, int]:
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (entries,) = struct.unpack_from(order + "H", data, at)
    found = {}
    for i in range(entries):
        tag, kind = struct.unpack_from(order + "HH", data, at + 2 + 12 * i)
        if tag in (256, 257):  # ImageWidth, ImageLength; SHORT or LONG
            (found[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at + 10 + 12 * i)
    return found.get(257, 0), found.get(256, 0)
