"""Native TensorRT with pycuda: pinned host buffers, one stream a lane, one CUDA graph per lane and batch size.

Frames go up as the bytes that the camera process has preprocessed. Resizing stays in the camera process on purpose:
no GPU resize gives the very pixels of `calibration.preprocess`, with which the model's thresholds were fitted.

A lane's batch is one graph launch: copy up, infer, copy down. With two lanes one copies while the other computes.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.engines.cuda_graphs import Graph, GraphMaker
from appliance.engines.protocol import EngineError
from appliance.engines.tensorrt_plan import FRAMES, LOGITS, PROFILE, PlanCache, TensorRt, plan_key


class TensorRtEngine:
    """A plan, loaded once.

    Attributes:
        lanes: a context, stream and buffers for each concurrent caller.
    """

    def __init__(self, model: bytes, settings: Mapping[str, Any], lanes: int) -> None:
        """Build the plan or take it from the cache in settings["plans"]. Raises EngineError."""
        tensorrt, cuda = TensorRt.find(), _pycuda()
        self._error: type[Exception] = cuda.Error
        try:
            cuda.init()
            device = cuda.Device(0)
            self._context = device.retain_primary_context()
            self._context.push()
        except cuda.Error as error:
            raise EngineError(f"no usable NVIDIA device ({error}); see `appliance doctor`") from error
        try:
            major, minor = device.compute_capability()
            gpu = f"{device.name()} sm_{major}{minor} driver {cuda.get_driver_version()}"
            plan = _plan(model, tensorrt, gpu, settings.get("plans"))
            # runtime and logger have to outlive the engine
            self._logger = tensorrt.logger()
            self._runtime = tensorrt.module.Runtime(self._logger)
            engine = self._runtime.deserialize_cuda_engine(plan)
            if engine is None:
                raise EngineError(
                    f"{tensorrt.name} {tensorrt.version} does not load its own plan on {gpu}: {self._logger.reason}; "
                    "where it does not know this GPU, set engine.kind to 'onnxruntime-cuda', "
                    "else remove the station's directory 'plans'"
                )
            maker = GraphMaker()
            self.lanes = [TensorRtLane(cuda, engine, maker) for _ in range(lanes)]
        except cuda.Error as error:
            raise EngineError(f"{tensorrt.name} {tensorrt.version} failed: {error}") from error
        finally:
            self._context.pop()
        self.name = f"{tensorrt.name} {tensorrt.version}, {device.name()}"

    def infer(self, batch: NDArray[np.uint8], lane: int = 0) -> NDArray[np.float32]:
        """See Engine.infer."""
        if batch.shape[1:] != self.lanes[lane].shape or not 1 <= len(batch) <= PROFILE[-1]:
            raise EngineError(f"TensorRT failed: a batch of shape {batch.shape} for frames {self.lanes[lane].shape}")
        with self.current():
            return self.lanes[lane].infer(batch)

    def trim(self, frame: NDArray[np.uint8], size: int) -> None:
        """See Engine.trim. Nothing to give back: buffers are of the largest batch from the start."""

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the device this thread's for a while: CUDA contexts belong to threads. Raises EngineError."""
        self._context.push()
        try:
            yield
        except self._error as error:
            raise EngineError(f"TensorRT failed: {error}") from error
        finally:
            self._context.pop()


class TensorRtLane:
    """What one caller needs for itself. `upload`, `compute` and `download` only put work on its stream."""

    def __init__(self, cuda: Any, engine: Any, maker: GraphMaker) -> None:
        self.shape: tuple[int, ...] = tuple(engine.get_tensor_shape(FRAMES))[1:]
        classes = int(tuple(engine.get_tensor_shape(LOGITS))[1])
        self._cuda, self._maker = cuda, maker
        self._execution = engine.create_execution_context()
        self._stream = cuda.Stream()
        self._up = cuda.pagelocked_empty((PROFILE[-1], *self.shape), np.uint8)
        self._down = cuda.pagelocked_empty((PROFILE[-1], classes), np.float32)
        self._frames, self._logits = cuda.mem_alloc(self._up.nbytes), cuda.mem_alloc(self._down.nbytes)
        self._execution.set_tensor_address(FRAMES, int(self._frames))
        self._execution.set_tensor_address(LOGITS, int(self._logits))
        self._graphs: dict[int, Graph] = {}

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Copy up, infer, copy down, wait."""
        size = len(batch)
        self._up[:size] = batch
        if size not in self._graphs:
            self._enqueue(size)  # once as it is: what TensorRT sets up at first use must not be recorded
            self.wait()
            self._graphs[size] = self._maker.record(self._stream.handle, lambda: self._enqueue(size))
        self._graphs[size].launch()
        self.wait()
        return np.array(self._down[:size])

    def _enqueue(self, size: int) -> None:
        self.upload(size)
        self.compute(size)
        self.download(size)

    def upload(self, size: int) -> None:
        """Copy so many frames to the device."""
        self._cuda.memcpy_htod_async(self._frames, self._up[:size], self._stream)

    def compute(self, size: int) -> None:
        """Judge what was uploaded. Raises EngineError."""
        if not self._execution.set_input_shape(FRAMES, (size, *self.shape)):
            raise EngineError(f"TensorRT failed: it does not take a batch of {size}")
        if not self._execution.execute_async_v3(self._stream.handle):
            raise EngineError(f"TensorRT failed on a batch of {size}")

    def download(self, size: int) -> None:
        """Copy the logits back."""
        self._cuda.memcpy_dtoh_async(self._down[:size], self._logits, self._stream)

    def wait(self) -> None:
        """Until the stream has done what was put on it."""
        self._stream.synchronize()


def _plan(model: bytes, tensorrt: TensorRt, gpu: str, folder: str | None) -> bytes:
    """From the cache, where there is one; else built, which takes seconds to minutes."""
    if folder is None:
        return tensorrt.build(model)
    cache, key = PlanCache(Path(folder)), plan_key(model, tensorrt, gpu)
    plan = cache.load(key)
    if plan is None:
        plan = tensorrt.build(model)
        cache.store(key, plan)
    return plan


def _pycuda() -> Any:
    """Its driver module, which needs a real driver to be imported. Raises EngineError."""
    try:
        return importlib.import_module("pycuda.driver")
    except (ImportError, OSError) as error:
        raise EngineError(
            f"pycuda is not usable ({error}); it needs NVIDIA's driver and: pip install 'lineguard[gpu]'"
        ) from None
