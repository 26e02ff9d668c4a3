"""Preprocessing against a slow reference written from its description, and everything it must refuse."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from calibration.preprocess import PAD_VALUE, GeometryError, PreprocessSpec

ADAPTER = TypeAdapter(PreprocessSpec)
U8 = NDArray[np.uint8]


def spec(height: int, width: int, channels: int = 1, fit: Any = "stretch") -> PreprocessSpec:
    """A spec that takes frames of any size up to 400."""
    return PreprocessSpec(height, width, channels, (1, 400), (1, 400), fit)


def frame(height: int, width: int, channels: int = 1, seed: int = 0) -> U8:
    """Noise."""
    shape = (height, width) if channels == 1 else (height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def area_weights(source: int, target: int) -> NDArray[np.float64]:
    """(target, source): how much of each source pixel an output pixel covers, normalised."""
    edges = np.arange(target + 1) * source / target
    low = np.maximum(edges[:-1, None], np.arange(source))
    high = np.minimum(edges[1:, None], np.arange(source) + 1)
    cover = np.maximum(high - low, 0)
    return np.asarray(cover / cover.sum(axis=1, keepdims=True))


def linear_weights(source: int, target: int) -> NDArray[np.float64]:
    """(target, source): linear interpolation between pixel centres, edges repeated."""
    centre = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    return np.maximum(1 - np.abs(centre[:, None] - np.arange(source)), 0)


def weighted(rows: NDArray[np.float64], x: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted means along both directions of (H, W) or (H, W, 3)."""
    return np.moveaxis(np.tensordot(np.tensordot(rows, x, (1, 0)), columns, (1, 1)), -1, 1)


def slow(image: U8, height: int, width: int) -> NDArray[np.float64]:
    """Halve while at least twice too large in both directions, rounding each time; then linear, not rounded."""
    x = image.astype(np.float64)
    while x.shape[0] >= 2 * height and x.shape[1] >= 2 * width:
        rows, columns = area_weights(x.shape[0], x.shape[0] // 2), area_weights(x.shape[1], x.shape[1] // 2)
        x = np.floor(weighted(rows, x, columns) + 0.5)
    if x.shape[:2] == (height, width):
        return x
    rows, columns = linear_weights(x.shape[0], height), linear_weights(x.shape[1], width)
    return weighted(rows, x, columns)


sizes = st.integers(1, 40)


@pytest.mark.parametrize(
    ("source", "target"), [((64, 96), (32, 48)), ((64, 96), (16, 24)), ((320, 320), (10, 20)), ((8, 8), (8, 8))]
)
def test_powers_of_two_are_plain_means_of_blocks(source: tuple[int, int], target: tuple[int, int]) -> None:
    """Exactly, pixel by pixel: (a + b + c + d + 2) // 4 each time."""
    image = frame(*source)
    expected = image.astype(int)
    while expected.shape[0] >= 2 * target[0] and expected.shape[1] >= 2 * target[1]:
        a, b = expected[0::2, 0::2], expected[0::2, 1::2]
        expected = (a + b + expected[1::2, 0::2] + expected[1::2, 1::2] + 2) // 4
    if expected.shape == target:
        assert np.array_equal(spec(*target).apply(image)[0], expected)
    else:
        assert np.abs(spec(*target).apply(image)[0] - slow(image, *target)).max() <= 1.01


@settings(max_examples=120, deadline=None)
@given(
    height=st.integers(1, 200), width=st.integers(1, 200), to=st.tuples(sizes, sizes), channels=st.sampled_from([1, 3])
)
def test_any_size_agrees_with_the_slow_reference(height: int, width: int, to: tuple[int, int], channels: int) -> None:
    """Up, down, odd sizes, one direction up and the other down: within two grey levels of rounding."""
    image = frame(height, width, channels)
    out = spec(*to, channels).apply(image)
    expected = slow(image, *to)
    if channels == 3:
        expected = np.moveaxis(expected, 2, 0)[::-1]
    assert out.shape == (channels, *to)
    assert np.abs(out - expected).max() <= 2.01


def test_a_thin_scratch_survives_a_large_reduction() -> None:
    """What linear interpolation alone would step over: a dark line of one pixel in a frame of 384."""
    image = np.full((384, 384), 200, np.uint8)
    image[:, 101] = 0
    out = spec(24, 24).apply(image)[0]
    assert out.min() <= 200 - 200 // 17
    assert abs(float(out.mean()) - float(image.mean())) < 1.0


def test_a_flat_frame_stays_flat() -> None:
    """At any size."""
    for value in (0, 1, 127, 255):
        assert (spec(13, 7).apply(np.full((50, 90), value, np.uint8)) == value).all()


def test_colour_comes_out_as_red_green_blue_planes() -> None:
    """Frames are BGR."""
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = 10, 20, 30
    assert spec(4, 4, 3).apply(image)[:, 0, 0].tolist() == [30, 20, 10]


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    channels=st.sampled_from([1, 3]),
    fit=st.sampled_from(["stretch", "pad"]),
)
def test_into_a_buffer_is_the_same_as_into_a_fresh_one(height: int, width: int, channels: int, fit: str) -> None:
    """Whatever the buffer held before; a view into a batch too; the frame is not touched."""
    image, one = frame(height, width, channels), spec(17, 23, channels, fit)
    before = image.copy()
    fresh = one.apply(image)
    batch = np.full((3, *one.shape), 99, np.uint8)
    assert one.apply(image, batch[1]).base is not None
    assert np.array_equal(batch[1], fresh)
    assert (batch[0] == 99).all()
    assert (batch[2] == 99).all()
    assert np.array_equal(image, before)


