"""Scores of tensors that were judged before: the very same bytes need no second judgement.

Only recorded frames repeat to the bit, in replays; a live camera that shows the same picture twice is frozen, and its
part is rejected as STALE long before. So the cache is for replayed sources, and off unless asked for.

It sits with the supervisor, before the batcher, one for each bundle at its post. The CRC-32 that the camera announces
only says where to look; then all bytes are compared with the stored tensor, so that two tensors are never taken for
one. That costs a comparison where the CRC is known, and one copy for each tensor that is not: less than a strong hash
over every tensor, and it cannot collide.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from appliance.ring import Tensor


class Known(NamedTuple):
    """What is known of a tensor: logits float32 (classes,), and the size of the batch it was judged in and its place
    there, which a replay of the verdict has to repeat."""

    logits: NDArray[np.float32]
    batch: int
    position: int


class PredictionCache:
    """The tensors that were met last, up to a number of bytes.

    Attributes:
        hits: found so far.
    """

    def __init__(self, limit: int) -> None:
        """At most `limit` bytes of tensors; 0 keeps nothing and finds nothing."""
        self._limit = self._left = limit
        self._entries: OrderedDict[int, tuple[bytes, Known]] = OrderedDict()
        self.hits = 0

    def find(self, tensor: Tensor, crc: int) -> Known | None:
        """What is known of exactly these bytes. `crc`: as announced for them; with a wrong one nothing is found."""
        entry = self._entries.get(crc)
        if entry is None or entry[0] != tensor.tobytes():
            return None
        self._entries.move_to_end(crc)
        self.hits += 1
        return entry[1]

    def keep(self, tensor: Tensor, crc: int, known: Known) -> None:
        """Remember it; the tensors that were met longest ago make room."""
        if crc in self._entries or tensor.nbytes > self._limit:
            return
        while tensor.nbytes > self._left:
            _, (data, _) = self._entries.popitem(last=False)
            self._left += len(data)
        self._entries[crc] = (tensor.tobytes(), known)
        self._left -= tensor.nbytes
