"""The workers of one station and the memory they share."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.camera_link import CameraLink
from appliance.channels import WorkerChannel
from appliance.config import Station
from appliance.engine_link import EngineLink, Model
from appliance.ring import Ring
from appliance.sizing import window


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
    goldens = model.bundle.goldens()
    windows = [window(camera.fps, size) for camera in station.camera.values()]
    ring = Ring.create(sum(windows) + len(goldens), spec.shape)
    shared = {"slots": ring.slots, "shape": list(spec.shape), "preprocess": spec.to_json()}
    cameras, first = [], 0
    for index, ((name, camera), count) in enumerate(zip(station.camera.items(), windows, strict=True)):
        settings = {**shared, "source": camera.model_dump(mode="json")}
        cameras.append(CameraLink(name, index, settings, range(first, first + count), ring, channel))
        first += count
    settings = {**shared, "engine": station.engine.model_dump(mode="json"), "batch": size}
    engine = EngineLink(model, goldens, settings, size, station.engine.timeout_s, ring, first, channel)
    return Crew(ring, tuple(cameras), engine)
