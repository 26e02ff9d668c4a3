"""OpenVINO on the CPU (extra `openvino`): the same model file as ONNX Runtime, and on Intel the fastest."""

from __future__ import annotations

import io
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

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

ERRORS = (RuntimeError, ValueError, TypeError)


class OpenVinoEngine:
    """A compiled model for each batch size and lane, which computes on the lane's own thread.

    One model that takes every size costs more time a part, and as much memory as two of these; one for all lanes hands
    every batch over to a thread of its own, and back.
    """

    def __init__(self, model: bytes, lanes: int, size: int, alone: bool) -> None:
        """Load a model from verified bytes for so many concurrent callers; compile it for single frames and for batches
        of `size`, both at once where it is `alone`: beside an engine that judges, that would leave that one no core.
        Raises EngineError."""
        self._model, self._lanes = model, lanes
        self._settings = {
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": "1",
            "ENABLE_CPU_PINNING": "NO",  # the scheduler knows what else this machine does
            "INFERENCE_PRECISION_HINT": "f32",  # else the float tail is bfloat16 wherever the CPU has it
        }
        self._compiling = threading.Lock()
        try:
            self._core = openvino.Core()
            sizes = sorted({1, size})
            with ThreadPoolExecutor(len(sizes) if alone else 1) as compilers:
                self._requests = dict(zip(sizes, compilers.map(self._compiled, sizes), strict=True))
        except ERRORS as error:
            raise EngineError(f"OpenVINO refuses the model: {_first_line(error)}") from error
        self.name = f"OpenVINO {openvino.__version__.partition('-')[0]}, CPU"

    def infer(self, batch: NDArray[np.uint8], lane: int = 0) -> NDArray[np.float32]:
        """See Engine.infer. The first batch of its size takes as long as compiling does, some tenths of a second."""
        try:
            with self._compiling:
                if len(batch) not in self._requests:
                    self._requests[len(batch)] = self._compiled(len(batch))
                request = self._requests[len(batch)][lane]
            # Not request.infer([batch]): its dictionaries of inputs and outputs cost nearly a tenth of a millisecond.
            request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(batch), shared_memory=True))
            request.infer()
            return np.array(request.get_output_tensor().data, np.float32)
        except ERRORS as error:
            raise EngineError(f"OpenVINO failed: {_first_line(error)}") from error

    def trim(self, frame: NDArray[np.uint8], size: int) -> None:
        """See Engine.trim."""
        self._requests = {count: requests for count, requests in self._requests.items() if count in (1, size)}

    def _compiled(self, size: int) -> list[openvino.InferRequest]:
        """A request a lane for batches of so many. One model is compiled, and handed to the other lanes as it is, which
        takes a fraction of that time."""
        model = self._core.read_model(self._model, b"")
        model.reshape([size, *(side.get_length() for side in list(model.input().partial_shape)[1:])])
        compiled = [self._core.compile_model(model, "CPU", self._settings)]
        if self._lanes > 1:
            blob = compiled[0].export_model().getvalue()
            for _ in range(1, self._lanes):
                compiled.append(self._core.import_model(io.BytesIO(blob), "CPU", self._settings))
        return [each.create_infer_request() for each in compiled]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
