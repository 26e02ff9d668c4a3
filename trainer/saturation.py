"""Weights whose products no processor cuts off.

x86 processors without VNNI multiply unsigned by signed bytes with VPMADDUBSW, which adds two neighbouring products in
a *signed 16-bit* number and cuts off what does not fit: 255 * 127 twice is 64,770, twice too much. A model that is
right on one machine is then wrong on another, with no error anywhere. ONNX Runtime's remedies are 7-bit weights for
every layer or a slower kernel (``session.x64quantprecision``); here only pairs of neighbours that could overflow
together are kept smaller, so the integer sums are exact, and the same to the last bit, on every processor.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PAIR_LIMIT = 128
"""Two neighbouring weights of one sign may add up to this: 255 * 128 = 32,640 fits 16 bits with its sign."""


def partners(weight_shape: tuple[int, ...], groups: int) -> NDArray[np.int64]:
    """With which other weights of its filter each weight is multiplied in one instruction.

    Kernels walk a filter channel by channel or position by position, so both orders are held safe. Depthwise filters
    have a kernel of their own, which does not cut off.

    Args:
        weight_shape: (O, C / G, kh, kw). groups: G.

    Returns:
        int64 (orders, C / G * kh * kw): index of the neighbour in the flattened filter, -1 where there is none.
    """
    outputs, channels, height, width = weight_shape
    size = channels * height * width
    if channels == 1 and outputs == groups:
        return np.empty((0, size), np.int64)
    by_channel = np.arange(size)
    by_position = by_channel.reshape(channels, height * width).T.reshape(-1)
    orders = [by_channel] if channels == 1 or height * width == 1 else [by_channel, by_position]
    return np.stack([_neighbours(order) for order in orders])


def _neighbours(order: NDArray[np.int64]) -> NDArray[np.int64]:
    even = len(order) // 2 * 2
    found = np.full(len(order), -1)
    found[order[0:even:2]], found[order[1:even:2]] = order[1:even:2], order[0:even:2]
    return found


def largest_pair(weight: NDArray[np.float64], neighbours: NDArray[np.int64]) -> NDArray[np.float64]:
    """Largest absolute sum of two neighbours of one sign: (..., K) to (...); 0 without neighbours."""
    largest = np.zeros(weight.shape[:-1])
    for partner in neighbours:
        other = np.where(partner >= 0, weight[..., partner], 0.0)
        for sign in (1, -1):
            pair = np.maximum(sign * weight, 0) + np.maximum(sign * other, 0)
            largest = np.maximum(largest, pair.max(axis=-1))
    return largest


def bounds(
    rounded: NDArray[np.float64], places: NDArray[np.int64], neighbours: NDArray[np.int64], limit: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least and most that the next weight of each filter may be, given those rounded so far.

    Args:
        rounded: float64 (G, R, K), whole numbers, 0 where not rounded yet.
        places: int64 (G,), which weight comes next. neighbours: see `partners`. limit: of a single weight.

    Returns:
        Two float64 (G, R).
    """
    low, high = np.full(rounded.shape[:2], -limit), np.full(rounded.shape[:2], limit)
    for partner in neighbours:
        at = partner[places]
        other = np.where(at[:, None] >= 0, rounded[np.arange(len(at)), :, at], 0.0)
        high = np.minimum(high, PAIR_LIMIT - np.maximum(other, 0))
        low = np.maximum(low, -(PAIR_LIMIT - np.maximum(-other, 0)))
    return low, high
