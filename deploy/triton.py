"""A bundle as a Triton model repository: the same pixels, the same thresholds, another server.

::

    REPO/NAME                 ensemble: frame -> decision, defect_probability, logits
    REPO/NAME-preprocess      Python backend: the bundle's PreprocessSpec
    REPO/NAME-model           ONNX Runtime backend (or Python's, with onnxruntime): the bundle's model, batched
    REPO/NAME-decide          Python backend: temperature and thresholds

The Python parts carry the code they need as it is here (numpy and cv2 must be in the server's Python). A repository is
no station: it has no deadlines, no single-use tokens, no goldens at start, no records. Only the appliance gives a PASS.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any, Literal

from calibration.errors import InputError
from deploy.bundle import Bundle
from deploy.manifest import Manifest

DELAY_US = 10_000
"""How long Triton lets a part wait for others, in microseconds: what a station waits by default."""

VERSION = "1"
Runner = Literal["onnxruntime", "python"]
_PYTHON_PARTS = {"preprocess": "preprocess", "decide": "decision"}
"""Which part needs which module of calibration, with all that it imports."""


@dataclass(frozen=True)
class Repository:
    """What was written, or would be.

    Attributes:
        path: of the repository. name: of its ensemble, what clients ask for.
        files: relative paths, in order. bundle, variant: what it was made from (SHA-256).
    """

    path: Path
    name: str
    files: tuple[str, ...]
    bundle: str
    variant: str


def write_repository(
    bundle: Bundle, out: Path, variant: str = "cpu", dry_run: bool = False, runner: Runner = "onnxruntime"
) -> Repository:
    """Make a model repository.

    Args:
        out: a directory that does not exist, or is empty.
        variant: of the model: "cpu" for ONNX Runtime on the CPU, "trt" for its TensorRT provider on a GPU.
        runner: Triton's backend for the model. "python" needs the onnxruntime package in the server's Python, and is
            for servers that have no ONNX Runtime backend; on the CPU alone.

    Raises:
        InputError: a variant and a runner that do not go together; `out` holds something, or cannot be written.
        BundleError: no such variant.
    """
    contents = repository(bundle, variant, runner)
    name = model_name(bundle.manifest.name)
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"{out}: exists; name a new directory")
        if not dry_run:
            part = out.with_name(out.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            for path, data in contents.items():
                (part / path).parent.mkdir(parents=True, exist_ok=True)
                (part / path).write_bytes(data)
            (part / name / VERSION).mkdir()  # an ensemble has a version and nothing in it
            part.replace(out)  # whole or not at all: Triton may be watching
    except OSError as error:
        raise InputError(f"{error.filename or out}: {error.strerror or error}") from None
    return Repository(out, name, tuple(contents), bundle.sha256, variant)


def model_name(name: str) -> str:
    """A bundle's name as one that Triton and URLs take."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-") or "bundle"


def repository(bundle: Bundle, variant: str, runner: Runner = "onnxruntime") -> dict[str, bytes]:
    """The files of a repository by relative path. Raises as `write_repository`."""
    if runner == "python" and variant != "cpu":
        raise InputError(f"--runner python judges on the CPU: variant {variant!r} needs --runner onnxruntime")
    manifest, name = bundle.manifest, model_name(bundle.manifest.name)
    rule = bundle.variant(variant).rule
    configs = _configs(manifest, name, variant, bundle.sha256)
    configs[f"{name}-model"]["backend"] = runner
    made = {f"{model}/config.pbtxt": pbtxt(config).encode() for model, config in configs.items()}
    made[f"{name}-model/{VERSION}/model.onnx"] = bundle.model(variant)
    if runner == "python":
        made[f"{name}-model/{VERSION}/model.py"] = (package_files("deploy.triton_backend") / "model.py").read_bytes()
    values = {"preprocess": ("preprocess.json", manifest.preprocess.to_json()), "decide": ("rule.json", rule.to_json())}
    for part, module in _PYTHON_PARTS.items():
        folder = f"{name}-{part}/{VERSION}"
        made[f"{folder}/model.py"] = (package_files("deploy.triton_backend") / f"{part}.py").read_bytes()
        for source, data in _sources(module).items():
            made[f"{folder}/calibration/{source}"] = data
        file, value = values[part]
        made[f"{folder}/{file}"] = (json.dumps(value, indent=1) + "\n").encode()
    return made


