"""What every section of station.toml is built on."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Frozen, unknown keys forbidden."""

    model_config = ConfigDict(frozen=True, extra="forbid")
