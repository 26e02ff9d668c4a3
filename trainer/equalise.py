"""Giving every channel its share of the 256 levels (Nagel et al. 2019, "Data-Free Quantization", section 4.1).

One step size serves a whole activation tensor, so a channel of small values is written with few levels, and the
large weights that read it magnify the error. Multiplying a channel by s where it is written and dividing by s where
it is read changes nothing in float, and lets small channels use the range of large ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from trainer.observe import Span, Spans, conv_attributes
from trainer.onnx_graph import constant, copied, initializers

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

HEADROOM = 1.25
"""A channel cut off below ReLU6's 6 keeps this much room above what was seen: a new defect may be brighter."""

MOST = 64.0
"""Largest factor of a channel, and its inverse the smallest."""

POOLS = ("ReduceMean", "ReduceMax")
FLATTENED = ("Reshape",)
"""What other pooling reads a map by."""

ACTIVATIONS = ("Clip", "Relu")


@dataclass
class Tie:
    """Tensors whose channels must share their factors, because additions or activations join them.

    Attributes:
        writers, readers: the nodes that bring values in from and take them out to elsewhere.
        cap: where a Clip saturates the tensors; None without one.
        sums: whether an addition is among the joints.
    """

    tensors: set[str] = field(default_factory=set)
    writers: list[NodeProto] = field(default_factory=list)
    readers: list[NodeProto] = field(default_factory=list)
    cap: float | None = None
    sums: bool = False


def equalised(core: ModelProto, spans: Spans, balance: float = 0.5) -> tuple[ModelProto, Spans]:
    """A network of the same function whose channels differ less in range, and the spans of its tensors.

    The same up to saturation: a channel before a depthwise convolution that never came near ReLU6's 6 is cut off at
    HEADROOM times its largest observed value.

    Args:
        balance: 0..1, how far channels are evened out at the expense of the weights that read them.
    """
    model = copied(core)
    weights: dict[str, Floats] = {
        name: value.astype(np.float32) for name, value in initializers(model).items() if value.dtype == np.float32
    }
    changed = dict(spans)
    for tie in ties(model, spans):
        factors = _factors(tie, spans, weights, balance)
        if factors is None:
            continue
        _apply(model, tie, factors.astype(np.float32), weights)
        for name in tie.tensors:
            span = changed[name]
            most = span.most * factors
            if tie.cap is not None:
                most = np.where(factors > 1, tie.cap, most)
            changed[name] = Span(span.least * factors, most)
    for initializer in model.graph.initializer:
        if initializer.name in weights:
            initializer.CopyFrom(constant(weights[initializer.name], initializer.name))
    return model, changed


def ties(model: ModelProto, spans: Spans) -> list[Tie]:
    """The spatial tensors of a network, grouped by what joins their channels."""
    parent: dict[str, str] = {}
    constants = initializers(model)

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    joints = [
        node for node in model.graph.node if node.op_type in ("Add", *ACTIVATIONS) and {node.output[0]} <= spans.keys()
    ]
    for node in joints:
        for name in node.input if node.op_type == "Add" else node.input[:1]:
            parent[root(name)] = root(node.output[0])
    groups: dict[str, Tie] = {}
    for name in spans:
        groups.setdefault(root(name), Tie()).tensors.add(name)
    inner = {node.output[0]: node for node in joints}
    for node in model.graph.node:
        for name in node.output:
            if name in spans:
                tie = groups[root(name)]
                if inner.get(name) is None:
                    tie.writers.append(node)
                elif node.op_type == "Clip":
                    tie.cap = float(constants[node.input[2]])
                tie.sums |= node.op_type == "Add"
        if node.output[0] not in inner:
            for name in node.input:
                if name in spans:
                    groups[root(name)].readers.append(node)
    return list(groups.values())


def _factors(tie: Tie, spans: Spans, weights: dict[str, Floats], balance: float) -> Doubles | None:
    """Factor of each channel, or None where the tie must stay as it is."""
    convs = [node for node in tie.readers if node.op_type == "Conv"]
    known = all(node.op_type in ("Conv", *POOLS, *FLATTENED) for node in tie.readers)
    written = bool(tie.writers) and all(node.op_type == "Conv" for node in tie.writers)
    if not (convs and known and written):
        return None
    depthwise = [conv_attributes(node).group > 1 for node in convs]
    if tie.cap is not None:
        if tie.sums or not all(depthwise):
            return None
        most = np.max([spans[name].most for name in tie.tensors], axis=0)
        room = tie.cap / (HEADROOM * np.maximum(most, 1e-6))
        return np.where(most > 0, np.clip(room, 1.0, MOST), 1.0)
    if any(depthwise):
        return None
    reach = np.max([np.maximum(-spans[name].least, spans[name].most) for name in tie.tensors], axis=0)
    read = np.max([_column_shares(weights[node.input[1]]) for node in convs], axis=0)
    factors = np.maximum(read, 1e-3) ** (1 - balance) / np.maximum(reach, 1e-3 * reach.max()) ** balance
    factors /= np.exp(np.log(factors).mean())
    return np.asarray(np.clip(factors, 1 / MOST, MOST))


def _column_shares(weight: Floats) -> Doubles:
    """How large each input channel's weights are beside the largest of the same output channel: float64 (C,)."""
    largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    return np.asarray((np.abs(weight) / np.maximum(largest, 1e-12)).max(axis=(0, 2, 3)), np.float64)


def _apply(model: ModelProto, tie: Tie, factors: Floats, weights: dict[str, Floats]) -> None:
    for node in tie.writers:
        weights[node.input[1]] = weights[node.input[1]] * factors[:, None, None, None]
        if len(node.input) > 2:
            weights[node.input[2]] = weights[node.input[2]] * factors
    for node in tie.readers:
        if node.op_type in POOLS:
            _undo_behind(model, node, factors)
            continue
        if node.op_type in FLATTENED:
            _undo_before(model, node, factors)
            continue
        weight = weights[node.input[1]]
        if weight.shape[1] == 1 and conv_attributes(node).group > 1:
            each = np.repeat(factors, len(weight) // len(factors))
            weights[node.input[1]] = weight / each[:, None, None, None]
        else:
            weights[node.input[1]] = weight / factors[None, :, None, None]


def _undo_behind(model: ModelProto, node: NodeProto, factors: Floats) -> None:
    """Divide a pooled output by the factors, which are positive and so commute with mean and max."""
    keepdims = next((item.i for item in node.attribute if item.name == "keepdims"), 1)
    output, name = node.output[0], f"{node.output[0]}:inverse factors"
    inverse = (1 / factors)[None] if not keepdims else (1 / factors)[None, :, None, None]
    model.graph.initializer.append(constant(inverse.astype(np.float32), name))
    node.output[0] = f"{output}:scaled"
    place = list(model.graph.node).index(node)
    undo = helper.make_node("Mul", [node.output[0], name], [output], name=f"unscale {output}")
    model.graph.node.insert(place + 1, undo)


def _undo_before(model: ModelProto, node: NodeProto, factors: Floats) -> None:
    """Divide what the node reads by the factors."""
    scaled = node.input[0]
    node.input[0], name = f"{node.output[0]}:unscaled", f"{node.output[0]}:inverse factors"
    model.graph.initializer.append(constant((1 / factors)[None, :, None, None].astype(np.float32), name))
    undo = helper.make_node("Mul", [scaled, name], [node.input[0]], name=f"unscale before {node.output[0]}")
    model.graph.node.insert(list(model.graph.node).index(node), undo)
