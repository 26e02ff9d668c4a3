"""CUDA graphs through the driver itself: pycuda has no calls for them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from appliance.engines.protocol import EngineError

_THREAD_LOCAL = 1
"""Capture mode: other lanes may go on with their own work meanwhile."""


class GraphMaker:
    """Records what is put on a stream, to be launched again by one call."""

    def __init__(self) -> None:
        """Open the driver. Raises EngineError where there is none."""
        try:
            self._driver = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise EngineError(f"no CUDA driver ({error}); install NVIDIA's driver for this GPU") from None

    def record(self, stream: int, work: Callable[[], None]) -> Graph:
        """The graph of what `work` puts on the stream with this handle. Raises EngineError."""
        handle = ctypes.c_void_p(stream)
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuStreamBeginCapture_v2", handle, ctypes.c_int(_THREAD_LOCAL))
        try:
            work()
        finally:  # a capture left open would make the stream useless
            self.call("cuStreamEndCapture", handle, ctypes.byref(graph))
        self.call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        self.call("cuGraphDestroy", graph)
        return Graph(self, executable, handle)

    def call(self, name: str, *arguments: object) -> None:
        """Call a function of the driver. Raises EngineError where it fails."""
        code = int(getattr(self._driver, name)(*arguments))
        if code:
            raise EngineError(f"{name} failed with CUDA error {code}")


class Graph:
    """A recorded piece of work on one stream; lives as long as its engine."""

    def __init__(self, maker: GraphMaker, executable: ctypes.c_void_p, stream: ctypes.c_void_p) -> None:
        self._maker, self._executable, self._stream = maker, executable, stream

    def launch(self) -> None:
        """Put it on its stream once more. Raises EngineError."""
        self._maker.call("cuGraphLaunch", self._executable, self._stream)
