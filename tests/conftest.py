"""Settings of all tests."""

from __future__ import annotations

import os

from hypothesis import settings

from tests.support.fixtures import context

__all__ = ["context"]

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read by ONNX Runtime when it is imported

settings.register_profile("lineguard", deadline=None)  # on shared cores an example's time says nothing of the code
settings.load_profile("lineguard")
