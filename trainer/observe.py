"""What the activations of a network look like on training frames: all that quantisation needs to know.

One calibration serves both INT8 variants: the range of every tensor, and mean and covariance of what each
convolution reads. Both are taken on the FP32 network, from training frames only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from trainer.features import Progress, silent
from trainer.models.classifier import PIXEL_MEAN, PIXEL_SCALE
from trainer.onnx_graph import PIXELS, constant, copied, initializers, session

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

RANGE_FRAMES = 256
MOMENT_FRAMES = 64
PLACES = 256
"""Output positions of each convolution that are looked at per frame."""

BATCH_PIXELS = 4 * 300 * 300


@dataclass(frozen=True)
class Moments:
    """First and second moments of what one convolution multiplies its weights with.

    A convolution of G groups is G independent linear maps of K = (C / G) kh kw values.

    Attributes:
        mean: float64 (G, K). covariance: float64 (G, K, K), about the mean.
        samples: how many positions they were taken from.
    """

    mean: Doubles
    covariance: Doubles
    samples: int


@dataclass(frozen=True)
class Span:
    """Least and most value of each channel of a tensor: float64 (C,) each."""

    least: Doubles
    most: Doubles

    @property
    def whole(self) -> tuple[float, float]:
        """Least and most of the whole tensor."""
        return float(self.least.min()), float(self.most.max())


Spans = dict[str, Span]
"""Spans of the spatial tensors of a network, by name."""


def calibration_rows(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Up to `count` rows, the classes in turn so that rare ones are not outvoted; seeded; int64, each row once."""
    rng = np.random.default_rng([seed, 7])
    queues = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    longest = max(map(len, queues))
    turns = [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]
    return np.array(turns[:count], dtype=np.int64)


def _normalised(frames: NDArray[np.uint8]) -> Floats:
    return np.asarray((frames.astype(np.float32) - PIXEL_MEAN) / PIXEL_SCALE)


