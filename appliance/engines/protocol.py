"""What the engine process needs of an engine, and the one place that knows all of them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

GPU_KINDS = ("onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt")
"""Values of engine.kind that judge on an NVIDIA device, and so with the bundle's `trt` model."""

WHOLE_BATCHES = {"openvino": 4}
"""Values of engine.kind whose engines are compiled for each batch size, and so get single parts and full batches, of at
most so many frames, each mirrored view of a part being one: larger ones have not been found faster, and each size that
is compiled takes memory and time at a start."""


def most_parts(kind: str, views: int, size: int) -> int:
    """Parts of a full batch where `size` are asked for, of models that look at so many views of a part."""
    return min(size, max(1, WHOLE_BATCHES[kind] // views)) if kind in WHOLE_BATCHES else size


class EngineError(RuntimeError):
    """The engine cannot load or judge: its parts are rejected, never passed."""


class Engine(Protocol):
    """A loaded model.

    Attributes:
        name: engine, version and what it runs on, for screens and rows.
    """

    name: str

    def infer(self, batch: NDArray[np.uint8], lane: int = 0) -> NDArray[np.float32]:
        """Logits float32 (n, classes) of frames uint8 (n, channels, height, width).

        Different lanes may be called at the same time from different threads; each computes on one thread.

        Raises:
            EngineError: the engine failed; it must not be used again.
        """

    def trim(self, frame: NDArray[np.uint8], size: int) -> None:
        """Give back the memory that other batches needed than those to come, as far as the library can. No lane is at
        work meanwhile.

        Args:
            frame: uint8 (1, channels, height, width), any: it may be judged on the way.
            size: of a full batch from here on.

        Raises:
            EngineError: as of infer.
        """


TENSORRT = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
"""Modules that are TensorRT, the first that there is being used."""

NEEDS = {
    "onnxruntime": ((("onnxruntime",),), "cpu"),
    "openvino": ((("openvino",),), "openvino"),
    "onnxruntime-cuda": ((("onnxruntime",),), "gpu"),
    "onnxruntime-tensorrt": ((("onnxruntime",),), "gpu"),
    "tensorrt": ((TENSORRT, ("pycuda",)), "gpu"),
}
"""What an engine needs, as groups of modules of which one is enough, and the extra of this package that installs it."""


def missing(kind: str) -> str:
    """What this machine lacks for an engine, with the remedy; "" where nothing is known to be missing."""
    groups, extra = NEEDS[kind]
    if kind.startswith("onnxruntime-") and not _distributed("onnxruntime-gpu"):
        absent = ["onnxruntime-gpu"]  # the module has the same name in both
    else:
        absent = [group[0] for group in groups if not any(importlib.util.find_spec(name) for name in group)]
    if not absent:
        return ""
    return f"{kind} needs {' and '.join(absent)}; install it with: pip install 'lineguard[{extra}]'"


def _distributed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def variant_of(kind: str) -> str:
    """Which of a bundle's models an engine judges with: `cpu` or `trt`."""
    return "trt" if kind in GPU_KINDS else "cpu"


def load_engine(
    settings: Mapping[str, Any], model: bytes, lanes: int = 1, size: int = 1, alone: bool = False
) -> Engine:
    """The engine of an [engine] section, with the model's verified bytes, for so many concurrent callers.

    Args:
        settings: with "plans", a directory where an engine may keep what it has built for this device; may be absent.
        size: of a full batch. Others may come, but the first of each may take long.
        alone: nobody judges until it is loaded, so that it may take every core.

    Raises:
        EngineError: unknown kind, a library that is not there, or the model does not load.
    """
    kind = settings["kind"]
    if kind == "openvino":
        from appliance.engines.openvino_cpu import OpenVinoEngine

        return OpenVinoEngine(model, lanes, size, alone)
    if kind == "onnxruntime":
        from appliance.engines.onnx_cpu import OnnxCpuEngine

        return OnnxCpuEngine(model)
    if kind in ("onnxruntime-cuda", "onnxruntime-tensorrt"):
        from appliance.engines.onnx_gpu import OnnxGpuEngine

        return OnnxGpuEngine(model, kind)
    if kind == "tensorrt":
        from appliance.engines.tensorrt import TensorRtEngine

        return TensorRtEngine(model, settings, lanes)
    raise EngineError(f"engine.kind {kind!r} is unknown")
