"""Integer sums that no processor cuts off."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.trainer.test_quantise import small_core
from trainer.observe import Moments
from trainer.onnx_graph import constant, initializers
from trainer.quantise import Quantised, quantise
from trainer.rounding import round_conv
from trainer.saturation import PAIR_LIMIT, largest_pair, partners


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 7), st.sampled_from([1, 2, 3]))
def test_no_two_neighbours_of_one_sign_overflow_16_bits(seed: int, rows: int, channels: int, kernel: int) -> None:
    """Whatever the weights and however errors are moved between them, in either order a kernel may walk them."""
    r = np.random.default_rng(seed)
    weight = np.abs(r.normal(size=(rows, channels, kernel, kernel))) ** 0.2 * r.choice([1, 1, 1, -1], (rows, 1, 1, 1))
    size = channels * kernel * kernel
    mixing = r.normal(size=(1, size, size))
    moments = Moments(np.ones((1, size)), mixing @ mixing.transpose(0, 2, 1), 1000)
    values = round_conv(weight, np.zeros(rows), moments, 0.01).values.astype(np.float64)
    by_channel = values.reshape(rows, -1)
    by_position = values.transpose(0, 2, 3, 1).reshape(rows, -1)
    for flat in (by_channel, by_position):
        even = flat[:, : size // 2 * 2]
        pairs = np.maximum(even[:, 0::2], 0) + np.maximum(even[:, 1::2], 0)
        assert (pairs <= PAIR_LIMIT).all()
        assert (np.maximum(-even[:, 0::2], 0) + np.maximum(-even[:, 1::2], 0) <= PAIR_LIMIT).all()


def test_depthwise_filters_keep_all_their_levels() -> None:
    """Their kernel multiplies in 32 bits, and a filter of nine equal taps would lose half its levels."""
    assert len(partners((8, 1, 3, 3), groups=8)) == 0
    moments = Moments(np.zeros((8, 9)), np.repeat(np.eye(9)[None], 8, 0), 1000)
    assert (round_conv(np.ones((8, 1, 3, 3)), np.zeros(8), moments, 0.01).values == 127).all()


def test_a_pair_counts_only_where_both_pull_one_way() -> None:
    """Products of opposite sign cannot overflow together."""
    neighbours = partners((1, 4, 1, 1), groups=1)
    assert neighbours.tolist() == [[1, 0, 3, 2]]
    assert largest_pair(np.array([[3.0, -4.0, 2.0, 1.0]]), neighbours) == pytest.approx(4.0)
    assert largest_pair(np.array([[3.0, 4.0, -2.0, -6.0]]), neighbours) == pytest.approx(8.0)


def test_an_odd_last_weight_stands_alone() -> None:
    """Nine taps are four pairs and one."""
    assert partners((2, 1, 3, 3), groups=1).tolist() == [[1, 0, 3, 2, 5, 4, 7, 6, -1]]


def test_the_fast_kernel_says_what_the_exact_one_says() -> None:
    """Bright frames through a network of like-signed weights: on a machine without VNNI this overflowed."""
    core = small_core()
    for initializer in core.graph.initializer:
        if initializer.name in ("pw.w", "up.w", "last.w"):
            initializer.CopyFrom(constant(np.abs(initializers(core)[initializer.name]), initializer.name))
    frames = np.random.default_rng(0).integers(200, 256, (24, 1, 24, 32)).astype(np.uint8)
    model = quantise(core, frames, np.arange(24) % 2)["cpu"]
    fast, exact = (logits_of(model, frames, precise) for precise in ("0", "1"))
    np.testing.assert_array_equal(fast, exact)


def logits_of(model: Quantised, frames: NDArray[np.uint8], precise: str) -> NDArray[np.float32]:
    """With ``precise`` "1" ONNX Runtime takes the slower kernel that cannot saturate."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", precise)
    data = model.model.SerializeToString()
    running = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return np.asarray(running.run(["logits"], {"frames": frames})[0])
