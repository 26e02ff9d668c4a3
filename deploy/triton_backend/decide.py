"""Logits to a calibrated defect probability and a decision, by the bundle's DecisionRule.

The code that does it lies beside this file, as it was when the repository was made. Scores that are no numbers are
UNSURE with the probability NaN: only OK may become a PASS.
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
        """Read the rule."""
        here = Path(args["model_repository"]) / args["model_version"]
        sys.path.insert(0, str(here))
        from calibration.decision import DecisionRule

        values = json.loads((here / "rule.json").read_text(encoding="utf-8"))
        self._rule = DecisionRule(**{**values, "classes": tuple(values["classes"])})

    def execute(self, requests: list[Any]) -> list[Any]:
        """One answer a request, a row of logits each part."""
        answers = []
        for request in requests:
            logits = pb_utils.get_input_tensor_by_name(request, "logits").as_numpy()
            probability = self._rule.defect_probability(logits)
            decisions = [self._rule.decide_probability(p).value for p in probability.tolist()]
            words = np.array([[decision.encode()] for decision in decisions], dtype=np.object_)
            tensors = [pb_utils.Tensor("decision", words), pb_utils.Tensor("defect_probability", probability[:, None])]
            answers.append(pb_utils.InferenceResponse(output_tensors=tensors))
        return answers
