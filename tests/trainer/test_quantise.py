"""Quantisation: weights that keep the outputs, channels that share the range, graphs that stay integer."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from calibration.errors import InputError
from trainer import rounding
from trainer.equalise import equalised
from trainer.observe import (
    Moments,
    calibration_rows,
    conv_attributes,
    observe_moments,
    observe_spans,
    patches,
)
from trainer.onnx_graph import LOGITS, PIXELS, constant, initializers, run_logits, session, with_normalisation
from trainer.qdq import asymmetric, pixel_step, symmetric
from trainer.quantise import check_integer, executed, mirrored, operators, quantise
from trainer.rounding import compensated_rounding, round_conv
from trainer.splitting import split_channels

rng = np.random.default_rng(0)


def small_core(relu_after_mean: bool = False) -> ModelProto:
    """A network with everything the real one has: depthwise and pointwise convolutions, ReLU6, a residual, pools.

    One channel of the first map is scaled far down, and made up for where it is read.
    """
    r = np.random.default_rng(1)
    stem = r.normal(0, 0.8, (8, 1, 3, 3)).astype(np.float32)
    depth = r.normal(0, 0.5, (8, 1, 3, 3)).astype(np.float32)
    stem[2] *= 0.02
    depth[2] *= 50
    weights = {
        "stem.w": stem,
        "stem.b": np.r_[r.normal(0.5, 0.2, 2), 0.02, r.normal(0.5, 0.2, 5)].astype(np.float32),
        "dw.w": depth,
        "dw.b": r.normal(0, 0.2, 8).astype(np.float32),
        "pw.w": r.normal(0, 0.4, (8, 8, 1, 1)).astype(np.float32),
        "pw.b": r.normal(0, 0.2, 8).astype(np.float32),
        "up.w": r.normal(0, 0.4, (8, 8, 1, 1)).astype(np.float32),
        "up.b": r.normal(0, 0.2, 8).astype(np.float32),
        "last.w": r.normal(0, 0.4, (8, 8, 1, 1)).astype(np.float32),
        "last.b": r.normal(0, 0.2, 8).astype(np.float32),
        "fc.w": r.normal(0, 1, (2, 16)).astype(np.float32),
        "fc.b": np.zeros(2, np.float32),
        "low": np.float32(0),
        "high": np.float32(6),
        "axes": np.array([2, 3]),
    }
    node = helper.make_node
    same = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
    nodes = [
        node("Conv", [PIXELS, "stem.w", "stem.b"], ["a"], name="stem", strides=[2, 2], **same),
        node("Clip", ["a", "low", "high"], ["a6"]),
        node("Conv", ["a6", "dw.w", "dw.b"], ["b"], name="dw", group=8, **same),
        node("Clip", ["b", "low", "high"], ["b6"]),
        node("Conv", ["b6", "pw.w", "pw.b"], ["c"], name="pw"),
        node("Conv", ["c", "up.w", "up.b"], ["d"], name="up"),
        node("Clip", ["d", "low", "high"], ["d6"]),
        node("Conv", ["d6", "last.w", "last.b"], ["e"], name="last"),
        node("Add", ["c", "e"], ["f"]),
        node("ReduceMean", ["f", "axes"], ["mean"], keepdims=0),
        node("ReduceMax", ["f", "axes"], ["max"], keepdims=0),
        node("Concat", ["mean", "max"], ["features"], axis=1),
        node("Gemm", ["features", "fc.w", "fc.b"], [LOGITS], transB=1),
    ]
    if relu_after_mean:
        nodes[4] = node("Sigmoid", ["b6"], ["b6s"])
        nodes.insert(5, node("Conv", ["b6s", "pw.w", "pw.b"], ["c"], name="pw"))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(PIXELS, TensorProto.FLOAT, ["N", 1, 24, 32])],
        [helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["N", 2])],
        [constant(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def frames(n: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth random frames (n, 1, 24, 32)."""
    r = np.random.default_rng(seed)
    level = r.uniform(40, 220, (n, 1, 1, 1))
    return (level + r.normal(0, 20, (n, 1, 24, 32))).clip(0, 255).astype(np.uint8)


