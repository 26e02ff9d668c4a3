"""Fixtures of several packages of tests, and their types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import pytest
import zmq

Context: TypeAlias = "zmq.Context[zmq.Socket[bytes]]"


@pytest.fixture
def context() -> Iterator[Context]:
    """Closed with all its sockets, also where the test fails: one that is left to the garbage collector together with
    its sockets may wait for ever for these to close, in whatever test runs then."""
    made: Context = zmq.Context()
    yield made
    made.destroy(linger=0)
