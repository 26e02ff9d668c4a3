"""The workstation side: from images and doubtful labels to a calibrated INT8 bundle. The only home of torch."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read by ONNX Runtime when it is imported
