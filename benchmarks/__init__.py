"""Measurements, each a command; no part of the installed product."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read by ONNX Runtime when it is imported
