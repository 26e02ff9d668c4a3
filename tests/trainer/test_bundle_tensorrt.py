"""A released bundle's `trt` model in the device's own TensorRT engine, as far as a machine without a GPU can go."""

from __future__ import annotations

import importlib.util

import pytest

from appliance.engines.protocol import TENSORRT, EngineError, variant_of
from appliance.engines.tensorrt_plan import TensorRt
from deploy.bundle import open_bundle
from tests.trainer.conftest import Released

needs_bindings = pytest.mark.skipif(
    not any(importlib.util.find_spec(name) for name in TENSORRT),
    reason="neither tensorrt nor tensorrt_rtx is installed (extra 'rtx')",
)


@needs_bindings
def test_the_bundles_int8_model_becomes_a_plan(released: Released) -> None:
    """What `engine.kind = "tensorrt"` loads is parsed and built for a named GPU; the `cpu` model is refused."""
    found = TensorRt.find()
    if not hasattr(found.module, "ComputeCapability"):
        pytest.skip(f"{found.name} builds for the GPU of its own machine only")
    bundle = open_bundle(released.bundle)
    assert len(found.build(bundle.model(variant_of("tensorrt")), "sm_89")) > 1_000_000
    with pytest.raises(EngineError, match="refuses the model"):
        found.build(bundle.model(variant_of("openvino")), "sm_89")
