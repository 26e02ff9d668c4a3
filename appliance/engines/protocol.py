"""What the engine process needs of an engine, and the one place that knows all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class EngineError(RuntimeError):
    """The engine cannot load or judge: its parts are rejected, never passed."""


class Engine(Protocol):
    """A loaded model.

    Attributes:
        name: engine, version and what it runs on, for screens and rows.
    """

    name: str

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits float32 (n, classes) of frames uint8 (n, channels, height, width).

        Raises:
            EngineError: the engine failed; it must not be used again.
        """


def load_engine(settings: Mapping[str, Any], model: bytes) -> Engine:
    """The engine of an [engine] section, with the model's verified bytes.

    Raises:
        EngineError: unknown kind, or the model does not load.
    """
    if settings["kind"] == "onnxruntime":
        from appliance.engines.onnx_cpu import OnnxCpuEngine

        return OnnxCpuEngine(model, settings["threads"])
    raise EngineError(f"engine.kind {settings['kind']!r} is unknown")
