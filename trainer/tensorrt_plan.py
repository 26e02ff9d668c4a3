"""TensorRT-RTX plans for named GPUs, built from `model.trt.onnx` on a machine without one.

A plan is bound to its TensorRT version and GPU generation, so none travels in a bundle: devices build their own.
Building here proves beforehand that they can.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from calibration.errors import InputError
from trainer.features import Progress, silent
from trainer.onnx_graph import FRAMES, MAX_BATCH

MODULES = ("tensorrt_rtx", "tensorrt_rtx_bindings")
PROFILE = (1, 8, MAX_BATCH)
"""Least, usual and largest batch that a plan serves."""


@dataclass(frozen=True)
class Plan:
    """A built plan: for which GPU generation, where, how large in bytes, and by which TensorRT-RTX."""

    capability: str
    path: Path
    size: int
    version: str


def build_plans(
    model: bytes, shape: tuple[int, int, int], capabilities: tuple[str, ...], folder: Path, progress: Progress = silent
) -> list[Plan]:
    """Write one `model.trt.SM.plan` per capability into `folder`.

    Args:
        model: ONNX bytes of the `trt` variant. shape: (C, H, W) of one frame.
        capabilities: names such as "sm_86".

    Raises:
        InputError: TensorRT-RTX is not installed, a name is unknown, or a plan cannot be built.
    """
    rtx = _module()
    known = _known(rtx)
    for name in capabilities:
        if name not in known:
            raise InputError(f"--tensorrt: {name!r} is no known GPU generation; use some of {', '.join(known)}")
    folder.mkdir(parents=True, exist_ok=True)
    plans = []
    for i, name in enumerate(capabilities):
        progress(f"TensorRT plan {name}", i, len(capabilities))
        path = folder / f"model.trt.{name}.plan"
        data = _build(rtx, model, shape, known[name], name)
        path.write_bytes(data)
        plans.append(Plan(name, path, len(data), str(rtx.__version__)))
        progress(f"TensorRT plan {name}", i + 1, len(capabilities))
    return plans


def _module() -> ModuleType:
    for name in MODULES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise InputError(
        "--tensorrt: TensorRT-RTX is not installed; install it with: pip install 'lineguard[rtx]' (it needs no GPU)"
    )


def _known(rtx: ModuleType) -> dict[str, Any]:
    """GPU generations that the installed version can build for, oldest first: {"sm_86": ComputeCapability.SM86}."""
    members: dict[str, Any] = dict(rtx.ComputeCapability.__members__)
    found = {int(name[2:]): value for name, value in members.items() if name.startswith("SM") and name[2:].isdigit()}
    return {f"sm_{number}": found[number] for number in sorted(found)}


def _build(rtx: ModuleType, model: bytes, shape: tuple[int, int, int], capability: Any, name: str) -> bytes:
    logger = rtx.Logger(rtx.Logger.ERROR)
    builder = rtx.Builder(logger)
    network = builder.create_network(0)
    parser = rtx.OnnxParser(network, logger)
    if not parser.parse(model):
        first = parser.get_error(0).desc() if parser.num_errors else "no reason given"
        raise InputError(f"model.trt.onnx: TensorRT-RTX {rtx.__version__} does not accept it: {first}")
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(capability, 0)
    profile = builder.create_optimization_profile()
    profile.set_shape(FRAMES, *((batch, *shape) for batch in PROFILE))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise InputError(f"--tensorrt: TensorRT-RTX {rtx.__version__} could not build a plan for {name}; leave it out")
    return bytes(plan)
