"""Runs the Python parts of a model repository without a server, in a process of its own.

    python triton_harness.py REPO/MODEL INPUT OUTPUT... < npy > npz

It offers what Triton's Python backend offers: real arrays in tensors, requests, responses and errors.
"""

from __future__ import annotations

import importlib.util
import io
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np


class Tensor:
    """A named array."""

    def __init__(self, name: str, array: Any) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Any:
        return self._array


class TritonError:
    """Why there is no answer."""

    def __init__(self, message: str) -> None:
        self.text = message


class InferenceResponse:
    """An answer or an error."""

    def __init__(self, output_tensors: list[Tensor], error: TritonError | None = None) -> None:
        self.tensors = {tensor.name(): tensor.as_numpy() for tensor in output_tensors}
        self.error = error


def backend() -> ModuleType:
    """What `import triton_python_backend_utils` gives."""
    module: Any = ModuleType("triton_python_backend_utils")
    module.Tensor, module.TritonError, module.InferenceResponse = Tensor, TritonError, InferenceResponse
    module.get_input_tensor_by_name = lambda request, name: request[name]
    return module


def _plain(array: Any) -> Any:
    """Bytes objects as a type that a file can hold."""
    return array.astype("S") if array.dtype == np.object_ else array


def main(model: Path, given: str, wanted: list[str]) -> None:
    """One request an array on the standard input's stack (first axis: requests)."""
    sys.modules["triton_python_backend_utils"] = backend()
    folder = model / "1"
    spec = importlib.util.spec_from_file_location("model", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    part = module.TritonPythonModel()
    part.initialize({"model_repository": str(model), "model_version": "1", "model_name": model.name})
    used = sys.modules.get("calibration")
    assert used is None or Path(used.__file__ or "").is_relative_to(folder), "another calibration was imported"
    stack = np.load(io.BytesIO(sys.stdin.buffer.read()))
    answers = part.execute([{given: Tensor(given, array)} for array in stack])
    errors = [answer.error.text for answer in answers if answer.error is not None]
    if errors:
        sys.exit(errors[0])
    out = {name: np.stack([_plain(answer.tensors[name]) for answer in answers]) for name in wanted}
    np.savez(sys.stdout.buffer, **out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
