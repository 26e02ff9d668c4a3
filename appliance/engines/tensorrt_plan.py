"""TensorRT plans: built on the device that will run them, from the bundle's `trt` model, and kept for the next start.

One small adapter serves TensorRT 10.x (JetPack), 11.x and TensorRT-RTX: networks are strongly typed, so that all three
take the INT8 of the model's own Q/DQ nodes, and none is asked for a flag or a calibrator that another lacks. Building
needs no GPU with TensorRT-RTX where a generation is named. Nothing here touches CUDA.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.engines.protocol import TENSORRT, EngineError

FRAMES, LOGITS = "frames", "logits"
PROFILE = (1, 8, 32)
"""Least, usual and largest batch of a plan. One plan serves all stations, so that a replayed part meets the same."""

FLAGS = "strongly typed, no TF32"
"""What else a plan depends on; part of its key."""

KEPT = 4
"""Plans on disk: a bundle on trial, the one before it, and both once more for another driver."""

_DIGEST = 32


@dataclass(frozen=True)
class TensorRt:
    """An installed TensorRT: its Python module, and what it calls itself."""

    module: Any
    name: str
    version: str

    @classmethod
    def find(cls) -> TensorRt:
        """The first of `tensorrt` and TensorRT-RTX that can be imported. Raises EngineError with the remedy."""
        reasons = []
        for name in TENSORRT:
            try:
                module = importlib.import_module(name)
                return cls(module, "TensorRT-RTX" if "rtx" in name else "TensorRT", str(module.__version__))
            except (ImportError, AttributeError, OSError) as error:
                reasons.append(f"{name}: {error}")
        raise EngineError(
            f"TensorRT is not usable ({'; '.join(reasons)}); a Jetson brings it with JetPack, "
            "elsewhere: pip install 'lineguard[gpu]'"
        )

    def logger(self) -> Any:
        """A logger that prints nothing and keeps the last error as its `reason`."""
        base = self.module.ILogger
        errors = (base.INTERNAL_ERROR, base.ERROR)

        class Kept(base):  # type: ignore[misc, valid-type]
            def __init__(self) -> None:
                base.__init__(self)
                self.reason = "no reason given"

            def log(self, severity: Any, message: str) -> None:
                if severity in errors:
                    self.reason = message

        return Kept()

    def build(self, model: bytes, generation: str = "") -> bytes:
        """A plan for the GPU of this machine, or (TensorRT-RTX) for a named generation such as "sm_86".

        Raises:
            EngineError: the model is not one that TensorRT takes, or no plan can be built.
        """
        trt, logger = self.module, self.logger()
        builder = trt.Builder(logger)
        network = builder.create_network(_strongly_typed(trt))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse(model):
            first = parser.get_error(0).desc() if parser.num_errors else "no reason given"
            raise EngineError(f"{self.name} {self.version} refuses the model: {first}")
        if network.num_inputs != 1 or network.get_input(0).name != FRAMES or network.get_output(0).name != LOGITS:
            raise EngineError(f"the model must have one input '{FRAMES}' and the output '{LOGITS}'")
        config = builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)  # the float tail keeps its precision
        if generation:
            config.num_compute_capabilities = 1
            config.set_compute_capability(trt.ComputeCapability.__members__[generation.replace("_", "").upper()], 0)
        shape = tuple(network.get_input(0).shape)[1:]
        profile = builder.create_optimization_profile()
        profile.set_shape(FRAMES, *((batch, *shape) for batch in PROFILE))
        config.add_optimization_profile(profile)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            for_whom = generation or "this GPU"
            raise EngineError(f"{self.name} {self.version} could not build a plan for {for_whom}: {logger.reason}")
        return bytes(plan)


def _strongly_typed(trt: Any) -> int:
    """Flags of a network whose types are the model's own. Where there is no such flag, all networks are so."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def plan_key(model: bytes, tensorrt: TensorRt, gpu: str) -> str:
    """Names the plan of a model for one TensorRT and one GPU; `gpu`: its name, compute capability and driver."""
    parts = (hashlib.sha256(model).hexdigest(), tensorrt.name, tensorrt.version, gpu, str(PROFILE), FLAGS)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class PlanCache:
    """Plans on disk, each behind its own SHA-256.

    A plan is code for the GPU: one that somebody else could have put there is never loaded. The directory must belong
    to this user and be closed to all others; a damaged file counts as absent.
    """

    def __init__(self, folder: Path) -> None:
        """Make the directory. Raises EngineError where it cannot be made, or is open to others."""
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.lstat()
        except OSError as error:
            raise EngineError(f"{folder}: {error.strerror}; let this user write to station.data") from None
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise EngineError(f"{folder}: must be a directory of this user with mode 0700; remove it, it is made again")

    def load(self, key: str) -> bytes | None:
        """The plan with this key; None where there is none, or only a damaged one."""
        try:
            data = (self._folder / f"{key}.plan").read_bytes()
        except OSError:
            return None
        digest, plan = data[:_DIGEST], data[_DIGEST:]
        return plan if hashlib.sha256(plan).digest() == digest else None

    def store(self, key: str, plan: bytes) -> None:
        """Keep a plan, and the last few before it: older ones are for models or drivers of the past.

        A disk that takes none costs a longer next start, and nothing else.
        """
        try:
            for old in sorted(self._folder.glob("*.plan"), key=lambda path: path.stat().st_mtime_ns)[: 1 - KEPT]:
                old.unlink()
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
                file.write(hashlib.sha256(plan).digest() + plan)
                file.flush()
                os.fsync(file.fileno())
            os.replace(file.name, self._folder / f"{key}.plan")
        except OSError:
            return
