"""Small tools on ONNX graphs: sessions that behave, a clean FP32 model from torch, and the pixels' way in."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from trainer.features import Progress, silent
from trainer.models import mobilenet_v3
from trainer.models.build import Network
from trainer.models.classifier import PIXEL_MEAN, PIXEL_SCALE
from trainer.models.efficientnet_lite import ConvNorm
from trainer.models.full_resolution import FullResolution

FRAMES, PIXELS, LOGITS = "frames", "pixels", "logits"
"""The model's input (uint8), the same normalised to about -1..1 (float32), and its output."""

OPSET = 20
MAX_BATCH = 32
SCORE_BATCH = 8


class _Core(nn.Module):
    """The classifier from normalised pixels on: each variant gets its own way from uint8 to there.

    A copy, its batch norms multiplied into the convolutions before them.
    """

    def __init__(self, model: Network) -> None:
        super().__init__()
        self.model = deepcopy(model.separated() if isinstance(model, FullResolution) else model)
        self.eval()
        for module in self.modules():
            if isinstance(module, ConvNorm | mobilenet_v3.ConvNorm):  # the exporter would do it, in twice the time
                fold_norm(module)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model.from_pixels(pixels)


def fold_norm(layer: ConvNorm | mobilenet_v3.ConvNorm) -> None:
    """Multiply a batch norm into its convolution, in place; to the bit as PyTorch's exporter does for ONNX."""
    conv, norm = layer.conv, layer.norm
    of = {name: values.numpy() for name, values in norm.state_dict().items()}
    scale = of["weight"] / np.sqrt(of["running_var"] + norm.eps)
    conv.weight = nn.Parameter(conv.weight.detach() * torch.from_numpy(scale[:, None, None, None]))
    conv.bias = nn.Parameter(torch.from_numpy(-of["running_mean"] * scale + of["bias"]))
    layer.register_module("norm", nn.Identity())


