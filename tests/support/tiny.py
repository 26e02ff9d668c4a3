"""A tiny but real inspection problem: textured parts with dark scratches, and a bundle whose model tells them apart.

The model is a hand-made network (a blur, a rectifier that keeps what is darker than the texture, a mean, a linear
layer), so that tests of the device side need neither torch nor training.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from calibration.appearance import appearance
from calibration.decision import DecisionRule
from calibration.histogram import confidence_histogram
from calibration.preprocess import PreprocessSpec
from calibration.values import Interval
from deploy.bundle import write_bundle
from deploy.manifest import AppearanceBaseline, Baseline, Manifest, Parity, Provenance, Variant

HEIGHT, WIDTH = 32, 48
FRAME_HEIGHT, FRAME_WIDTH = 64, 96
CLASSES = ("ok", "scratch")


def part(seed: int, scratched: bool, strength: float = 1.0) -> NDArray[np.uint8]:
    """A grey frame (64, 96): noise texture around 140, with a dark scratch where asked for."""
    rng = np.random.default_rng(seed)
    frame = rng.normal(140, 12, (FRAME_HEIGHT, FRAME_WIDTH)).clip(0, 255).astype(np.uint8)
    if scratched:
        start, end = rng.integers(10, 30, 2), rng.integers(40, 60, 2)
        cv2.line(frame, (int(start[0]), int(start[1])), (int(end[0]), int(end[1])), int(140 - 120 * strength), 4)
    return frame


def parts(n: int, every: int = 5, seed: int = 0) -> list[tuple[NDArray[np.uint8], bool]]:
    """`n` parts, each `every`-th of them scratched."""
    return [(part(seed * 100_000 + i, i % every == every - 1), i % every == every - 1) for i in range(n)]


def write_parts(folder: Path, n: int, every: int = 5, seed: int = 0) -> list[Path]:
    """PNG files `part-00000-ok.png`, `part-00004-scratch.png`, ... in name order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, (frame, scratched) in enumerate(parts(n, every, seed)):
        path = folder / f"part-{i:05d}-{CLASSES[int(scratched)]}.png"
        cv2.imwrite(str(path), frame)
        paths.append(path)
    return paths


def tiny_spec(height: int = HEIGHT) -> PreprocessSpec:
    """32x48 grey input from 64x96 frames, or another height."""
    return PreprocessSpec(height, WIDTH, 1, (FRAME_HEIGHT, FRAME_HEIGHT), (FRAME_WIDTH, FRAME_WIDTH))


