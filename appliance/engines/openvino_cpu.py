"""OpenVINO on the CPU (extra `openvino`): the same model file as ONNX Runtime, and on Intel the fastest."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from appliance.engines.protocol import EngineError

# Importing openvino reports to its maker over the network if this package can be imported; None says that it cannot,
# and openvino takes the silent stand-in that it brings for that case.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

try:
    import openvino
except ImportError as error:
    raise EngineError(f"OpenVINO is not usable ({error}); install it with: pip install 'lineguard[openvino]'") from None


class OpenVinoEngine:
    """One compiled model for all batch sizes, and one request a lane; each lane computes on one thread."""

    def __init__(self, model: bytes, lanes: int) -> None:
        """Load a model from verified bytes for so many concurrent callers. Raises EngineError."""
        settings = {
            "NUM_STREAMS": str(lanes),
            "INFERENCE_NUM_THREADS": str(lanes),
            "ENABLE_CPU_PINNING": "NO",  # the scheduler knows what else this machine does
            "INFERENCE_PRECISION_HINT": "f32",  # else the float tail is bfloat16 wherever the CPU has it
        }
        try:
            core = openvino.Core()
            self._compiled = core.compile_model(core.read_model(model, b""), "CPU", settings)
            self._requests = [self._compiled.create_infer_request() for _ in range(lanes)]
        except (RuntimeError, ValueError, TypeError) as error:
            raise EngineError(f"OpenVINO refuses the model: {_first_line(error)}") from error
        self.name = f"OpenVINO {openvino.__version__.partition('-')[0]}, CPU"

    def infer(self, batch: NDArray[np.uint8], lane: int = 0) -> NDArray[np.float32]:
        """See Engine.infer."""
        try:
            (logits,) = self._requests[lane].infer([batch], share_inputs=True).values()
        except (RuntimeError, ValueError, TypeError) as error:
            raise EngineError(f"OpenVINO failed: {_first_line(error)}") from error
        return np.array(logits, np.float32)

    def trim(self, frame: NDArray[np.uint8]) -> None:
        """See Engine.trim."""
        try:
            self._compiled.release_memory()
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
