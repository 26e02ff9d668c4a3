"""Fixtures of several packages of tests, and their types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import pytest
import zmq

Context: TypeAlias = "zmq.Context[zmq.Socket[bytes]]"


@pytest.fixture
def context() -> Iterator[Context]:
    """Closed with all its sockets, also where the test fails: one that is left to the garbage collector together with
    its sockets may wait for ever for these to close, in whatever test runs then. Its sockets are held until then."""
    held: list[zmq.Socket[bytes]] = []

    class Holding(zmq.Context[zmq.Socket[bytes]]):
        def socket(self, *args: Any, **options: Any) -> zmq.Socket[bytes]:
            held.append(super().socket(*args, **options))
            return held[-1]

    made = Holding()
    yield made
    made.destroy(linger=0)
