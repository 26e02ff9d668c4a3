"""What evidence is stored, how much of it, and what goes first. Pure: no files, no clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice

from appliance.evidence import EvidenceClass

LOOKED_AT = 200
"""So many of the oldest files of a class are considered for freeing; open cases among them stay."""


class Shelf:
    """Files by class, oldest first, against a quota in bytes for each class."""

    def __init__(self, quotas: Mapping[EvidenceClass, int]) -> None:
        self._quotas = dict(quotas)
        self._files: dict[EvidenceClass, dict[int, int]] = {kind: {} for kind in EvidenceClass}
        self._used = dict.fromkeys(EvidenceClass, 0)

    def add(self, kind: EvidenceClass, seq: int, size: int) -> None:
        """A file is there; one of the same number is replaced."""
        self.remove(kind, seq)
        self._files[kind][seq] = size
        self._used[kind] += size

    def remove(self, kind: EvidenceClass, seq: int) -> None:
        """A file is gone."""
        self._used[kind] -= self._files[kind].pop(seq, 0)

    def used(self, kind: EvidenceClass) -> int:
        """Bytes."""
        return self._used[kind]

    def excess(self, kind: EvidenceClass, size: int = 0) -> int:
        """Bytes over the quota, once a file of `size` more is there; negative: room."""
        return self._used[kind] + size - self._quotas.get(kind, 0)

    def next_to_free(
        self, is_open: Callable[[int], bool], wanted: EvidenceClass | None = None, size: int = 0
    ) -> tuple[EvidenceClass, int] | None:
        """The file to free next: the oldest of the class that is most over its quota, open review cases excepted.

        Args:
            is_open: whether the UNSURE row of this number still waits for a person.
            wanted: the class that needs room for `size` bytes more.

        Returns:
            Class and number; None where no class is over its quota, or only open cases are left.
        """
        over = {kind: self.excess(kind, size if kind is wanted else 0) for kind in EvidenceClass}
        for kind in sorted((kind for kind in over if over[kind] > 0), key=lambda kind: -over[kind]):
            for seq in islice(self._files[kind], LOOKED_AT):
                if kind is not EvidenceClass.UNSURE or not is_open(seq):
                    return kind, seq
        return None