def observe_spans(core: ModelProto, frames: NDArray[np.uint8], progress: Progress = silent) -> Spans:
    """Least and most of every channel of every spatial tensor, over frames uint8 (n, C, H, W).

    Args:
        core: as `export_core` gives it.
    """
    model = copied(core)
    graph = model.graph
    rank = {item.name: len(item.type.tensor_type.shape.dim) for item in (*graph.value_info, *graph.input)}
    names = [name for node in graph.node for name in node.output if rank.get(name) == 4]
    outputs = []
    graph.initializer.append(constant(np.array([0, 2, 3]), "all but channels"))
    for i, name in enumerate(names):
        for kind in ("Min", "Max"):
            outputs.append(f"{kind}:{i}")
            inputs = [name, "all but channels"]
            graph.node.append(helper.make_node(f"Reduce{kind}", inputs, [outputs[-1]], keepdims=0))
            graph.output.append(helper.make_tensor_value_info(outputs[-1], TensorProto.FLOAT, None))
    running = session(model)
    least: list[Doubles] = []
    most: list[Doubles] = []
    step = max(1, min(8, BATCH_PIXELS // (frames.shape[2] * frames.shape[3])))
    for start in range(0, len(frames), step):
        found = running.run(outputs, {PIXELS: _normalised(frames[start : start + step])})
        least = [np.minimum(a, b) for a, b in zip(least or found[0::2], found[0::2], strict=True)]
        most = [np.maximum(a, b) for a, b in zip(most or found[1::2], found[1::2], strict=True)]
        progress("calibrating: ranges", min(start + step, len(frames)), len(frames))
    bounds = zip(names, least, most, strict=True)
    return {name: Span(np.asarray(a, np.float64), np.asarray(b, np.float64)) for name, a, b in bounds}


def observe_moments(
    core: ModelProto, frames: NDArray[np.uint8], seed: int = 0, progress: Progress = silent
) -> dict[str, Moments]:
    """Moments of what every convolution reads, by node name, sampled from frames uint8 (n, C, H, W)."""
    model = copied(core)
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    weights = initializers(model)
    inputs = sorted({node.input[0] for node in convs} - {PIXELS})
    for name in inputs:
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    running = session(model)
    rng = np.random.default_rng([seed, 11])
    sums: dict[str, _Sums] = {}
    for i, frame in enumerate(frames):
        pixels = _normalised(frame[None])
        maps = dict(zip(inputs, running.run(inputs, {PIXELS: pixels}), strict=True)) if inputs else {}
        maps[PIXELS] = pixels
        for node in convs:
            seen = maps[node.input[0]]  # of several where the network cuts the frame up: one of them in turn
            sampled = patches(seen[i % len(seen)], node, weights[node.input[1]].shape, rng)
            if node.name not in sums:
                sums[node.name] = _Sums(*sampled.shape[:2])
            sums[node.name].add(sampled)
        progress("calibrating: moments", i + 1, len(frames))
    return {name: total.moments() for name, total in sums.items()}


class _Sums:
    """Sums over the samples of a convolution; added to in place, for there may be millions."""

    def __init__(self, groups: int, size: int) -> None:
        self._values = np.zeros((groups, size))
        self._products = np.zeros((groups, size, size))
        self._samples = 0

    def add(self, sampled: Floats) -> None:
        """Add samples, float32 (G, K, S)."""
        self._values += sampled.sum(axis=2, dtype=np.float64)
        self._products += np.matmul(sampled, sampled.transpose(0, 2, 1))
        self._samples += sampled.shape[2]

    def moments(self) -> Moments:
        """Mean and covariance of all that was added."""
        mean = self._values / self._samples
        covariance = self._products / self._samples - mean[:, :, None] * mean[:, None, :]
        return Moments(mean, covariance, self._samples)


def patches(values: Floats, node: NodeProto, weight_shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """What a convolution reads at random output positions.

    Args:
        values: its input, float32 (C, H, W). weight_shape: (O, C / G, kh, kw).

    Returns:
        float32 (G, C / G * kh * kw, S), zero where the window reaches beyond the map; S <= PLACES.
    """
    attributes = conv_attributes(node)
    channels, height, width = values.shape
    kernel_h, kernel_w = weight_shape[2:]
    top, left, bottom, right = attributes.pads
    (step_y, step_x), (gap_y, gap_x) = attributes.strides, attributes.dilations
    rows = (height + top + bottom - gap_y * (kernel_h - 1) - 1) // step_y + 1
    columns = (width + left + right - gap_x * (kernel_w - 1) - 1) // step_x + 1
    place = rng.choice(rows * columns, min(PLACES, rows * columns), replace=False)
    tap_y, tap_x = np.divmod(np.arange(kernel_h * kernel_w)[:, None], kernel_w)
    y = place // columns * step_y - top + tap_y * gap_y  # (kh * kw, S), as x
    x = place % columns * step_x - left + tap_x * gap_x
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    at = y.clip(0, height - 1) * width + x.clip(0, width - 1)
    window: Floats = values.reshape(channels, -1).take(at, axis=1)  # (C, kh * kw, S)
    if not inside.all():
        window *= inside
    return window.reshape((attributes.group, -1, len(place)))


@dataclass(frozen=True)
class ConvAttributes:
    """Geometry of a 2-D convolution; pads are (top, left, bottom, right)."""

    group: int
    pads: tuple[int, int, int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]


def conv_attributes(node: NodeProto) -> ConvAttributes:
    """The attributes of a Conv node with ONNX's defaults filled in. ValueError for implicit padding or 1-D, 3-D."""
    given = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    pads = tuple(given.get("pads", (0, 0, 0, 0)))
    if given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or len(pads) != 4:
        raise ValueError(f"convolution {node.name}: only 2-D convolutions with explicit padding can be quantised")
    strides, dilations = given.get("strides", (1, 1)), given.get("dilations", (1, 1))
    return ConvAttributes(
        int(given.get("group", 1)),
        (pads[0], pads[1], pads[2], pads[3]),
        (strides[0], strides[1]),
        (dilations[0], dilations[1]),
    )
