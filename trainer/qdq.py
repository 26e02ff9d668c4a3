"""Writing the two INT8 variants of a float network: explicit QuantizeLinear/DequantizeLinear pairs.

`cpu`: activations uint8 with a zero point, so that ReLU6 vanishes into the range and ONNX Runtime fuses every
convolution into one integer kernel; the camera's uint8 pixels *are* the first quantised tensor (step 1/128, zero
point 127). `trt`: activations int8 without zero point, at the inputs of convolutions only, biases in float:
what TensorRT accepts and fuses itself. Weights are the same int8 numbers in both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from trainer.models.classifier import PIXEL_MEAN, PIXEL_SCALE
from trainer.observe import Spans
from trainer.onnx_graph import (
    FRAMES,
    PIXELS,
    constant,
    consumers,
    copied,
    finished,
    initializers,
    normalising_nodes,
)
from trainer.rounding import RoundedConv

VariantName = Literal["cpu", "trt"]

SQUASHING = ("Clip", "Relu")
"""Activations that a saturating range can stand for."""

PIXEL_MOVERS = ("AveragePool", "Concat", "GatherElements", "Reshape", "Slice")
"""Nodes whose output is made of grey levels where their input is."""


@dataclass(frozen=True)
class Step:
    """How a tensor is quantised: real = scale * (integer - zero_point)."""

    scale: float
    zero_point: int
    dtype: type[np.uint8] | type[np.int8]


def asymmetric(least: float, most: float) -> Step:
    """uint8 step over [least, most], widened to hold 0 exactly."""
    least, most = min(least, 0.0), max(most, 0.0)
    scale = max((most - least) / 255, 1e-9)
    return Step(scale, round(-least / scale), np.uint8)


def symmetric(least: float, most: float) -> Step:
    """int8 step over [-m, m] where m is the larger magnitude."""
    return Step(max(-least, most, 1e-7) / 127, 0, np.int8)


def pixel_step(variant: VariantName) -> Step:
    """The pixels' own grid: one grey level is one step. (int8 saturates level 255 to 254.)"""
    if variant == "cpu":
        return Step(1 / PIXEL_SCALE, int(PIXEL_MEAN), np.uint8)
    return Step(1 / PIXEL_SCALE, 0, np.int8)


@dataclass(frozen=True)
class Plan:
    """What is to be quantised.

    Attributes:
        steps: the quantised tensors.
        dropped: activations that the range of the tensor behind them stands for: {their output: their input}.
        readers: which kinds of node read the quantised value; None is all of them.
    """

    steps: dict[str, Step]
    dropped: dict[str, str]
    readers: tuple[str, ...] | None


def plan_cpu(core: ModelProto, spans: Spans) -> Plan:
    """Every input and output of a convolution, and sums of two quantised tensors: integers all the way."""
    steps: dict[str, Step] = {name: pixel_step("cpu") for name in pixel_tensors(core)}
    dropped: dict[str, str] = {}
    readers, constants = consumers(core), initializers(core)

    def close(name: str) -> None:
        following = readers.get(name, [])
        if len(following) == 1 and stands_for_range(following[0], constants, spans):
            dropped[following[0].output[0]] = name
            name = following[0].output[0]
        steps[name] = asymmetric(*spans[name].whole)

    for node in core.graph.node:
        if node.op_type == "Conv":
            if node.input[0] not in steps:
                steps[node.input[0]] = asymmetric(*spans[node.input[0]].whole)
            close(node.output[0])
        elif node.op_type == "Add" and all(name in steps for name in node.input):
            close(node.output[0])
    return Plan(steps, dropped, None)


def plan_trt(core: ModelProto, spans: Spans) -> Plan:
    """The inputs of convolutions, read so by residual sums too; all else is TensorRT's to fuse."""
    pixels = pixel_tensors(core)
    steps = {
        node.input[0]: pixel_step("trt") if node.input[0] in pixels else symmetric(*spans[node.input[0]].whole)
        for node in core.graph.node
        if node.op_type == "Conv"
    }
    return Plan(steps, {}, ("Conv", "Add"))


def pixel_tensors(core: ModelProto) -> list[str]:
    """The pixels, and what is cut out of them or averaged: all on the pixels' own grid of grey levels."""
    found = [PIXELS]
    for node in core.graph.node:
        if node.op_type in PIXEL_MOVERS and node.input[0] in found:
            found.extend(node.output)
    return found


def stands_for_range(node: NodeProto, constants: dict[str, NDArray[np.generic]], spans: Spans) -> bool:
    """Whether saturating at the observed range of the node's output does what the node does."""
    if node.op_type not in SQUASHING or node.output[0] not in spans:
        return False
    least, most = spans[node.output[0]].whole
    if node.op_type == "Relu":
        return True
    bounds = [float(constants[name]) if name in constants else None for name in node.input[1:]]
    if any(bound is None for bound in bounds) or len(bounds) != 2:
        return False
    low, high = bounds[0] or 0.0, bounds[1] or 0.0
    return low <= min(least, 0.0) and max(most, 0.0) <= high


