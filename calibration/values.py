"""Plain values that records are made of. No numpy here: a device that verifies a bundle does no arithmetic with it, and
importing numpy costs more than the verification."""

from __future__ import annotations

from dataclasses import dataclass

BINS = 20
"""Bins of the confidence histograms kept by the appliance: equal width over [0, 1]."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence limits: `low` <= `value` <= `high` as a rule, in the unit of the value."""

    value: float
    low: float
    high: float
    level: float = 0.95

    def __format__(self, spec: str) -> str:
        spec = spec or ".4g"
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"
