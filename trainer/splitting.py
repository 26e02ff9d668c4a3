"""Writing a channel more than once, so that its copies together carry more levels than one of them has.

A channel that hardly varies beside its offset may move by less than one step of its tensor, and the depthwise filter
that reads it magnifies what rounding left. Such a channel is computed k times, each copy shifted by a further k-th of
a step, and the copies are averaged where they are mixed: their rounding errors differ and cancel. This is the
quantisation-aware form of outlier channel splitting (Zhao et al., ICML 2019, section 3.2), applied to activations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from trainer.observe import Moments, Span, Spans, conv_attributes
from trainer.onnx_graph import constant, consumers, copied, initializers

Doubles = NDArray[np.float64]
Arrays = dict[str, NDArray[np.float32]]

NOISE = 1e-3
"""Share of rounding noise in the variance of what a depthwise block puts out, above which channels are split."""

EXTRA = 16
"""At most this many further channels for one block; half of those there are where that is less."""

ALIGNED = 8
"""Channels are added in multiples of this: kernels work on that many at once anyway."""

MOST_COPIES = 8
STEADY = 3.0
"""Only channels whose mean is this many deviations above zero: their ReLU is always on."""

LEVELS = 255


@dataclass(frozen=True)
class Block:
    """A depthwise convolution between two others: `write` (with `first` behind it), `depth` (`second`), `mix`."""

    write: NodeProto
    first: str
    depth: NodeProto
    second: str
    mix: NodeProto


def split_channels(
    core: ModelProto, spans: Spans, moments: dict[str, Moments]
) -> tuple[ModelProto, Spans, dict[str, Moments]]:
    """The network with its noisiest channels before depthwise convolutions written several times.

    Args:
        core, spans: as `equalised` gives them. moments: of that network.

    Returns:
        The wider network, the same function but for shifts below one step, with its spans and moments.
    """
    model = copied(core)
    weights: Arrays = {
        name: value.astype(np.float32) for name, value in initializers(model).items() if value.dtype == np.float32
    }
    changed, seen = dict(spans), dict(moments)
    for block in blocks(model, spans):
        copies = _copies(block, spans, moments, weights)
        if copies.max() > 1:
            _write(block, copies, spans, weights)
            index = np.repeat(np.arange(len(copies)), copies)
            for name in (block.write.output[0], block.first, block.depth.output[0], block.second):
                changed[name] = Span(changed[name].least[index], changed[name].most[index])
            depth, mix = moments[block.depth.name], moments[block.mix.name]
            seen[block.depth.name] = Moments(depth.mean[index], depth.covariance[index], depth.samples)
            wider = mix.covariance[:, index][:, :, index]
            seen[block.mix.name] = Moments(mix.mean[:, index], wider, mix.samples)
    for initializer in model.graph.initializer:
        if initializer.name in weights:
            initializer.CopyFrom(constant(weights[initializer.name], initializer.name))
    del model.graph.value_info[:]  # channel counts have changed
    return model, changed, seen


def blocks(model: ModelProto, spans: Spans) -> list[Block]:
    """Depthwise convolutions whose input comes from one convolution, goes nowhere else, and is mixed by one."""
    readers = consumers(model)
    writers = {node.output[0]: node for node in model.graph.node}
    weights = initializers(model)
    shared = [name for node in model.graph.node for name in node.input if name in weights]

    def behind(node: NodeProto) -> tuple[str, NodeProto | None]:
        """The tensor after the node's activation, and its only reader."""
        name = node.output[0]
        following = readers.get(name, [])
        if len(following) == 1 and following[0].op_type in ("Clip", "Relu"):
            name = following[0].output[0]
            following = readers.get(name, [])
        return name, following[0] if len(following) == 1 else None

    found = []
    for node in model.graph.node:
        if node.op_type != "Conv" or len(node.input) < 3 or conv_attributes(node).group > 1:
            continue
        first, depth = behind(node)
        if depth is None or depth.op_type != "Conv" or len(depth.input) < 3 or first not in spans:
            continue
        channels = len(spans[first].most)
        if conv_attributes(depth).group != channels or weights[depth.input[1]].shape[0] != channels:
            continue
        second, mix = behind(depth)
        if mix is None or mix.op_type != "Conv" or conv_attributes(mix).group > 1:
            continue
        names = [*node.input[1:], *depth.input[1:], mix.input[1]]
        plain = {writers[first].op_type, writers[second].op_type} <= {"Clip", "Relu"}
        if plain and all(shared.count(name) == 1 for name in names):
            found.append(Block(node, first, depth, second, mix))
    return found


def _copies(block: Block, spans: Spans, moments: dict[str, Moments], weights: Arrays) -> NDArray[np.int64]:
    """How often each channel is to be written, >= 1: the noisiest once more, until the noise is small."""
    step = max(spans[block.first].whole[1], 1e-6) / LEVELS
    depth = weights[block.depth.input[1]].astype(np.float64)
    mix = weights[block.mix.input[1]].astype(np.float64).reshape(len(weights[block.mix.input[1]]), -1)
    seen = moments[block.mix.name]
    variance = (mix @ seen.covariance[0] * mix).sum(axis=1)
    worth = (mix**2 / np.maximum(variance, 1e-9)[:, None]).mean(axis=0)
    taps = depth.reshape(len(depth), -1)
    # errors of neighbouring pixels are independent on texture, equal on smooth channels: take the worse
    gain = np.maximum((taps**2).sum(axis=1), taps.sum(axis=1) ** 2)
    noise = step**2 / 12 * gain * worth
    # a shift is undone behind the filter, which is only right where the activation does not cut it off
    window = moments[block.depth.name]
    middle = window.mean.shape[1] // 2
    steady = window.mean[:, middle] >= STEADY * np.sqrt(np.maximum(window.covariance[:, middle, middle], 0))
    noise *= steady
    copies = np.ones(len(noise), np.int64)
    room = min(EXTRA, max(ALIGNED, len(noise) // 2)) // ALIGNED * ALIGNED
    while copies.sum() - len(copies) < room:
        left = np.where(copies < MOST_COPIES, noise / copies**2, 0.0)
        enough = (noise / copies**2).sum() <= NOISE
        if left.max() <= 0 or (enough and (copies.sum() - len(copies)) % ALIGNED == 0):
            break
        copies[int(left.argmax())] += 1
    return copies


def _write(block: Block, copies: NDArray[np.int64], spans: Spans, weights: Arrays) -> None:
    """Repeat rows where the channels are written and filtered, and columns, divided, where they are mixed."""
    index = np.repeat(np.arange(len(copies)), copies)
    phase = np.concatenate([np.arange(k) / k for k in copies])
    first = spans[block.first].whole[1] / LEVELS * phase
    names = (*block.write.input[1:3], *block.depth.input[1:3])
    for name in names:
        weights[name] = weights[name][index]
    taps = weights[block.depth.input[1]].reshape(len(index), -1).sum(axis=1)
    weights[block.write.input[2]] = (weights[block.write.input[2]] + first).astype(np.float32)
    moved = weights[block.depth.input[2]] - first * taps
    weights[block.depth.input[2]] = moved.astype(np.float32)
    share = 1.0 / copies[index]
    mix = weights[block.mix.input[1]][:, index] * share[None, :, None, None]
    weights[block.mix.input[1]] = mix.astype(np.float32)
    for item in block.depth.attribute:
        if item.name == "group":
            item.i = len(index)