LABELS = np.arange(40) % 2


def test_both_variants_stay_close_to_the_float_network() -> None:
    """INT8 logits correlate with FP32's beyond 0.99, and all five convolutions are integer in both variants."""
    core = small_core()
    seen, unseen = frames(40), frames(64, seed=9)
    truth = run_logits(session(with_normalisation(core)), unseen)
    for name, variant in quantise(core, seen, LABELS).items():
        logits = run_logits(session(variant.model, fuse_integers=name == "cpu"), unseen)
        assert variant.convolutions == 5
        assert np.corrcoef(truth[:, 0] - truth[:, 1], logits[:, 0] - logits[:, 1])[0, 1] > 0.99
        assert np.abs(logits - truth).mean() < 0.05 * truth.std()


def test_the_cpu_variant_is_executed_in_integers_from_the_first_pixel() -> None:
    """ONNX Runtime fuses every convolution and addition, keeps no Clip, and quantises nothing: frames are uint8."""
    variant = quantise(small_core(), frames(40), LABELS)["cpu"]
    kinds = operators(executed(variant.model))
    assert kinds["QLinearConv"] == 5
    assert kinds["QLinearAdd"] == 1
    assert not {"Clip", "Conv", "QuantizeLinear", "Cast"} & kinds.keys()


def test_the_trt_variant_has_int8_data_and_weights_without_zero_points() -> None:
    """What TensorRT accepts: int8 pairs with zero point 0 before each convolution, float biases."""
    model = quantise(small_core(), frames(40), LABELS)["trt"].model
    constants = initializers(model)
    producers = {node.output[0]: node for node in model.graph.node}
    for node in model.graph.node:
        if node.op_type == "Conv":
            for name in node.input[:2]:
                zero = constants[producers[name].input[2]]
                assert zero.dtype == np.int8
                assert not zero.any()
            assert constants[node.input[2]].dtype == np.float32


def test_a_convolution_outside_int8_fails_the_export() -> None:
    """A float convolution is counted and named, not shipped."""
    with pytest.raises(InputError, match=r"5 of 5 convolutions are not in INT8 .*stem"):
        check_integer(with_normalisation(small_core()), "trt")
    with pytest.raises(InputError, match="5 of 5 convolutions"):
        check_integer(with_normalisation(small_core()), "cpu")


def test_other_activations_between_convolutions_are_served() -> None:
    """A Sigmoid stays in float between two integer convolutions."""
    core = small_core(relu_after_mean=True)
    truth = run_logits(session(with_normalisation(core)), frames(16, 5))
    variant = quantise(core, frames(40), LABELS)["cpu"]
    assert variant.convolutions == 5
    assert np.abs(run_logits(session(variant.model), frames(16, 5)) - truth).mean() < 0.1 * truth.std() + 0.02


