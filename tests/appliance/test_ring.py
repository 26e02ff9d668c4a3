"""Shared memory for frames."""

from __future__ import annotations

import os
import resource

import pytest

from appliance.ring import Ring, checksum
from calibration.errors import InputError


def test_slots_do_not_touch_each_other() -> None:
    """Writing one slot changes no other, and every slot has its own checksum."""
    ring = Ring.create(3, (1, 5, 7))
    for index in range(3):
        ring.slot(index)[:] = index + 1
    assert [int(ring.slot(i).sum()) for i in range(3)] == [35, 70, 105]
    assert len({checksum(ring.slot(i)) for i in range(3)}) == 3
    other = Ring(os.dup(ring.descriptor), 3, (1, 5, 7))
    other.slot(1)[0, 0, 0] = 99
    assert ring.slot(1)[0, 0, 0] == 99
    other.close()
    ring.close()


def test_too_little_memory_is_said_at_the_start() -> None:
    """Memory is reserved when the ring is made: a station too large for the machine does not start."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(InputError, match=r"batch\.size"):
            Ring.create(64, (3, 256, 256))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
