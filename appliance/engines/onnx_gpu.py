"""ONNX Runtime on an NVIDIA GPU, through its CUDA or its TensorRT provider."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from appliance.engines.onnx_cpu import ERRORS, session_options
from appliance.engines.protocol import EngineError

_PROVIDERS = {"onnxruntime-cuda": "CUDAExecutionProvider", "onnxruntime-tensorrt": "TensorrtExecutionProvider"}
_OPTIONS = {
    "onnxruntime-cuda": {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"},
    "onnxruntime-tensorrt": {"trt_int8_enable": "1"},  # else the provider leaves the model's Q/DQ nodes alone
}


class OnnxGpuEngine:
    """A session on a GPU or none: where the provider does not start, ONNX Runtime would quietly use the CPU."""

    def __init__(self, model: bytes, kind: str) -> None:
        """Load a model from verified bytes. Raises EngineError."""
        provider = _PROVIDERS[kind]
        remedy = "it needs an NVIDIA driver, CUDA and: pip install 'lineguard[gpu]' (without onnxruntime beside it)"
        if provider not in onnxruntime.get_available_providers():
            raise EngineError(f"this ONNX Runtime has no {provider}; {remedy}")
        # CUDA's libraries as pip installs them lie where no loader looks; what these two print is no output of ours.
        with redirect_stdout(sys.stderr):
            onnxruntime.preload_dlls()
            try:
                self._session = onnxruntime.InferenceSession(
                    model, session_options(), providers=[(provider, _OPTIONS[kind])]
                )
            except ERRORS as error:
                raise EngineError(f"ONNX Runtime refuses the model: {error}") from error
        if self._session.get_providers()[0] != provider:
            raise EngineError(f"{provider} does not start; {remedy}")
        self._session.disable_fallback()
        self._input = self._session.get_inputs()[0].name
        self.name = f"ONNX Runtime {onnxruntime.__version__}, {provider.removesuffix('ExecutionProvider')}"

    def infer(self, batch: NDArray[np.uint8], lane: int = 0) -> NDArray[np.float32]:
        """See Engine.infer. A session may be run by several threads at once: the lane makes no difference."""
        try:
            (logits,) = self._session.run(None, {self._input: batch})
        except ERRORS as error:
            raise EngineError(f"ONNX Runtime failed: {error}") from error
        return np.asarray(logits, np.float32)

    def trim(self, frame: NDArray[np.uint8], size: int) -> None:
        """See Engine.trim. Nothing: what larger batches needed is the GPU's memory, which nobody else here wants."""
