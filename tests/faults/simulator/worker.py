"""`appliance.worker` with the simulated camera or engine in its place; started by the daemon of the simulation."""

from __future__ import annotations

import sys
from typing import Any

from appliance import worker
from tests.faults.simulator.planted import PLANTED
from tests.faults.simulator.settings import told


def plant_camera() -> None:
    """The simulated camera is the source, whatever station.toml names."""
    from appliance import camera
    from appliance.ring import Tensor, checksum
    from tests.faults.simulator.camera import SimulatedCamera

    settings = told()
    source = SimulatedCamera(settings.world, settings.plan, settings.fps, 1.2 * settings.deadline_ms / 1000)

    def damaged(tensor: Tensor) -> int:
        """The checksum, after which the slot may be written to by whoever should not."""
        crc = checksum(tensor)
        source.damage_tensor(tensor)
        return crc

    camera.open_source = lambda *_: source  # type: ignore[assignment]
    camera.checksum = damaged


def plant_engine() -> None:
    """The real engine, under orders."""
    from appliance import judging
    from tests.faults.simulator.engine import SimulatedEngine

    settings, load = told(), judging.load_engine

    def simulated(*arguments: Any) -> SimulatedEngine:
        return SimulatedEngine(load(*arguments), settings.world, 1.2 * settings.deadline_ms / 1000)

    judging.load_engine = simulated


if __name__ == "__main__":
    plant_camera() if sys.argv[1] == "camera" else plant_engine()
    PLANTED[told().mutant](sys.argv[1])
    sys.exit(worker.main())
