"""Where frames come from, behind one protocol."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance.sources.protocol import Shot, ShotError, Source
from appliance.sources.replay import folder_source, raw_source
from appliance.sources.serials import Identified, serials_of_csv, serials_of_names

__all__ = ["LIVE", "Shot", "ShotError", "Source", "open_source"]

LIVE = ("rtsp", "v4l2", "aravis")
"""Sources that are cameras; what the others give is recorded."""


def open_source(settings: Mapping[str, Any], channels: int, start: int = 0) -> Source:
    """The source that a camera section of station.toml describes.

    Args:
        settings: the section's values, validated by `appliance.config`.
        channels: 1 or 3, what the bundle judges.
        start: triggers already seen, so that a restarted camera process goes on where its predecessor ended.

    Raises:
        InputError: the folder or file is missing, empty or of the wrong kind, or a library is not installed.
    """
    kind = settings["source"]
    if kind in LIVE:
        from appliance.sources.open_live import live_source

        return live_source(settings, channels)
    replay = (Path(settings["path"]), settings["fps"], settings["loop"], settings["count"], channels, start)
    if kind == "video":
        from appliance.sources.video import VideoSource

        return VideoSource(*replay)
    source = {"folder": folder_source, "raw": raw_source}[kind](*replay)
    if settings.get("serials") is not None:
        return Identified(source, serials_of_csv(Path(settings["serials"]), source.names).__getitem__)
    if settings.get("serial") == "name":
        return Identified(source, serials_of_names(source.names, settings["path"]).__getitem__)
    return source
