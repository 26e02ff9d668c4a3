"""What INT8 does to the features of a frozen network, measured on the training frames.

Rounding moves every feature of a part a little, and with them a part near the threshold to its other side. The
features do not move independently: most of it starts in the first few layers and reaches many features at once. A head
that knows how they move leans on what stays in place: see `trainer.head`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from trainer.data.loader import LoadedSplit
from trainer.features import FORWARD_BATCH, Progress, silent
from trainer.models.classifier import Classifier, Views
from trainer.models.committee import views_of
from trainer.onnx_graph import copied, export_core, run_batches, session
from trainer.quantise import quantise

FRAMES_MEASURED = 1024
"""Largest number of training frames that are looked at, in each view: more take time and say little more."""

Floats = NDArray[np.float32]


def rounding_errors(
    model: Classifier, train: LoadedSplit, features: Floats, views: Views, seed: int, progress: Progress = silent
) -> Floats:
    """By how much features of the INT8 model for CPUs differ from the float ones: float32 (k, pooled features).

    The network is quantised as `trainer.export` will do it from the same frames and seed, so what is measured here is
    what will be delivered.

    Args:
        model: its backbone learns no more, and its features are not standardised yet.
        train: n frames, and labels by which those to calibrate on are drawn.
        features: float32 (views, n, model.features) of the model as it is.
        views: the mirrored copies of the frames that they are of.
        seed: of the calibration, and of the choice of frames where there are many.

    Raises:
        InputError: a convolution fell out of INT8.
    """
    rows = np.sort(np.random.default_rng([seed, 13]).permutation(len(train))[:FRAMES_MEASURED])
    channels, height, width = train.images.shape[1:]
    core = export_core(model, (channels, height, width))
    variants = quantise(core, train.images, train.labels, seed, progress, views_of(model.config))
    running = session(_before_the_head(variants["cpu"].model))
    errors = []
    for at, (view, known) in enumerate(zip(views, features, strict=True)):
        for start in range(0, len(rows), FORWARD_BATCH):  # never all frames in memory at once
            some = rows[start : start + FORWARD_BATCH]
            found = run_batches(running, np.flip(train.images[some], view), silent, "")
            errors.append(found - known[some, : found.shape[1]])
            progress("features in INT8", at * len(rows) + start + len(some), len(views) * len(rows))
    return np.concatenate(errors)


def _before_the_head(model: ModelProto) -> ModelProto:
    """The model with what its head, the one Gemm, reads as its only output."""
    cut = copied(model)
    [head] = [node for node in cut.graph.node if node.op_type == "Gemm"]
    del cut.graph.output[:]
    cut.graph.output.append(helper.make_tensor_value_info(head.input[0], TensorProto.FLOAT, None))
    return cut
