"""One thing that `appliance doctor` looked at."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from enum import Enum


class Mark(str, Enum):
    """MISSING: the appliance cannot run. ABSENT: something it could use, and does not need."""

    OK = "ok"
    MISSING = "missing"
    ABSENT = "absent"


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what was found, and what to do where that is not enough."""

    name: str
    mark: Mark
    found: str
    remedy: str = ""

    @classmethod
    def ok(cls, name: str, found: str) -> Finding:
        """Nothing to do."""
        return cls(name, Mark.OK, found)


def need(name: str, good: bool, found: str, remedy: str) -> Finding:
    """Something without which the appliance cannot run."""
    return Finding(name, Mark.OK if good else Mark.MISSING, found, "" if good else remedy)


def want(name: str, good: bool, found: str, remedy: str) -> Finding:
    """Something that the appliance can do without."""
    return Finding(name, Mark.OK if good else Mark.ABSENT, found, "" if good else remedy)


def package(name: str, module: str, remedy: str) -> Finding:
    """A Python package that the appliance can do without; imported by its own name or as `module`."""
    if importlib.util.find_spec(name) is None and importlib.util.find_spec(module) is None:
        return Finding(name, Mark.ABSENT, "not installed", remedy)
    try:
        return Finding.ok(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding.ok(name, "installed")
