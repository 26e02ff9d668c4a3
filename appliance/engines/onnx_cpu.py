"""ONNX Runtime on the CPU: the engine that every machine has."""

from __future__ import annotations

import os

# Read when the library initialises: from 1.29 on its Linux builds report to their maker unless this is set.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from appliance.engines.protocol import EngineError

# The library's exceptions share no base class but Exception itself.
ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(kind for kind in vars(_state).values() if isinstance(kind, type) and issubclass(kind, Exception)),
)


def providers() -> list[str]:
    """What this build of ONNX Runtime can run on."""
    return list(onnxruntime.get_available_providers())


def session_options() -> onnxruntime.SessionOptions:
    """One thread a run, and none that spins while it waits."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a lane is one thread: two of them waste less than one batch split in two
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


class OnnxCpuEngine:
    """A session that never spins: threads that wait for work cost other processes half their speed."""

    def __init__(self, model: bytes) -> None:
        """Load a model from verified bytes. Raises EngineError."""
        try:
            self._session = onnxruntime.InferenceSession(model, session_options(), providers=["CPUExecutionProvider"])
        except ERRORS as error:
            raise EngineError(f"ONNX Runtime refuses the model: {error}") from error
        self._input = self._session.get_inputs()[0].name
        self.name = f"ONNX Runtime {onnxruntime.__version__}, CPU"

    def infer(self, batch: NDArray[np.uint8], lane: int = 0) -> NDArray[np.float32]:
        """See Engine.infer. A session may be run by several threads at once: the lane makes no difference."""
        return self._run(batch, None)

    def trim(self, frame: NDArray[np.uint8], size: int) -> None:
        """See Engine.trim. The arena never shrinks but at the end of a run that asks for it."""
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._run(frame, options)

    def _run(self, batch: NDArray[np.uint8], options: onnxruntime.RunOptions | None) -> NDArray[np.float32]:
        try:
            (logits,) = self._session.run(None, {self._input: batch}, options)
        except ERRORS as error:
            raise EngineError(f"ONNX Runtime failed: {error}") from error
        return np.asarray(logits, np.float32)
