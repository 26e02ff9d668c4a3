"""What a signature and a device's trust consist of, as strict models. No cryptography here: see deploy.trust."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

SIGNATURE = ".sig"
TARGET = "bundle.lgb"
EVERY_DEVICE = "*"
REVOKED = "x-lineguard-revoked"
"""Field of root metadata: ids of keys that were revoked, not merely replaced."""
Role = Literal["timestamp", "snapshot", "targets"]
ROLES: tuple[Role, Role, Role] = ("timestamp", "snapshot", "targets")
DEVICE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Envelope(_Strict):
    """FILE.sig: TUF metadata files by name, as text."""

    format: Literal[1] = 1
    metadata: dict[str, str]


class Terms(_Strict):
    """What a signature says of its bundle beside length and hash.

    devices: ids it is meant for, or "*". version: rises with every signature. signed: when, by the signer's clock.
    """

    devices: tuple[str, ...] = Field(min_length=1)
    version: int = Field(ge=1)
    signed: AwareDatetime


class TrustRecord(_Strict):
    """trust.json: what a device has accepted.

    floor: no clock is believed that says an earlier time; the latest signing time accepted, None before the first.
    roots: root metadata, from the one of the enrolment to the newest. metadata: last of each other role.
    """

    version: Literal[1] = 1
    device: str = Field(pattern=f"^{DEVICE_ID.pattern}$")
    floor: AwareDatetime | None = None
    roots: Annotated[tuple[str, ...], Field(min_length=1)]
    metadata: dict[Role, str] = {}


def signature_path(bundle: Path) -> Path:
    """Where the signature of a bundle lies."""
    return bundle.with_name(bundle.name + SIGNATURE)
