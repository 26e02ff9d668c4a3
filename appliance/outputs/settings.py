"""[output] of station.toml: where a PASS goes.

Example::

    [output]
    kind = "modbus"
    host = "192.168.10.20"
    address = 100
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from appliance.section import Section


class NoOutput(Section):
    """No line: what would have passed is counted."""

    kind: Literal["none"] = "none"


class LiveOutput(Section):
    """A device that lets parts pass."""

    timeout_ms: float = Field(
        default=300.0, ge=10, le=60_000, description="a write or read-back that takes longer is a FAULT"
    )


class RelayOutput(LiveOutput):
    """The simulated relay of this station, which `appliance relay` runs."""

    kind: Literal["relay"]
    beat_ms: float = Field(default=1000.0, ge=250, le=60_000, description="no heartbeat for so long: de-energised")
    gate_ms: float = Field(
        default=1000.0, ge=0, le=600_000, description="a part is at the gate at most so long after its deadline"
    )


class ModbusOutput(LiveOutput):
    """Holding registers of a PLC, Modbus TCP. The layout is in appliance/outputs/modbus.py; Modbus knows no passwords,
    so the network between must be the machine's own."""

    kind: Literal["modbus"]
    host: str = Field(min_length=1, max_length=253, description="name or address of the PLC")
    port: int = Field(default=502, ge=1, le=65535, description="TCP port")
    unit: int = Field(default=1, ge=0, le=255, description="Modbus unit id")
    address: int = Field(default=0, ge=0, le=65500, description="of the first register")


class MqttOutput(LiveOutput):
    """Topics of an MQTT broker that the line's side acknowledges; they are in appliance/outputs/mqtt.py."""

    kind: Literal["mqtt"]
    host: str = Field(min_length=1, max_length=253, description="name or address of the broker")
    port: int = Field(default=8883, ge=1, le=65535, description="TCP port")
    prefix: str = Field(default="lineguard", pattern=r"^[A-Za-z0-9_./-]{1,100}$", description="of all topics")
    user: str = Field(default="", max_length=100, description="who this station is to the broker; empty = nobody")
    password_file: Path | None = Field(default=None, description="holds the password; mode 0600")
    ca: Path | None = Field(default=None, description="PEM file of who signs the broker's certificate: TLS")

    @model_validator(mode="after")
    def _protected(self) -> MqttOutput:
        """Whoever can write to the broker could let parts pass."""
        if self.ca is None and not _is_loopback(self.host):
            raise ValueError(f"{self.host} is another machine: give ca, the file that proves who it is")
        if bool(self.user) != (self.password_file is not None):
            raise ValueError("give user and password_file together, or neither")
        return self


OutputSection = Annotated[NoOutput | RelayOutput | ModbusOutput | MqttOutput, Field(discriminator="kind")]


def absolute(section: OutputSection, base: Path) -> OutputSection:
    """With paths relative to `base` made absolute."""
    if not isinstance(section, MqttOutput):
        return section
    paths = {"password_file": section.password_file, "ca": section.ca}
    return section.model_copy(update={key: None if path is None else base / path for key, path in paths.items()})


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