def tiny_model(gain: float = 120.0, height: int = HEIGHT, dazzled: bool = False) -> bytes:
    """ONNX: frames uint8 (N, 1, 32, 48) -> logits float32 (N, 2); NaN for bright frames where it is `dazzled`."""
    kernel = np.full((1, 1, 3, 3), -1 / 9, np.float32)
    weights = np.array([[-gain], [gain]], np.float32)
    initializers = [
        numpy_helper.from_array(np.float32(127), "mean"),
        numpy_helper.from_array(np.float32(1 / 128), "scale"),
        numpy_helper.from_array(kernel, "kernel"),
        numpy_helper.from_array(np.float32([-0.1]), "darker"),
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(np.float32([2.0, -2.0]), "bias"),
    ]
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["pixels", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["x"]),
        helper.make_node("Conv", ["x", "kernel", "darker"], ["dark"], pads=[0, 0, 0, 0]),
        helper.make_node("Relu", ["dark"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["share"]),
        helper.make_node("Flatten", ["share"], ["features"]),
        helper.make_node("Gemm", ["features", "weights", "bias"], ["dark_logits" if dazzled else "logits"], transB=1),
    ]
    if dazzled:
        initializers += [
            numpy_helper.from_array(np.float32(0.4), "bright"),
            numpy_helper.from_array(np.float32(0), "nil"),
        ]
        nodes += [
            helper.make_node("GlobalAveragePool", ["x"], ["mean_x"]),
            helper.make_node("Flatten", ["mean_x"], ["light"]),
            helper.make_node("Sub", ["bright", "light"], ["margin"]),
            helper.make_node("Sqrt", ["margin"], ["root"]),
            helper.make_node("Mul", ["root", "nil"], ["nothing"]),
            helper.make_node("Add", ["dark_logits", "nothing"], ["logits"]),
        ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", 1, height, WIDTH])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def quantised_model() -> bytes:
    """ONNX with explicit INT8 around one convolution: frames uint8 (N, 1, 32, 48) -> logits float32 (N, 2)."""
    rng = np.random.default_rng(0)
    tensors = {
        "scale": np.float32(1 / 64),
        "zero": np.int8(0),
        "kernel": rng.integers(-127, 127, (8, 1, 3, 3)).astype(np.int8),
        "kernel_scale": np.full(8, 0.01, np.float32),
        "kernel_zero": np.zeros(8, np.int8),
        "weights": rng.normal(size=(2, 8)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("QuantizeLinear", ["pixels", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["kernel", "kernel_scale", "kernel_zero"], ["w"], axis=0),
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("GlobalAveragePool", ["y"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights"], ["logits"], transB=1),
    ]
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", 1, 32, 48])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "quantised", [frames], [logits], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def logits_of(model: bytes, tensors: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Run a model by ONNX Runtime on uint8 (n, C, H, W)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"frames": tensors})[0])


def tiny_contents(
    gain: float = 120.0,
    ok_below: float = 0.3,
    defect_above: float = 0.7,
    name: str = "tiny",
    height: int = HEIGHT,
    dazzled: bool = False,
) -> tuple[Manifest, dict[str, bytes]]:
    """Manifest and members of the tiny bundle, before they are written: for tests that break one of them."""
    spec, model = tiny_spec(height), tiny_model(gain, height, dazzled)
    tensors = np.stack([spec.apply(frame) for frame, _ in parts(200, seed=9)])
    scored = logits_of(model, tensors)
    rule = DecisionRule(CLASSES, "ok", 1.0, ok_below, defect_above, hashlib.sha256(model).hexdigest(), spec.sha256)
    counts, brightness, sharpness = (
        Baseline(counts=tuple(confidence_histogram(values).tolist()))
        for values in (rule.defect_probability(scored), *np.array([appearance(tensor) for tensor in tensors]).T)
    )
    parity = Parity(
        parts=200,
        defects=40,
        agreement=1.0,
        mean_deviation=0.0,
        max_deviation=0.0,
        paired_escapes=0,
        paired_catches=0,
    )
    variant = Variant(model="model.cpu.onnx", rule=rule, parity=parity, baseline=counts)
    members = {"model.cpu.onnx": model, "report.html": b"<html></html>", "sbom.cdx.json": b"{}"}
    manifest = Manifest(
        name=name,
        created=datetime(2026, 1, 1, tzinfo=timezone.utc),
        classes=CLASSES,
        ok_class="ok",
        preprocess=spec,
        appearance=AppearanceBaseline(brightness=brightness, sharpness=sharpness),
        max_batch=32,
        variants={"cpu": variant},
        metrics={
            "accuracy": Interval(1.0, 0.98, 1.0),
            "escape": Interval(0.0, 0.0, 0.05),
            "overkill": Interval(0.0, 0.0, 0.05),
        },
        provenance=Provenance(
            dataset="generated",
            dataset_sha256="0" * 64,
            code_revision="test",
            seed=0,
            recipe="by hand",
            versions={},
            input_size_reason="chosen for tests",
        ),
    )
    return manifest, members | tiny_goldens(spec, model)


def tiny_goldens(spec: PreprocessSpec, model: bytes) -> dict[str, bytes]:
    """Members of a bundle: eight frames, and what the model says of them."""
    members: dict[str, bytes] = {}
    expected: list[dict[str, Any]] = []
    for i, (frame, scratched) in enumerate(parts(8, every=2, seed=5)):
        name = f"golden/{i:03d}.png"
        members[name] = cv2.imencode(".png", frame)[1].tobytes()
        row = logits_of(model, spec.apply(frame)[None])[0]
        expected.append({"frame": name, "label": CLASSES[int(scratched)], "logits": {"cpu": row.tolist()}})
    return members | {"golden/expected.json": json.dumps(expected).encode()}


def tiny_bundle(path: Path, **overrides: Any) -> Path:
    """Write the tiny bundle and return its path. Overrides: see tiny_contents."""
    manifest, members = tiny_contents(**overrides)
    write_bundle(path, manifest, members)
    return path


def tiny_gpu_bundle(path: Path) -> Path:
    """The tiny bundle with its model as the `trt` variant too."""
    manifest, members = tiny_contents()
    members["model.trt.onnx"] = members["model.cpu.onnx"]
    expected = json.loads(members["golden/expected.json"])
    for golden in expected:
        golden["logits"]["trt"] = golden["logits"]["cpu"]
    members["golden/expected.json"] = json.dumps(expected).encode()
    trt = manifest.variants["cpu"].model_copy(update={"model": "model.trt.onnx"})
    variants = {**manifest.variants, "trt": trt}
    write_bundle(path, manifest.model_copy(update={"variants": variants}), members)
    return path
