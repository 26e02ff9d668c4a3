"""Weights to int8 so that the *outputs* stay: error-compensated rounding, then bias correction.

Rounding each weight to its nearest step is what costs accuracy here, in depthwise filters above all: their few
taps read nearly equal values, so rounding errors add up to a shift of the whole map. Two remedies, both from
moments of the calibration frames: weights are rounded one input after the other, each error being made up for by
the weights still to come (Frantar et al., "GPTQ", ICLR 2023, eqs. 2 and 3); the mean error that is left goes into
the bias (Nagel et al., "Data-Free Quantization", ICCV 2019, section 4.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.observe import Moments
from trainer.saturation import PAIR_LIMIT, bounds, largest_pair, partners

Doubles = NDArray[np.float64]

LEVELS = 127
BIAS_LIMIT = 2.0**30
"""Bound of a bias in int32 steps: half the range stays for the sum of products."""

LEAST_DAMPING = 0.01

BLOCK = 64
"""Weights whose errors reach those behind them in one matrix product ("lazy batch-updates", GPTQ section 3.3)."""


@dataclass(frozen=True)
class RoundedConv:
    """A convolution with int8 weights: weight ~ scale * values.

    Attributes:
        values: int8 (O, C / G, kh, kw) in -127..127; neighbours of one sign add up to 128 at most (see `saturation`).
        scale: float32 (O,), > 0.
        bias: float64 (O,), corrected for the mean error of the weights.
    """

    values: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: Doubles


def round_conv(
    weight: NDArray[np.generic], bias: NDArray[np.generic], moments: Moments, input_scale: float
) -> RoundedConv:
    """Round one convolution.

    Args:
        weight: float (O, C / G, kh, kw). bias: float (O,).
        moments: of its input, in G groups.
        input_scale: size of one step of the quantised input, > 0: with it the bias must fit an int32.
    """
    outputs = weight.shape[0]
    groups = len(moments.mean)
    flat = weight.astype(np.float64).reshape(groups, outputs // groups, -1)
    neighbours = partners(weight.shape, groups)
    largest = np.maximum(np.abs(flat).max(axis=2) / LEVELS, largest_pair(flat, neighbours) / PAIR_LIMIT)
    # a channel of (nearly) dead weights gets a coarser step, or its bias would overflow
    floor = np.abs(bias.astype(np.float64)).reshape(groups, -1) / (input_scale * BIAS_LIMIT)
    scale = np.maximum(np.maximum(largest, floor), 1e-12).astype(np.float32)
    values = compensated_rounding(flat, scale.astype(np.float64), moments, neighbours)
    error = values * scale[:, :, None] - flat
    shift = np.einsum("gok,gk->go", error, moments.mean).reshape(-1)
    return RoundedConv(values.reshape(weight.shape).astype(np.int8), scale.reshape(-1), bias.astype(np.float64) - shift)


def compensated_rounding(weight: Doubles, scale: Doubles, moments: Moments, neighbours: NDArray[np.int64]) -> Doubles:
    """Whole numbers q in -127..127 that keep (scale q - weight) x small for inputs x of the given covariance.

    Args:
        weight: (G, R, K), G independent problems of R rows. scale: (G, R).
        neighbours: int64 (orders, K), weights that must not grow large together: see `trainer.saturation.partners`.

    Returns:
        float64 (G, R, K) of whole numbers.
    """
    size = weight.shape[2]
    variance = np.einsum("gkk->gk", moments.covariance)
    # few samples say little about K x K covariances: then lean towards rounding to nearest
    damping = max(LEAST_DAMPING, 0.5 * size / moments.samples)
    ridge = damping * variance.mean(axis=1) + 1e-12
    hessian = moments.covariance + ridge[:, None, None] * np.eye(size)
    # inputs that vary most are rounded first, while all the others can still make up for them
    order = np.argsort(-variance, axis=1, kind="stable")
    hessian = np.take_along_axis(hessian, order[:, :, None], axis=1)
    hessian = np.take_along_axis(hessian, order[:, None, :], axis=2)
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).transpose(0, 2, 1)
    places = np.broadcast_to(order[:, None, :], weight.shape)
    left = np.take_along_axis(weight, places, axis=2)
    rounded = np.zeros_like(left)
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        errors = np.empty((*scale.shape, stop - start))
        for k in range(start, stop):
            low, high = bounds(rounded, order[:, k], neighbours, LEVELS)
            whole = np.clip(np.round(left[:, :, k] / scale), low, high)
            error = errors[:, :, k - start] = (left[:, :, k] - whole * scale) / upper[:, k, k, None]
            left[:, :, k + 1 : stop] -= error[:, :, None] * upper[:, None, k, k + 1 : stop]
            np.put_along_axis(rounded, places[:, :, k, None], whole[:, :, None], axis=2)
        left[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    return rounded
