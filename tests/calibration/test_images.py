"""Decoding image files: what is not a whole picture of a known kind is refused, quickly and by name."""

from __future__ import annotations

import struct
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.images import MAX_PIXELS, ImageError, decode_image, is_grey, read_image
from calibration.imagesize import claimed_size

LOSSLESS = (".png", ".bmp", ".tif")
ALL = (*LOSSLESS, ".jpg")


def picture(height: int = 30, width: int = 47, channels: int = 3) -> np.ndarray:
    """A smooth random picture."""
    rng = np.random.default_rng(7)
    shape = (height, width, 3) if channels == 3 else (height, width)
    return cv2.GaussianBlur(rng.integers(0, 256, shape, dtype=np.uint8), (0, 0), 2)


def encoded(image: np.ndarray, suffix: str) -> bytes:
    """The file's bytes."""
    return bytes(cv2.imencode(suffix, image)[1].tobytes())


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_lossless_files_come_back_pixel_by_pixel(suffix: str) -> None:
    """Grey as (H, W), colour as (H, W, 3) BGR."""
    grey, colour = picture(channels=1), picture()
    assert np.array_equal(decode_image(encoded(grey, suffix), 1), grey)
    assert np.array_equal(decode_image(encoded(colour, suffix), 3), colour)
    assert decode_image(encoded(grey, suffix), 3).shape == (30, 47, 3)
    assert decode_image(encoded(colour, suffix), 1).shape == (30, 47)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_keep_their_upper_eight(suffix: str) -> None:
    """Cameras that deliver 12 or 16 bits."""
    deep = np.random.default_rng(0).integers(0, 2**16, (9, 8), dtype=np.uint16)
    assert np.abs(decode_image(encoded(deep, suffix), 1).astype(int) - deep // 256).max() <= 1


def test_exif_rotation_is_ignored() -> None:
    """A camera's pixels stay where they are, whatever a tag says."""
    jpeg = encoded(picture(), ".jpg")
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    app1 = b"Exif\0\0" + tiff
    turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(app1) + 2) + app1 + jpeg[2:]
    assert np.array_equal(decode_image(turned, 3), decode_image(jpeg, 3))


@pytest.mark.parametrize("suffix", ALL)
def test_the_claimed_size_is_the_decoded_size(suffix: str) -> None:
    """For every format and for sizes that are not square."""
    for height, width in ((1, 1), (30, 47), (300, 2)):
        assert claimed_size(encoded(picture(height, width), suffix)) == (height, width)


def test_the_size_of_other_byte_orders_and_row_orders() -> None:
    """Big-endian TIFF with long sizes, BMP from the top, JPEG with fill bytes and a standalone marker."""
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in ((256, 70000), (257, 3)))
    assert claimed_size(b"MM\0*" + struct.pack(">IH", 8, 2) + entries) == (3, 70000)
    assert claimed_size(b"BM" + bytes(16) + struct.pack("<ii", 5, -7)) == (7, 5)
    sof = b"\xff\xc0" + struct.pack(">HBHH", 17, 8, 11, 13)
    assert claimed_size(b"\xff\xd8\xff\x01\xff\xff\xff\xe0\x00\x04ab" + sof) == (11, 13)


@pytest.mark.parametrize("suffix", ALL)
def test_a_truncated_file_is_refused_at_every_length(suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    """No half picture, and no crash. (Only the last bytes of a TIFF may be missing: its directory's end mark.)"""
    data = encoded(picture(), suffix)
    spare = 4 if suffix == ".tif" else 0
    for length in range(0, len(data) - spare, 1 if len(data) < 3000 else 7):
        with pytest.raises(ImageError):
            decode_image(data[:length], 1)
    capfd.readouterr()  # the decoder's own complaints


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", ALL)
def test_a_decoded_file_has_the_asked_number_of_channels(suffix: str, channels: int) -> None:
    """uint8 always."""
    image = decode_image(encoded(picture(), suffix), channels)
    assert image.dtype == np.uint8
    assert image.ndim == (2 if channels == 1 else 3)


@given(
    data=st.binary(max_size=200), start=st.sampled_from([b"", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"GIF89a"])
)
def test_noise_is_an_image_error_and_nothing_else(data: bytes, start: bytes) -> None:
    """Also behind the first bytes of each format."""
    with pytest.raises(ImageError):
        decode_image(start + data, 1)


def png(width: int, height: int) -> bytes:
    """A PNG of zeros that is much smaller than its picture."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = zlib.compress(bytes((width + 1) * height), 1)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    """64.6 million pixels in 283 kB, in no time; just below the limit is fine."""
    bomb = png(8040, 8040)
    assert len(bomb) < 500_000
    start = time.perf_counter()
    with pytest.raises(ImageError, match="8040x8040 pixels are more than"):
        decode_image(bomb, 1, "bomb.png")
    assert time.perf_counter() - start < 0.4
    assert MAX_PIXELS < 8040 * 8040


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "the file is empty"),
        (b"\0", "not a PNG, JPEG, BMP or TIFF file"),
        (b"GIF89a", "not a PNG"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "not a PNG"),
        (b"P5 1 1 255 \0", "not a PNG"),
        (b"\xff\xd8", "cut short"),
        (b"\xff\xd8\xff\xda\0\0", "no frame header"),
        (b"\xff\xd8abcd", "no frame header"),
        (b"II*\0\x08\0\0\0\0\0", "claims 0x0 pixels"),
        (b"BM" + bytes(30), "claims 0x0 pixels"),
    ],
)
def test_what_is_no_picture_is_told_by_name(data: bytes, told: str) -> None:
    """The message names the file and what is wrong."""
    with pytest.raises(ImageError, match=r"^part-7\.png: ") as caught:
        decode_image(data, 1, "part-7.png")
    assert told in str(caught.value)


def test_a_damaged_body_is_told_by_name() -> None:
    """The header is whole, the picture is not."""
    data = png(20, 20).replace(b"IDAT", b"IDAX")
    with pytest.raises(ImageError, match="damaged or cut short"):
        decode_image(data, 1)


def test_reading_files(tmp_path: Path) -> None:
    """A missing file and a directory are image errors too; grey and colour are told apart."""
    grey, colour = picture(channels=1), picture()
    (tmp_path / "g.png").write_bytes(encoded(grey, ".png"))
    (tmp_path / "c.png").write_bytes(encoded(colour, ".png"))
    (tmp_path / "gray3.png").write_bytes(encoded(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), ".png"))
    assert np.array_equal(read_image(tmp_path / "g.png", 1), grey)
    assert is_grey(tmp_path / "g.png")
    assert is_grey(tmp_path / "gray3.png")
    assert not is_grey(tmp_path / "c.png")
    with pytest.raises(ImageError, match=r"none\.png: No such file"):
        read_image(tmp_path / "none.png", 1)
    with pytest.raises(ImageError, match="Is a directory"):
        read_image(tmp_path, 1)
