"""The bundle's model by ONNX Runtime in Triton's Python backend, for servers without the ONNX Runtime backend.

One thread, no spinning, as the appliance runs it. Requests that Triton hands over together are judged together.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the library initialises

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # Triton's own


class TritonPythonModel:
    """What Triton's Python backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """One answer a request: float32 (parts, classes)."""
        stacks = [pb_utils.get_input_tensor_by_name(request, "frames").as_numpy() for request in requests]
        logits = np.asarray(self._session.run(["logits"], {"frames": np.concatenate(stacks)})[0])
        rows = np.split(logits, np.cumsum([len(stack) for stack in stacks])[:-1])
        return [pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("logits", part)]) for part in rows]
