"""Preprocessed frames in shared memory: written once by a camera process, read once by the engine process.

The memory is an anonymous file (memfd) that workers inherit as a descriptor: it has no name that could be guessed or
left behind, and the kernel frees it with the last process, however that process ends. Who may write or read a slot is
decided by the supervisor alone: a camera writes only slots it was given credit for, and gets a slot back only after
the engine has answered for it.
"""

from __future__ import annotations

import mmap
import os

import numpy as np
from numpy.typing import NDArray
from zlib_ng.zlib_ng import crc32

from calibration.errors import InputError

ALIGN = 64
"""Bytes: slots start on a cache line of their own."""

Tensor = NDArray[np.uint8]


class Ring:
    """`slots` tensors of one shape in shared memory.

    Attributes:
        descriptor: of the memory; hand it to child processes.
        first: number of its first slot. The slots of two rings of one daemon never have the same number.
        slots: how many tensors there are.
        shape: of each: (channels, height, width), uint8.
    """

    def __init__(self, descriptor: int, slots: int, shape: tuple[int, int, int], first: int = 0) -> None:
        """Attach to memory that `create` made in another process (or here)."""
        self.descriptor, self.slots, self.shape, self.first = descriptor, slots, shape, first
        self._stride = _stride(shape)
        self._map = mmap.mmap(descriptor, slots * self._stride)
        flat = np.frombuffer(self._map, np.uint8).reshape(slots, self._stride)
        used = int(np.prod(shape))
        self._views: list[Tensor] = [flat[index, :used].reshape(shape) for index in range(slots)]

    @classmethod
    def create(cls, slots: int, shape: tuple[int, int, int], first: int = 0) -> Ring:
        """New memory, all of it reserved now: a machine short of memory fails here and not in the middle of a part.

        Raises:
            InputError: there is not enough memory.
        """
        size = slots * _stride(shape)
        descriptor = os.memfd_create("lineguard-ring", os.MFD_CLOEXEC)
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            os.close(descriptor)
            raise InputError(
                f"batch.size: {size / 2**20:.0f} MiB of shared memory for {slots} frames cannot be had "
                f"({error.strerror}); make batch.size smaller"
            ) from None
        return cls(descriptor, slots, shape, first)

    def __contains__(self, slot: object) -> bool:
        return isinstance(slot, int) and self.first <= slot < self.first + self.slots

    def slot(self, index: int) -> Tensor:
        """The tensor in a slot, uint8 `shape`: a view, not a copy."""
        if index not in self:
            raise IndexError(f"slot {index} of a ring of {self.slots} from {self.first} on")
        return self._views[index - self.first]

    def close(self) -> None:
        """Give up this process's hold on the memory."""
        self._views.clear()
        os.close(self.descriptor)


def checksum(tensor: Tensor) -> int:
    """CRC-32 of a C-contiguous tensor's bytes, as zlib's: zlib-ng takes a tenth of its time, twice a part."""
    return crc32(tensor.data)


def _stride(shape: tuple[int, int, int]) -> int:
    return -(-int(np.prod(shape)) // ALIGN) * ALIGN
