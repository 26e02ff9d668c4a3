"""Bundles that a station still has: what judged a part, or judges now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deploy.bundle import Bundle, BundleError, open_bundle
from deploy.record import read_state, slot_path
from deploy.slots import SLOT_NAMES


def find_bundle(path: Path, sha256: str) -> Bundle | None:
    """The bundle with this hash, from the station's file or the slots of its device root; None where it is gone."""
    for candidate in _candidates(path):
        try:
            bundle = open_bundle(candidate)
        except BundleError:
            continue
        if bundle.sha256 == sha256:
            return bundle
    return None


def _candidates(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    slots = read_state(path)
    yield from (slot_path(path, name) for name in SLOT_NAMES if slots[name].sha256)
