"""What happens to which part: drawn from a seed, the part's number and nothing else. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np

from calibration.preprocess import Frame
from tests.faults.simulator.world import Kind
from tests.support.tiny import part

GOOD, BAD = 48, 16
"""Pictures in the pool: good parts first, then scratched ones."""

USUAL = {
    Kind.EMPTY: 4,
    Kind.TRUNCATED: 6,
    Kind.GEOMETRY: 6,
    Kind.BLACK: 6,
    Kind.FROZEN: 8,
    Kind.OLD: 8,
    Kind.NO_FRAME: 6,
    Kind.LATE: 1,
    Kind.FLIPPED: 8,
    Kind.OVERWRITTEN: 8,
    Kind.UNSEEN: 5,
}
"""Out of a thousand parts."""

BLOCK, BLOCKS = 4, 20


@dataclass(frozen=True)
class Plan:
    """The faults of one line. `rates`: of each kind, in a thousand parts."""

    seed: int
    rates: dict[Kind, int]

    def draw(self, number: int) -> tuple[Kind, int]:
        """What happens to part `number`, and which picture of the pool it shows."""
        digest = hashlib.blake2b(f"{self.seed} {number}".encode(), digest_size=8).digest()
        draw, picture = int.from_bytes(digest[:4], "little") % 1000, int.from_bytes(digest[4:], "little")
        index = picture % GOOD if picture >> 16 & 7 else GOOD + picture % BAD
        for kind, rate in self.rates.items():
            if draw < rate:
                return kind, index
            draw -= rate
        return Kind.CLEAN, index


def may_pass(kind: Kind, index: int) -> bool:
    """Whether a faultless appliance could pass such a part."""
    return kind is Kind.CLEAN and index < GOOD


def pool() -> list[Frame]:
    """The pictures, uint8 (64, 96); the scratched ones are beyond all doubt."""
    frames = [part(7_000_000 + i, scratched=i >= GOOD) for i in range(GOOD + BAD)]
    for frame in frames[GOOD:]:
        cv2.line(frame, (4, 20), (90, 58), 20, 6)
    return frames


def is_stamped(tensor: Frame) -> bool:
    """Whether a tensor (1, 32, 48) shows a part of the line, and not a golden: at half size its stamp is as even."""
    size = BLOCK // 2
    strip = tensor[0, :size, : size * BLOCKS].astype(np.int16)
    return bool((strip == strip[:1, ::size].repeat(size, 1)).all())


def number_of(tensor: Frame) -> int | None:
    """The number of the part that a tensor (1, 32, 48) shows; None where it is no part's own picture.

    A checksum would not do to tell parts apart: the stamps are few bits, so CRC-32 gives some good and some bad part
    the same one (with pictures 0 and 54, parts n and n ^ 9843).
    """
    if not is_stamped(tensor):
        return None
    bits = tensor[0, 0, : BLOCK // 2 * BLOCKS : BLOCK // 2] > 150
    return int((1 << np.flatnonzero(bits)).sum())


def stamped(frame: Frame, number: int) -> Frame:
    """The frame with the part's number in blocks along its upper edge, so that no two parts look the same; neither
    grey is dark enough to be taken for a scratch."""
    own = frame.copy()
    bits = number >> np.arange(BLOCKS) & 1
    strip = np.where(bits, 165, 135).astype(np.uint8)
    own[:BLOCK, : BLOCK * BLOCKS] = np.repeat(strip, BLOCK)
    return own
