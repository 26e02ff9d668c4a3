"""Models that reach for something outside themselves, held against the ONNX package's own writer."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from deploy.onnx_check import check_self_contained
from tests.support.tiny import tiny_model

MODEL = tiny_model()


def _outside() -> TensorProto:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/shadow")
    return tensor


def _with(**attributes: Any) -> bytes:
    """The tiny model with one more node that has these attributes."""
    model = onnx.load_from_string(MODEL)
    model.graph.node.append(helper.make_node("If", ["logits"], ["y"], **attributes))
    return bytes(model.SerializeToString())


def test_a_model_of_standard_operators_and_its_own_weights_passes() -> None:
    """Also with a subgraph that is as harmless."""
    check_self_contained(MODEL)
    check_self_contained(_with(then_branch=helper.make_graph([], "g", [], [], [numpy_helper.from_array(np.ones(2))])))


@pytest.mark.parametrize(
    "attributes",
    [
        {"value": _outside()},
        {"value": [_outside()]},
        {"then_branch": helper.make_graph([], "g", [], [], [_outside()])},
        {"graphs": [helper.make_graph([], "g", [], [], [_outside()])]},
        {"sparse": helper.make_sparse_tensor(_outside(), helper.make_tensor("i", TensorProto.INT64, [1], [0]), [4])},
    ],
    ids=["tensor", "tensors", "graph", "graphs", "sparse"],
)
def test_weights_in_another_file_are_found_wherever_a_tensor_may_stand(attributes: dict[str, Any]) -> None:
    """As onnx.proto3 nests them."""
    with pytest.raises(ValueError, match="external data"):
        check_self_contained(_with(**attributes))


def test_weights_of_a_local_function_are_looked_at() -> None:
    """Functions carry nodes of their own."""
    node = helper.make_node("Constant", [], ["y"], value=_outside())
    function = helper.make_function("", "F", [], ["y"], [node], [helper.make_opsetid("", 20)])
    model = onnx.load_from_string(MODEL)
    model.functions.append(function)
    with pytest.raises(ValueError, match="external data"):
        check_self_contained(model.SerializeToString())


@pytest.mark.parametrize("where", ["node", "import", "function"])
def test_operators_of_another_domain_are_named(where: str) -> None:
    """In a node, in what the model imports, in a function."""
    model = onnx.load_from_string(MODEL)
    if where == "node":
        model.graph.node[0].domain = "evil.corp"
    elif where == "import":
        model.opset_import.add(domain="evil.corp", version=1)
    else:
        model.functions.append(helper.make_function("evil.corp", "F", [], [], [], []))
    with pytest.raises(ValueError, match=r"domain 'evil\.corp'"):
        check_self_contained(model.SerializeToString())


def test_every_prefix_is_refused_or_is_a_model_without_its_end() -> None:
    """Cut anywhere: never another error than ValueError."""
    refused = 0
    for length in range(len(MODEL)):
        try:
            check_self_contained(MODEL[:length])
        except ValueError:
            refused += 1
    assert refused > 0.9 * len(MODEL)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_noise_raises_value_error_or_nothing(data: bytes) -> None:
    """No other error, no endless loop."""
    try:
        check_self_contained(data)
    except ValueError:
        pass
    else:
        assert data


@pytest.mark.parametrize("data", [b"", b"\x80" * 20, b"\x0b", b"\x3a\x7f", b"not a model"])
def test_what_is_no_onnx_file_is_refused(data: bytes) -> None:
    """Nothing, an endless number, a group, a length beyond the end, text."""
    with pytest.raises(ValueError):
        check_self_contained(data)


def test_a_million_fields_are_refused() -> None:
    """Work is bounded, whatever the file says."""
    with pytest.raises(ValueError, match="without end"):
        check_self_contained(b"\x3a\x00" + b"\x08\x01" * 1_000_001)
