"""The cameras of one station, and what their processes are told."""

from __future__ import annotations

from typing import Any

from appliance.camera_link import CameraLink
from appliance.channels import WorkerChannel
from appliance.config import Station
from appliance.evidence import EvidenceClass
from appliance.paths import StationPaths
from appliance.post import Post


def make_cameras(station: Station, post: Post, channel: WorkerChannel) -> tuple[CameraLink, ...]:
    """One link per camera, in the order of station.toml, each with its slots at this post; none is started yet."""
    links = []
    for index, (name, camera) in enumerate(station.camera.items()):
        evidence = evidence_settings(station, name)
        settings = {**post.settings(), "source": camera.model_dump(mode="json"), "evidence": evidence}
        settings["hang_s"] = station.timing.camera_timeout_s
        links.append(CameraLink(name, index, settings, post.slots[name], post.ring, channel))
    return tuple(links)


def evidence_quotas(station: Station) -> dict[EvidenceClass, int]:
    """Bytes of each class for one camera."""
    section, cameras = station.evidence, len(station.camera)
    return {kind: getattr(section, f"{kind.value}_mib") * 2**20 // cameras for kind in EvidenceClass}


def evidence_settings(station: Station, camera: str) -> dict[str, Any] | None:
    """What a camera process needs to store evidence; None where none is wanted."""
    quotas = evidence_quotas(station)
    if not any(quotas.values()):
        return None
    paths = StationPaths.of(station.station.data)
    return {
        "root": str(paths.evidence),
        "database": str(paths.database),
        "camera": camera,
        "quotas": {kind.value: size for kind, size in quotas.items()},
        "per_second": station.evidence.per_second,
        "free_bytes": station.disk.warn_mib * 2**20,
    }