def export_core(model: Network, shape: tuple[int, int, int]) -> ModelProto:
    """ONNX of a classifier: `pixels` float32 (N, C, H, W), normalised, to `logits` (N, classes); batch norm folded.

    Args:
        shape: (C, H, W) of one input.
    """
    example = torch.zeros(2, *shape)
    batch = torch.export.Dim("N", min=1, max=MAX_BATCH)
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "core.onnx"
        torch.onnx.export(
            _Core(model),
            (example,),
            path,
            dynamo=True,
            dynamic_shapes={PIXELS: {0: batch}},
            external_data=False,
            opset_version=OPSET,
            input_names=[PIXELS],
            output_names=[LOGITS],
            verbose=False,
        )
        return unshared(cleaned(onnx.load(path)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages and internals that a user can do nothing about."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def copied(model: ModelProto) -> ModelProto:
    """A deep copy."""
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def constant(value: NDArray[np.generic] | np.generic, name: str) -> TensorProto:
    """An initializer."""
    return numpy_helper.from_array(np.asarray(value), name)


def cleaned(model: ModelProto) -> ModelProto:
    """A copy without stack traces and paths of the machine that exported it: equal nets give equal bytes."""
    copy = copied(model)
    graph = copy.graph
    for item in (copy, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    graph.name = "lineguard"
    copy.producer_name, copy.producer_version = "lineguard", ""
    return copy


def unshared(model: ModelProto) -> ModelProto:
    """The model, changed in place so that every convolution has weights of its own.

    An exporter may merge equal weights of convolutions that see different things; here each is scaled and rounded by
    what it sees.
    """
    constants = {item.name: item for item in model.graph.initializer}
    taken: set[str] = set()
    for node in model.graph.node:
        for i, name in enumerate(node.input[1:] if node.op_type == "Conv" else (), 1):
            if name in taken:
                own = TensorProto()
                own.CopyFrom(constants[name])
                own.name = f"{name} of {node.name}"
                model.graph.initializer.append(own)
                node.input[i] = own.name
            taken.add(name)
    return model


def finished(model: ModelProto) -> ModelProto:
    """The model with unused weights dropped, shapes inferred anew, and checked by ONNX. Input: `frames` uint8."""
    graph = model.graph
    used = {name for node in graph.node for name in node.input} | {item.name for item in graph.output}
    for initializer in [item for item in graph.initializer if item.name not in used]:
        graph.initializer.remove(initializer)
    del graph.value_info[:]
    graph.input[0].name = FRAMES
    graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(inferred, full_check=True)
    return inferred


def normalising_nodes() -> tuple[list[NodeProto], list[TensorProto]]:
    """frames uint8 -> pixels float32 by (x - 127) / 128, exact: nodes and their constants."""
    constants = [
        constant(np.float32(PIXEL_MEAN), "pixel_mean"),
        constant(np.float32(1 / PIXEL_SCALE), "pixel_scale"),
    ]
    nodes = [
        helper.make_node("Cast", [FRAMES], ["frames_float"], name="cast_frames", to=TensorProto.FLOAT),
        helper.make_node("Sub", ["frames_float", "pixel_mean"], ["frames_centred"], name="centre_frames"),
        helper.make_node("Mul", ["frames_centred", "pixel_scale"], [PIXELS], name="scale_frames"),
    ]
    return nodes, constants


def with_normalisation(core: ModelProto) -> ModelProto:
    """The FP32 model: `frames` uint8 to `logits`."""
    model = copied(core)
    nodes, constants = normalising_nodes()
    nodes.extend(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(constants)
    return finished(model)


def with_views(model: ModelProto, flips: tuple[tuple[int, ...], ...]) -> ModelProto:
    """The model averaging its logits over mirrored views of the frames, all in one pass.

    Args:
        model: `frames` uint8 (N, C, H, W) to `logits`. It is the network for one view.
        flips: per view the axes of the frames that are reversed (`FLIPS` of the classifier).
    """
    if flips == ((),):
        return model
    averaged = copied(model)
    graph = averaged.graph
    # the mirrored pixels stay what TensorRT can slice: float behind a Cast, else the frames themselves
    source = next((node.output[0] for node in graph.node if node.op_type == "Cast" and node.input[0] == FRAMES), FRAMES)
    nodes = list(graph.node)
    views = []
    for i, axes in enumerate(flips):
        views.append(f"view{i}" if axes else source)
        if axes:
            graph.initializer.extend(_slicing(i, axes))
            names = [f"view{i}:{part}" for part in ("starts", "ends", "axes", "steps")]
            nodes.append(helper.make_node("Slice", [source, *names], [f"view{i}"], name=f"mirror {i}"))
    nodes.append(helper.make_node("Concat", views, ["views"], name="views", axis=0))
    head = nodes[len(graph.node) :]
    body = [copied_node(node) for node in graph.node]
    first = 0 if source == FRAMES else 1
    for node in body[first:]:
        node.input[:] = ["views" if name == source else name for name in node.input]
        node.output[:] = ["view_logits" if name == LOGITS else name for name in node.output]
    graph.initializer.extend(
        [
            constant(
                np.array([len(flips), -1, graph.output[0].type.tensor_type.shape.dim[1].dim_value]), "views:shape"
            ),
            constant(np.array([0]), "views:axis"),
        ]
    )
    tail = [
        helper.make_node("Reshape", ["view_logits", "views:shape"], ["logits_by_view"], name="split views"),
        helper.make_node("ReduceMean", ["logits_by_view", "views:axis"], [LOGITS], name="average views", keepdims=0),
    ]
    del graph.node[:]
    graph.node.extend([*body[:first], *head, *body[first:], *tail])
    return finished(averaged)


def _slicing(view: int, axes: tuple[int, ...]) -> list[TensorProto]:
    """Constants of a Slice that reverses `axes`."""
    ones = np.ones(len(axes), np.int64)
    values = {"starts": -ones, "ends": np.iinfo(np.int64).min + ones, "axes": np.array(axes, np.int64), "steps": -ones}
    return [constant(value, f"view{view}:{part}") for part, value in values.items()]


def copied_node(node: NodeProto) -> NodeProto:
    """A deep copy of one node."""
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def initializers(model: ModelProto) -> dict[str, NDArray[np.generic]]:
    """All constants by name."""
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def consumers(model: ModelProto) -> dict[str, list[NodeProto]]:
    """The nodes that read each tensor."""
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def session(
    model: bytes | ModelProto, threads: int = 0, fuse_integers: bool = True, optimised: Path | None = None
) -> onnxruntime.InferenceSession:
    """A CPU session with thread spinning off.

    Args:
        threads: of one operation; 0 takes all cores.
        fuse_integers: False computes quantise/dequantise pairs as they stand, in float. ONNX Runtime's integer
            kernels want uint8 activations; on the int8 ones of the `trt` variant they are slower than float.
        optimised: where to write the graph as it will be executed.
    """
    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not fuse_integers:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run_logits(
    running: onnxruntime.InferenceSession,
    frames: NDArray[np.uint8],
    progress: Progress = silent,
    what: str = "scoring",
) -> NDArray[np.float32]:
    """Logits float32 (n, classes) of preprocessed frames uint8 (n, C, H, W), in small batches."""
    return run_batches(running, frames, progress, what)


def run_batches(
    running: onnxruntime.InferenceSession, frames: NDArray[np.uint8], progress: Progress, what: str
) -> NDArray[np.float32]:
    """The only output of a model, float32 (n, ...), for preprocessed frames uint8 (n, C, H, W), in small batches."""
    [output] = running.get_outputs()
    rows = []
    for start in range(0, len(frames), SCORE_BATCH):
        batch = np.ascontiguousarray(frames[start : start + SCORE_BATCH])
        rows.append(np.asarray(running.run([output.name], {FRAMES: batch})[0], np.float32))
        progress(what, min(start + SCORE_BATCH, len(frames)), len(frames))
    return np.concatenate(rows)
