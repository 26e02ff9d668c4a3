"""What every peer does with a frame: the appliance's own preprocessing, then the bundle's model. Run in their venvs."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from calibration.preprocess import PreprocessSpec


class Judge:
    """The model of a directory that benchmarks.peers has laid out: model.onnx, spec.json, frames.npy."""

    def __init__(self, directory: Path) -> None:
        cv2.setNumThreads(1)
        self.spec = PreprocessSpec.from_json(json.loads((directory / "spec.json").read_text()))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(directory / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Of one camera frame."""
        size = (self.spec.frame_heights[0], self.spec.frame_widths[0])
        return size if self.spec.channels == 1 else (*size, 3)

    def logits(self, frames: list[bytes]) -> NDArray[np.float32]:
        """Logits (n, classes) of raw frames, each the bytes of one."""
        batch = [self.spec.apply(np.frombuffer(frame, np.uint8).reshape(self.frame_shape)) for frame in frames]
        return np.asarray(self._session.run(None, {"frames": np.stack(batch)})[0])