def test_equal_inputs_give_equal_bytes() -> None:
    """Calibration is seeded: two exports of one network do not differ."""
    first, second = (quantise(small_core(), frames(40), LABELS, seed=4)["cpu"].model for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


def test_equalising_keeps_the_function_and_widens_small_channels() -> None:
    """The same logits in float; the channel of tiny values now uses most of the range."""
    core = small_core()
    spans = observe_spans(core, frames(40))
    even, wider = equalised(core, spans)
    before, after = (run_logits(session(with_normalisation(model)), frames(40)) for model in (core, even))
    np.testing.assert_allclose(after, before, atol=2e-4)
    assert spans["a6"].most[2] < 0.2
    assert wider["a6"].most[2] > 5


def test_moments_are_those_of_every_window() -> None:
    """With all positions sampled, mean and covariance equal those of the windows cut out by hand, padding as zero."""
    core = small_core()
    one = frames(3)
    moments = observe_moments(core, one)["stem"]
    pixels = np.pad((one[:, 0].astype(np.float64) - 127) / 128, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (3, 3), (1, 2))[:, ::2, ::2].reshape(-1, 9)
    assert moments.samples == len(windows)
    np.testing.assert_allclose(moments.mean[0], windows.mean(0), atol=1e-5)
    np.testing.assert_allclose(moments.covariance[0], np.cov(windows.T, bias=True), atol=1e-5)


def test_patches_multiply_to_the_convolution() -> None:
    """Weights times patches are the convolution's outputs, for strides, groups and dilation."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=2, strides=[2, 1], pads=[1, 0, 2, 1], dilations=[1, 2])
    x, w = rng.normal(size=(4, 9, 11)).astype(np.float32), rng.normal(size=(6, 2, 3, 2)).astype(np.float32)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 9, 11])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [constant(w, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    y = session(model).run(["y"], {"x": x[None]})[0][0].reshape(2, 3, -1)
    found = np.matmul(w.reshape(2, 3, -1), patches(x, node, w.shape, np.random.default_rng(0)))
    np.testing.assert_allclose(np.sort(found, axis=2), np.sort(y, axis=2), atol=1e-4)


def test_implicit_padding_is_refused() -> None:
    """auto_pad would be computed differently at other sizes."""
    with pytest.raises(ValueError, match="explicit padding"):
        conv_attributes(helper.make_node("Conv", ["x", "w"], ["y"], name="c", auto_pad="SAME_UPPER"))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 5), st.integers(1, 12))
def test_compensated_rounding_beats_rounding_to_nearest(seed: int, groups: int, rows: int, size: int) -> None:
    """On inputs of the given covariance the outputs are, over all rows, no further off than with nearest values."""
    r = np.random.default_rng(seed)
    mixing = r.normal(size=(groups, size, size))
    covariance = mixing @ mixing.transpose(0, 2, 1)
    weight = r.normal(size=(groups, rows, size))
    scale = np.abs(weight).max(axis=2) / 20
    moments = Moments(np.zeros((groups, size)), covariance, 100_000)
    found = compensated_rounding(weight, scale, moments, np.empty((0, size), np.int64))
    nearest = np.round(weight / scale[:, :, None])

    def error(values: NDArray[np.float64]) -> float:
        e = values * scale[:, :, None] - weight
        return float(np.einsum("gok,gkl,gol->", e, covariance, e))

    assert (found == np.round(found)).all()
    assert np.abs(found).max() <= 127
    # greedy, so a small set of unlucky draws may be worse; never by much
    assert error(found) <= 1.6 * error(nearest) + 1e-9


@pytest.mark.parametrize("block", [1, 7, 10_000])
def test_blocks_do_not_change_what_is_rounded(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are a way of computing: one weight at a time, or all in one block, gives the same whole numbers."""
    r = np.random.default_rng(0)
    groups, rows, size = 2, 6, 3 * rounding.BLOCK + 5
    mixing = r.normal(size=(groups, size, size))
    weight = r.normal(size=(groups, rows, size))
    moments = Moments(np.zeros((groups, size)), mixing @ mixing.transpose(0, 2, 1), 100_000)
    task = (weight, np.abs(weight).max(axis=2) / 20, moments, np.empty((0, size), np.int64))
    expected = compensated_rounding(*task)
    monkeypatch.setattr(rounding, "BLOCK", block)
    np.testing.assert_array_equal(compensated_rounding(*task), expected)


def test_the_mean_error_of_rounding_goes_into_the_bias() -> None:
    """On the calibration data the rounded convolution is right on average."""
    data = rng.normal(3, 1, (5000, 9))
    weight = rng.normal(size=(4, 1, 3, 3)).astype(np.float32)
    moments = Moments(data.mean(0)[None], np.cov(data.T, bias=True)[None], len(data))
    conv = round_conv(weight, np.ones(4, np.float32), moments, 0.02)
    approximate = data @ (conv.values.reshape(4, 9) * conv.scale[:, None]).T + conv.bias
    exact = data @ weight.reshape(4, 9).T.astype(np.float64) + 1
    np.testing.assert_allclose(approximate.mean(0), exact.mean(0), atol=1e-6)


def test_a_dead_channel_keeps_its_bias() -> None:
    """Weights of zero with a large bias must not overflow the int32 bias."""
    weight = np.zeros((2, 1, 1, 1), np.float32)
    conv = round_conv(weight, np.float32([45, -3]), Moments(np.zeros((1, 1)), np.ones((1, 1, 1)), 10), 1e-3)
    steps = conv.bias / (conv.scale * 1e-3)
    assert np.abs(steps).max() <= 2**30 * 1.001
    np.testing.assert_allclose(conv.bias, [45, -3])


@given(st.floats(-100, 100), st.floats(-100, 100))
def test_steps_hold_zero_and_the_range(a: float, b: float) -> None:
    """Zero is a level of both kinds of step, and both ends of the range lie within half a step of a level."""
    least, most = min(a, b), max(a, b)
    step = asymmetric(least, most)
    assert 0 <= step.zero_point <= 255
    assert (255 - step.zero_point) * step.scale >= most - 0.51 * step.scale - 1e-9
    assert -step.zero_point * step.scale <= least + 0.51 * step.scale + 1e-9
    assert symmetric(least, most).scale * 127 >= max(-least, most) * 0.9999


def test_pixels_are_their_own_grid() -> None:
    """Every grey level is a level of the cpu variant's input: normalisation costs no accuracy."""
    step = pixel_step("cpu")
    levels = np.arange(256)
    np.testing.assert_array_equal((levels - step.zero_point) * step.scale, (levels - 127) / 128)


def test_rare_classes_are_calibrated_on_too() -> None:
    """Classes take turns: five images among a thousand are all chosen, none twice."""
    labels = np.r_[np.zeros(1000, np.int64), np.full(5, 1), np.full(300, 2)]
    rows = calibration_rows(labels, 100, seed=0)
    assert len(np.unique(rows)) == 100
    assert np.bincount(labels[rows]).tolist() == [48, 5, 47]


def test_a_steady_channel_below_one_step_is_split() -> None:
    """A channel that varies by less than a step beside its offset is written several times; the function stays."""
    core = small_core()
    for item in core.graph.initializer:
        if item.name in ("stem.w", "stem.b", "dw.w"):
            value = numpy_helper.to_array(item).copy()
            value[4] = {"stem.w": value[4] * 0.002, "stem.b": 3.0, "dw.w": value[4] * 40}[item.name]
            item.CopyFrom(numpy_helper.from_array(value, item.name))
    seen, unseen = frames(40), frames(32, seed=7)
    spans = observe_spans(core, seen)
    wide, wider, moments = split_channels(core, spans, observe_moments(core, seen))
    shapes = {item.name: tuple(item.dims) for item in wide.graph.initializer}
    assert shapes["stem.w"][0] == shapes["dw.w"][0] == shapes["pw.w"][1] > 8
    assert len(wider["a6"].most) == shapes["stem.w"][0] == len(moments["dw"].mean)
    before, after = (run_logits(session(with_normalisation(model)), unseen) for model in (core, wide))
    np.testing.assert_allclose(after, before, atol=0.05 * np.abs(before).max())
    assert quantise(core, seen, LABELS)["cpu"].convolutions == 5


def test_calibration_sees_the_views_that_the_network_will_see() -> None:
    """Frames take turns through the views; without flips they stay as they are."""
    some = frames(5)
    turned = mirrored(some, ((), (3,), (2, 3)))
    np.testing.assert_array_equal(turned[[0, 3]], some[[0, 3]])
    np.testing.assert_array_equal(turned[1], some[1, :, :, ::-1])
    np.testing.assert_array_equal(turned[2], some[2, :, ::-1, ::-1])
    np.testing.assert_array_equal(mirrored(some, ((),)), some)
