"""The workers of one station and the memory they share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from appliance.camera_link import CameraLink
from appliance.channels import WorkerChannel
from appliance.config import Station
from appliance.engine_link import EngineLink, Model
from appliance.evidence import EvidenceClass
from appliance.paths import StationPaths
from appliance.ring import Ring
from appliance.sizing import most_lanes, window


@dataclass(frozen=True, eq=False)
class Crew:
    """One link per camera, in the order of station.toml, and one to the engine; none is started yet."""

    ring: Ring
    cameras: tuple[CameraLink, ...]
    engine: EngineLink


def make_crew(station: Station, model: Model, channel: WorkerChannel) -> Crew:
    """Make the shared memory, share its slots out among cameras and goldens, and make the links.

    Raises:
        InputError: too little memory. GeometryError: the goldens are not what the bundle's preprocessing takes.
    """
    size, spec = station.batch.size, model.bundle.manifest.preprocess
    goldens, lanes = model.bundle.goldens(), most_lanes(station.engine.threads, len(os.sched_getaffinity(0)))
    windows = [window(camera.fps, size, lanes) for camera in station.camera.values()]
    ring = Ring.create(sum(windows) + len(goldens), spec.shape)
    shared = {"slots": ring.slots, "shape": list(spec.shape), "preprocess": spec.to_json()}
    cameras, first = [], 0
    for index, ((name, camera), count) in enumerate(zip(station.camera.items(), windows, strict=True)):
        evidence = evidence_settings(station, name, model.bundle.sha256)
        settings = {**shared, "source": camera.model_dump(mode="json"), "evidence": evidence}
        cameras.append(CameraLink(name, index, settings, range(first, first + count), ring, channel))
        first += count
    settings = {**shared, "engine": station.engine.model_dump(mode="json"), "batch": size, "lanes": lanes}
    engine = EngineLink(model, goldens, settings, station.engine.timeout_s, ring, first, channel)
    return Crew(ring, tuple(cameras), engine)


def evidence_quotas(station: Station) -> dict[EvidenceClass, int]:
    """Bytes of each class for one camera."""
    section, cameras = station.evidence, len(station.camera)
    return {kind: getattr(section, f"{kind.value}_mib") * 2**20 // cameras for kind in EvidenceClass}


def evidence_settings(station: Station, camera: str, bundle: str) -> dict[str, Any] | None:
    """What a camera process needs to store evidence; None where none is wanted."""
    quotas = evidence_quotas(station)
    if not any(quotas.values()):
        return None
    paths = StationPaths.of(station.station.data)
    return {
        "root": str(paths.evidence),
        "database": str(paths.database),
        "camera": camera,
        "bundle": bundle,
        "quotas": {kind.value: size for kind, size in quotas.items()},
        "per_second": station.evidence.per_second,
        "free_bytes": station.disk.warn_mib * 2**20,
    }
