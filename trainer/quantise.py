"""Post-training quantisation: one calibration, two INT8 variants, and proof that no convolution was left behind."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from calibration.errors import InputError
from trainer.equalise import equalised
from trainer.features import Progress, silent
from trainer.models.classifier import Views
from trainer.observe import (
    MOMENT_FRAMES,
    RANGE_FRAMES,
    Moments,
    calibration_rows,
    observe_moments,
    observe_spans,
)
from trainer.onnx_graph import initializers, session
from trainer.qdq import Plan, VariantName, plan_cpu, plan_trt, write_variant
from trainer.rounding import RoundedConv, round_conv
from trainer.splitting import split_channels


@dataclass(frozen=True)
class Quantised:
    """An INT8 model.

    Attributes:
        model: ONNX, `frames` uint8 (N, C, H, W) to `logits` float32 (N, classes).
        convolutions: how many there are, all of them in INT8.
    """

    model: ModelProto
    convolutions: int


def quantise(
    core: ModelProto,
    frames: NDArray[np.uint8],
    labels: NDArray[np.int64],
    seed: int = 0,
    progress: Progress = silent,
    views: Views = ((),),
) -> dict[VariantName, Quantised]:
    """Both INT8 variants of a float network.

    Args:
        core: as `export_core` gives it. frames: preprocessed training frames, uint8 (n, C, H, W). labels: int (n,).
        progress: called with (what, done, total).
        views: mirrored views that the network will be shown (FLIPS of the classifier); it is calibrated on them.

    Raises:
        InputError: a convolution fell out of INT8.
    """
    rows = calibration_rows(labels, RANGE_FRAMES, seed)
    spans = observe_spans(core, mirrored(frames[rows], views), progress)
    core, spans = equalised(core, spans)
    moments = observe_moments(core, mirrored(frames[rows[:MOMENT_FRAMES]], views), seed, progress)
    core, spans, moments = split_channels(core, spans, moments)
    plans: dict[VariantName, Plan] = {"cpu": plan_cpu(core, spans), "trt": plan_trt(core, spans)}
    variants: dict[VariantName, Quantised] = {}
    weights = _Weights(core, moments)
    for name, plan in plans.items():
        model = write_variant(core, plan, name, weights.of)
        variants[name] = Quantised(model, check_integer(model, name))
        progress("quantising", len(variants), len(plans))
    return variants


def mirrored(frames: NDArray[np.uint8], views: Views = ((),)) -> NDArray[np.uint8]:
    """Frames (n, C, H, W) as the network will see them: each in one of the views, in turn."""
    turned = [np.flip(frame[None], views[i % len(views)]) for i, frame in enumerate(frames)]
    return np.concatenate(turned)


class _Weights:
    """Each convolution's weights, rounded once for both variants; only the bias limit depends on the input's step."""

    def __init__(self, core: ModelProto, moments: dict[str, Moments]) -> None:
        self._constants = initializers(core)
        self._moments = moments
        self._rounded: dict[str, RoundedConv] = {}

    def of(self, node: NodeProto, input_scale: float) -> RoundedConv:
        if node.name not in self._rounded:
            weight = self._constants[node.input[1]]
            bias = self._constants[node.input[2]] if len(node.input) > 2 else np.zeros(len(weight), np.float32)
            self._rounded[node.name] = round_conv(weight, bias, self._moments[node.name], input_scale)
        return self._rounded[node.name]


def check_integer(model: ModelProto, variant: VariantName) -> int:
    """Number of convolutions, all of them in INT8.

    For `cpu` that is what ONNX Runtime makes of the graph; `trt` is held against the rule that TensorRT fuses by:
    data and weights of a convolution both come from a DequantizeLinear.

    Raises:
        InputError: some are not, with their number and names.
    """
    total = len([node for node in model.graph.node if node.op_type == "Conv"])
    left = _left_in_float(executed(model).graph.node if variant == "cpu" else model.graph.node, variant)
    if left or total == 0:
        names = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
        raise InputError(
            f"model.{variant}.onnx: {len(left)} of {total} convolutions are not in INT8 ({names or 'none found'}): "
            "it would run slower than FP32. Train with --backbone efficientnet-lite0, whose convolutions all fuse"
        )
    return total


def _left_in_float(nodes: Iterable[NodeProto], variant: VariantName) -> list[str]:
    nodes = list(nodes)
    if variant == "cpu":
        return [node.name for node in nodes if "Conv" in node.op_type and not node.op_type.startswith("QLinear")]
    real = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    return [node.name for node in nodes if node.op_type == "Conv" and not real.issuperset(node.input[:2])]


def executed(model: ModelProto) -> ModelProto:
    """The graph as ONNX Runtime executes it on this machine, after its own fusions."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "executed.onnx"
        session(model, optimised=path)
        return onnx.load(path)


def operators(model: ModelProto) -> dict[str, int]:
    """How many nodes of each kind a graph has."""
    return dict(sorted(Counter(node.op_type for node in model.graph.node).items()))
