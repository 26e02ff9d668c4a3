"""Brightness and sharpness of a frame, against what must come out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.appearance import appearance


def _noise(channels: int = 1, seed: int = 0) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (channels, 120, 160), dtype=np.uint8)


@pytest.mark.parametrize("grey", [0, 51, 255])
def test_a_frame_of_one_colour_has_its_brightness_and_no_sharpness(grey: int) -> None:
    """No contrast, so no share of it."""
    assert appearance(np.full((1, 30, 40), grey, np.uint8)) == (grey / 255, 0.0)


@pytest.mark.parametrize("channels", [1, 3])
def test_of_pure_noise_a_ninth_of_the_variance_is_left(channels: int) -> None:
    """The mean of nine independent values has a ninth of their variance; frames' edges count twice in it."""
    found = appearance(_noise(channels))
    assert found.brightness == pytest.approx(0.5, abs=0.01)
    assert found.sharpness == pytest.approx((8 / 9) ** 0.5, abs=0.005)


@given(st.floats(0.5, 0.95), st.integers(0, 50))
def test_fading_light_moves_brightness_alone(factor: float, seed: int) -> None:
    """Sharpness is a share of contrast: a common factor leaves it, but for the rounding to grey levels."""
    frame = cv2.GaussianBlur(_noise(seed=seed)[0], (5, 5), 1.0)[None]
    faded = np.round(frame * factor).astype(np.uint8)
    before, after = appearance(frame), appearance(faded)
    assert after.brightness == pytest.approx(before.brightness * factor, abs=0.002)
    assert after.sharpness == pytest.approx(before.sharpness, abs=0.01)


def test_defocus_moves_sharpness_alone() -> None:
    """The wider the blur, the less of the contrast is fine detail; the mean stays."""
    frame = _noise()[0]
    blurred = [appearance(cv2.GaussianBlur(frame, (0, 0), sigma)[None]) for sigma in (0.5, 1.0, 2.0, 4.0)]
    sharpness = [found.sharpness for found in blurred]
    assert sharpness == sorted(sharpness, reverse=True)
    assert all(found.brightness == pytest.approx(appearance(frame[None]).brightness, abs=0.003) for found in blurred)