def _sources(module: str) -> dict[str, bytes]:
    """A module of calibration and all of calibration that it imports, by file name."""
    found: dict[str, bytes] = {"__init__.py": (package_files("calibration") / "__init__.py").read_bytes()}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if f"{name}.py" in found:
            continue
        data = (package_files("calibration") / f"{name}.py").read_bytes()
        found[f"{name}.py"] = data
        for node in ast.walk(ast.parse(data)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("calibration."):
                waiting.append((node.module or "").removeprefix("calibration."))
    return dict(sorted(found.items()))


class Enum(str):
    """A value that is written without quotes."""


def _configs(manifest: Manifest, name: str, variant: str, sha256: str) -> dict[str, dict[str, Any]]:
    """The configuration of each model, by its name."""
    spec, most = manifest.preprocess, manifest.max_batch
    frame = _tensor("frame", "UINT8", [-1, -1] if spec.channels == 1 else [-1, -1, 3])
    frames = _tensor("frames", "UINT8", list(spec.shape))
    logits = _tensor("logits", "FP32", [len(manifest.classes)])
    decided = [_tensor("decision", "STRING", [1]), _tensor("defect_probability", "FP64", [1])]
    about = [_parameter("bundle_sha256", sha256), _parameter("variant", variant)]
    model: dict[str, Any] = {
        "name": f"{name}-model",
        "max_batch_size": most,
        "input": [frames],
        "output": [logits],
        "dynamic_batching": {"max_queue_delay_microseconds": DELAY_US},
        "instance_group": [{"count": 1, "kind": Enum("KIND_CPU" if variant == "cpu" else "KIND_GPU")}],
        "parameters": about,
    }
    if variant == "trt":
        accelerator = {"name": "tensorrt", "parameters": {"key": "precision_mode", "value": "INT8"}}
        model["optimization"] = {"execution_accelerators": {"gpu_execution_accelerator": [accelerator]}}

    def python(part: str, given: list[dict[str, Any]], made: list[dict[str, Any]]) -> dict[str, Any]:
        cpu = [{"count": 1, "kind": Enum("KIND_CPU")}]
        head = {"name": f"{name}-{part}", "backend": "python", "max_batch_size": most}
        return {**head, "input": given, "output": made, "instance_group": cpu}

    steps = [
        _step(f"{name}-preprocess", {"frame": "frame"}, {"frames": "frames"}),
        _step(f"{name}-model", {"frames": "frames"}, {"logits": "logits"}),
        _step(f"{name}-decide", {"logits": "logits"}, {tensor["name"]: tensor["name"] for tensor in decided}),
    ]
    ensemble: dict[str, Any] = {
        "name": name,
        "platform": "ensemble",
        "max_batch_size": most,
        "input": [frame],
        "output": [*decided, logits],
        "ensemble_scheduling": {"step": steps},
        "parameters": about,
    }
    parts: tuple[dict[str, Any], ...] = (
        ensemble,
        model,
        python("preprocess", [frame], [frames]),
        python("decide", [logits], decided),
    )
    return {config["name"]: config for config in parts}


def _tensor(name: str, kind: str, dims: list[int]) -> dict[str, Any]:
    return {"name": name, "data_type": Enum(f"TYPE_{kind}"), "dims": dims}


def _parameter(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": {"string_value": value}}


def _step(model: str, given: dict[str, str], made: dict[str, str]) -> dict[str, Any]:
    def mapped(names: dict[str, str]) -> list[dict[str, Any]]:
        return [{"key": key, "value": value} for key, value in names.items()]

    return {"model_name": model, "model_version": -1, "input_map": mapped(given), "output_map": mapped(made)}


def pbtxt(message: dict[str, Any], indent: str = "") -> str:
    """A message in the text format of protocol buffers. Lists are repeated fields."""
    lines = []
    for key, value in message.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                lines.append(f"{indent}{key} {{\n{pbtxt(item, indent + '  ')}{indent}}}\n")
            else:
                shown = json.dumps(item) if isinstance(item, str) and not isinstance(item, Enum) else item
                lines.append(f"{indent}{key}: {shown}\n")
    return "".join(lines)
