"""The words of the line, shared by all processes; without imports, since workers must start fast."""

from __future__ import annotations

from enum import Enum


class Verdict(str, Enum):
    """What the line is told. PASS has to be said; silence is REJECT."""

    PASS = "PASS"  # noqa: S105  a verdict, not a secret
    REJECT = "REJECT"


class Reason(str, Enum):
    """Why a part was rejected. DEFECT and UNSURE are judgements; all others mean NOT INSPECTED."""

    NONE = ""
    DEFECT = "DEFECT"
    UNSURE = "UNSURE"
    BAD_IMAGE = "BAD_IMAGE"
    DECODE = "DECODE"
    CHECKSUM = "CHECKSUM"
    FORMAT = "FORMAT"
    FROZEN = "FROZEN"
    TORN = "TORN"
    STALE = "STALE"
    TRIGGER = "TRIGGER"
    OUTPUT = "OUTPUT"
    LATE = "LATE"
    NO_FRAME = "NO_FRAME"
    CAMERA = "CAMERA"
    ENGINE = "ENGINE"
    LOG = "LOG"
    OVERFLOW = "OVERFLOW"
    HOLD = "HOLD"
    STOPPED = "STOPPED"


JUDGED = (Reason.NONE, Reason.DEFECT, Reason.UNSURE)
"""Reasons under which the model has judged the part."""


class State(str, Enum):
    """State of the daemon; the transitions are in `appliance.state`."""

    BOOT = "BOOT"
    VERIFY = "VERIFY"
    SELFTEST = "SELFTEST"
    READY = "READY"
    RUN = "RUN"
    DEGRADED = "DEGRADED"
    HOLD = "HOLD"
    SWITCH = "SWITCH"
    FAULT = "FAULT"
    STOPPED = "STOPPED"
