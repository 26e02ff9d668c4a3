"""Settings of all tests."""

from __future__ import annotations

import os
from collections.abc import Callable

import zmq
from hypothesis import settings

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read by ONNX Runtime when it is imported

settings.register_profile("lineguard", deadline=None)  # on shared cores an example's time says nothing of the code
settings.load_profile("lineguard")


_CONTEXTS: list[object] = []


def _kept(make: Callable[..., None]) -> Callable[..., None]:
    def init(self: object, *args: object, **kwargs: object) -> None:
        make(self, *args, **kwargs)
        _CONTEXTS.append(self)

    return init


# A start that a test lets fail may leave a context with open sockets to the garbage collector, which would wait for
# ever for those sockets to close, in whatever test it happens to run: contexts live as long as the test process.
zmq.Context.__init__ = _kept(zmq.Context.__init__)  # type: ignore[method-assign]
