"""What the daemon and its workers are told of the simulation, through their environment."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.faults.simulator.plan import USUAL, Plan
from tests.faults.simulator.world import VARIABLE, Kind, World


@dataclass(frozen=True)
class Settings:
    """One daemon's run.

    Attributes:
        directory: of the world. seed: of the plan.
        fps: of the line; 0: as fast as parts are judged.
        deadline_ms: of a part.
        rates: faults by kind, in a thousand parts.
        mutant: one of `planted.PLANTED`, or empty.
        parent: pid of the test.
    """

    directory: str
    seed: int = 0
    fps: float = 250.0
    deadline_ms: float = 400.0
    rates: dict[int, int] = field(default_factory=lambda: {int(kind): rate for kind, rate in USUAL.items()})
    mutant: str = ""
    parent: int = field(default_factory=os.getpid)

    def environment(self) -> dict[str, str]:
        """For a child process."""
        return {**os.environ, VARIABLE: json.dumps(asdict(self)), "OMP_NUM_THREADS": "1"}

    @property
    def world(self) -> World:
        """The shared memory."""
        return World(Path(self.directory))

    @property
    def plan(self) -> Plan:
        """What happens to which part."""
        return Plan(self.seed, {Kind(int(kind)): rate for kind, rate in self.rates.items()})


def told() -> Settings:
    """Inverse of Settings.environment, in the child process."""
    values = json.loads(os.environ[VARIABLE])
    values["rates"] = {int(kind): rate for kind, rate in values["rates"].items()}
    return Settings(**values)