def write_variant(
    core: ModelProto,
    plan: Plan,
    variant: VariantName,
    rounded: Callable[[NodeProto, float], RoundedConv],
) -> ModelProto:
    """The network with quantised tensors and weights; `frames` uint8 to `logits`.

    Args:
        rounded: gives the int8 weights of a convolution for the step of its input.
    """
    writer = _Writer(plan, variant)
    writer.enter()
    for node in core.graph.node:
        if plan.dropped.get(node.output[0]) == node.input[0]:
            writer.rename[node.input[0]] = node.output[0]
    for node in core.graph.node:
        if plan.dropped.get(node.output[0]) != node.input[0]:
            writer.add(node, rounded)
    model = copied(core)
    del model.graph.node[:]
    model.graph.node.extend(writer.nodes)
    model.graph.initializer.extend(writer.constants)
    return finished(model)


class _Writer:
    """Collects the nodes of a variant in execution order."""

    def __init__(self, plan: Plan, variant: VariantName) -> None:
        self.plan, self.variant = plan, variant
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.rename: dict[str, str] = {}

    def enter(self) -> None:
        """From uint8 frames to the pixels' tensor."""
        if self.variant == "cpu":
            self._dequantise(PIXELS, FRAMES, self.plan.steps[PIXELS])
            return
        nodes, constants = normalising_nodes()
        self.nodes.extend(nodes)
        self.constants.extend(constants)
        if PIXELS in self.plan.steps:
            self._pair(PIXELS)

    def add(self, original: NodeProto, rounded: Callable[[NodeProto, float], RoundedConv]) -> None:
        """One node of the float network, reading and writing quantised tensors where the plan has them."""
        node = NodeProto()
        node.CopyFrom(original)
        readers = self.plan.readers
        for i, name in enumerate(node.input):
            if name in self.plan.steps and (readers is None or node.op_type in readers):
                node.input[i] = f"{name}:real"
        for i, name in enumerate(node.output):
            node.output[i] = self.rename.get(name, name)
        if node.op_type == "Conv":
            self._weights(node, original, rounded(original, self.plan.steps[original.input[0]].scale))
        self.nodes.append(node)
        for name in node.output:
            if name in self.plan.steps:
                self._pair(name)

    def _pair(self, name: str) -> None:
        step = self.plan.steps[name]
        self._parameters(name, step)
        self.nodes.append(
            helper.make_node(
                "QuantizeLinear", [name, f"{name}:scale", f"{name}:zero"], [f"{name}:q"], name=f"quantise {name}"
            )
        )
        self._dequantise(name, f"{name}:q", step)

    def _dequantise(self, name: str, quantised: str, step: Step) -> None:
        if quantised == FRAMES:
            self._parameters(name, step)
        self.nodes.append(
            helper.make_node(
                "DequantizeLinear",
                [quantised, f"{name}:scale", f"{name}:zero"],
                [f"{name}:real"],
                name=f"dequantise {name}",
            )
        )

    def _parameters(self, name: str, step: Step) -> None:
        self.constants.append(constant(np.float32(step.scale), f"{name}:scale"))
        self.constants.append(constant(step.dtype(step.zero_point), f"{name}:zero"))

    def _weights(self, node: NodeProto, original: NodeProto, conv: RoundedConv) -> None:
        weight = f"{original.name}:weight"
        node.input[1] = self._constant_pair(weight, conv.values, conv.scale)
        bias = f"{original.name}:bias"
        if self.variant == "cpu":
            scale = (conv.scale * np.float32(self.plan.steps[original.input[0]].scale)).astype(np.float32)
            whole = np.round(conv.bias / scale.astype(np.float64)).astype(np.int32)
            name = self._constant_pair(bias, whole, scale)
        else:
            self.constants.append(constant(conv.bias.astype(np.float32), bias))
            name = bias
        if len(node.input) > 2:
            node.input[2] = name
        else:
            node.input.append(name)

    def _constant_pair(self, name: str, values: NDArray[np.generic], scale: NDArray[np.float32]) -> str:
        """An integer constant and the node that gives its real value, per output channel."""
        self.constants.append(constant(values, f"{name}:q"))
        self.constants.append(constant(scale, f"{name}:scale"))
        self.constants.append(constant(np.zeros(len(scale), values.dtype), f"{name}:zero"))
        inputs = [f"{name}:q", f"{name}:scale", f"{name}:zero"]
        self.nodes.append(
            helper.make_node("DequantizeLinear", inputs, [f"{name}:real"], name=f"dequantise {name}", axis=0)
        )
        return f"{name}:real"
