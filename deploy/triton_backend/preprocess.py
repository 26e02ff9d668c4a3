"""Frames to what the model takes, by the bundle's PreprocessSpec: one frame a request, or several of one size.

The code that does it lies beside this file, as it was when the repository was made.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # Triton's own


class TritonPythonModel:
    """What Triton's Python backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the specification."""
        here = Path(args["model_repository"]) / args["model_version"]
        sys.path.insert(0, str(here))
        from calibration.preprocess import PreprocessSpec

        self._spec = PreprocessSpec.from_json(json.loads((here / "preprocess.json").read_text(encoding="utf-8")))

    def execute(self, requests: list[Any]) -> list[Any]:
        """One answer a request; a frame that the bundle was not made for is an error, never resized to fit."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        frames = pb_utils.get_input_tensor_by_name(request, "frame").as_numpy()
        try:
            made = np.stack([self._spec.apply(np.ascontiguousarray(frame)) for frame in frames])
        except ValueError as error:  # GeometryError among them
            return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(str(error)))
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("frames", made)])