def test_frames_that_are_views_give_the_same() -> None:
    """A cut-out and a reversed frame are not contiguous."""
    whole = frame(80, 80, 3)
    for view in (whole[10:50, 20:70], whole[::-1], whole[:, ::2]):
        assert np.array_equal(spec(16, 16, 3).apply(view), spec(16, 16, 3).apply(np.ascontiguousarray(view)))


@pytest.mark.parametrize(
    ("size", "box"),
    [((50, 100), (0, 5, 20, 10)), ((100, 50), (5, 0, 10, 20)), ((60, 60), (0, 0, 20, 20)), ((1, 300), (0, 9, 20, 1))],
)
def test_padding_keeps_the_aspect_and_centres(size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    """The picture lies in the box (left, top, width, height) of a 20x20 input; the rest is grey 127."""
    left, top, width, height = box
    out = spec(20, 20, fit="pad").apply(np.full(size, 250, np.uint8))[0]
    assert (out[top : top + height, left : left + width] == 250).all()
    assert (out == PAD_VALUE).sum() == 400 - width * height


def test_the_padded_picture_is_the_stretched_one_of_its_box() -> None:
    """No further resampling."""
    image = frame(50, 100)
    padded = spec(20, 20, fit="pad").apply(image)[0]
    assert np.array_equal(padded[5:15], spec(10, 20).apply(image)[0])


NARROW = PreprocessSpec(32, 48, 1, (60, 64), (96, 96))


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (np.zeros((59, 96), np.uint8), "frame is 96x59; the bundle was made for widths 96..96 and heights 60..64"),
        (np.zeros((65, 96), np.uint8), "96x65"),
        (np.zeros((64, 95), np.uint8), "95x64"),
        (np.zeros((96, 64), np.uint8), "64x96"),
        (np.zeros((64, 96, 3), np.uint8), "expected 1 channel"),
        (np.zeros((64, 96, 1, 1), np.uint8), "expected 1 channel"),
        (np.zeros((64, 96, 4), np.uint8), "expected 1 channel"),
        (np.zeros(64, np.uint8), "expected 1 channel"),
        (np.zeros((0, 0), np.uint8), "0x0"),
        (np.zeros((64, 96), np.uint16), "frame is uint16"),
        (np.zeros((64, 96), np.float32), "frame is float32"),
        (np.zeros((64, 96), ">i2"), "expected uint8"),
        ([[1, 2]], "frame is list"),
        (None, "frame is NoneType"),
    ],
)
def test_a_frame_of_another_camera_is_refused(bad: Any, told: str) -> None:
    """Never resized to fit; the message says what was expected."""
    with pytest.raises(GeometryError) as caught:
        NARROW.apply(bad)
    assert told in str(caught.value)


def test_a_grey_frame_is_no_colour_frame() -> None:
    """Nor one with alpha."""
    for shape in ((64, 96), (64, 96, 4), (64, 96, 1)):
        with pytest.raises(GeometryError, match="expected 3 channel"):
            spec(8, 8, 3).apply(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    "out", [np.zeros((1, 8, 9), np.uint8), np.zeros((8, 8), np.uint8), np.zeros((1, 8, 8), np.float32)]
)
def test_a_buffer_that_does_not_fit_is_refused(out: Any) -> None:
    """Shape and type."""
    with pytest.raises(ValueError, match="expected uint8"):
        spec(8, 8).apply(frame(9, 9), out)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"height": 0}, "0x48"),
        ({"width": -1}, "32x-1"),
        ({"channels": 2}, "channels is 2"),
        ({"fit": "crop"}, "fit is 'crop'"),
        ({"frame_heights": (9, 3)}, r"frame_heights is 9\.\.3"),
        ({"frame_widths": (0, 3)}, r"frame_widths is 0\.\.3"),
    ],
)
def test_a_spec_that_makes_no_sense_cannot_be_made(changes: dict[str, Any], told: str) -> None:
    """Neither in code nor from JSON."""
    values = {**NARROW.to_json(), **changes}
    with pytest.raises(ValueError, match=told):
        PreprocessSpec.from_json(values)
    with pytest.raises(ValidationError):
        ADAPTER.validate_json(json.dumps(values))


def test_a_spec_survives_json() -> None:
    """An equal one comes back, by its own reader and by the manifest's."""
    text = json.dumps(NARROW.to_json())
    assert PreprocessSpec.from_json(json.loads(text)) == NARROW == ADAPTER.validate_json(text)
    with pytest.raises(TypeError):
        PreprocessSpec.from_json({**NARROW.to_json(), "mean": 3})
    with pytest.raises(ValidationError):
        ADAPTER.validate_json(json.dumps({**NARROW.to_json(), "mean": 3}))


def test_the_hash_tells_every_field() -> None:
    """And is the same in every process: it is pinned here."""
    changes: list[dict[str, Any]] = [
        {},
        {"height": 33},
        {"width": 47},
        {"channels": 3},
        {"fit": "pad"},
        {"frame_heights": (60, 65)},
        {"frame_widths": (95, 96)},
    ]
    hashes = {PreprocessSpec.from_json({**NARROW.to_json(), **change}).sha256 for change in changes}
    assert len(hashes) == len(changes)
    assert NARROW.sha256 == "86c6008b12eda83b58eefdb1bcbb1825cdb16aa51e6cf6f5e575c33d171429d3"
    assert NARROW.shape == (1, 32, 48)
