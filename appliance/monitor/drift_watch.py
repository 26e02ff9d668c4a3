"""All drift monitors of one bundle at its post: of its predictions, and of each camera's light and focus."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from appliance.config import DriftSection
from appliance.engine_link import Model
from appliance.messages import Drift, Quantity
from appliance.monitor.drift import LEAST, DriftMonitor
from appliance.wire import LOOKED_AT, FrameNote
from calibration.values import BINS

References = Mapping[str, Sequence[int]]
"""Histograms by the name of what is watched."""

_ACTION = "drift reference"


class Accepted:
    """What people took for a line in good order. It stands in the audit, so that it can be neither lost with old rows
    nor changed unseen; read once, at the start, so that a thread may ask for it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Raises sqlite3.Error where the database cannot be read."""
        query = "SELECT action, new FROM audit WHERE action LIKE ? ORDER BY id"
        told = connection.execute(query, (f"{_ACTION} %",))
        self._by_action = {action: _parsed(new) for action, new in told}

    def of(self, action: str) -> References:
        """What was accepted last under an action; empty where nothing was, or the entry is damaged."""
        return self._by_action.get(action, {})

    def take(self, references: Mapping[str, References]) -> None:
        """By action, once they are in the audit."""
        self._by_action.update({action: dict(counts) for action, counts in references.items()})


class DriftWatch:
    """The monitors.

    Attributes:
        predictions: of the defect probability, which the line feeds.
    """

    def __init__(self, model: Model, cameras: Iterable[str], section: DriftSection, accepted: Accepted) -> None:
        self._section, self._accepted = section, accepted
        manifest = model.bundle.manifest
        looks, each = manifest.appearance, max(LEAST, section.window // LOOKED_AT)
        self.predictions = self._monitor(model.bundle.variant(model.variant).baseline.counts, section.window)
        self._light = {
            camera: (
                self._monitor(looks.brightness.counts, each, "brightness", camera),
                self._monitor(looks.sharpness.counts, each, "sharpness", camera),
            )
            for camera in cameras
        }
        # Predictions are a model's, light is a preprocessing's: a lamp that was accepted stays so with the next model.
        self._actions = {
            f"{_ACTION} {model.bundle.sha256} {model.variant}": [self.predictions],
            f"{_ACTION} {manifest.preprocess.sha256}": [monitor for pair in self._light.values() for monitor in pair],
        }
        self._refer()

    def _monitor(
        self, counts: Sequence[int], window: int, quantity: Quantity = "predictions", camera: str = ""
    ) -> DriftMonitor:
        return DriftMonitor(counts, window, self._section.false_alarm, Drift(quantity=quantity, camera=camera))

    @property
    def light(self) -> tuple[Drift, ...]:
        """Last comparisons of the cameras' frames."""
        return tuple(monitor.last for pair in self._light.values() for monitor in pair)

    def prepare(self) -> None:
        """Simulate the limits now: a fraction of a second, so not for the middle of parts."""
        for monitors in self._actions.values():
            for monitor in monitors:
                monitor.prepare()

    def see(self, camera: str, frame: FrameNote) -> list[Drift]:
        """A frame of a camera; the comparisons that it completes."""
        if frame.looks is None:
            return []
        found = [monitor.add(bin_, frame.crc) for monitor, bin_ in zip(self._light[camera], frame.looks, strict=True)]
        return [comparison for comparison in found if comparison is not None]

    def proposed(self) -> dict[str, References]:
        """By action, what accepting the line as it is would make the references: the last whole windows, and what was
        accepted before of what has none yet. Without the actions for which that changes nothing."""
        found: dict[str, References] = {}
        for action, monitors in self._actions.items():
            before = self._accepted.of(action)
            counts = {**before, **{monitor.last.name: monitor.whole for monitor in monitors if monitor.whole}}
            if counts != before:
                found[action] = counts
        return found

    def entries(self, references: Mapping[str, References]) -> list[tuple[str, str, str]]:
        """Of the audit, before `accept`: action, old and new."""
        return [(action, _text(self._accepted.of(action)), _text(counts)) for action, counts in references.items()]

    def accept(self, references: Mapping[str, References]) -> None:
        """A person says that the line was well when these were counted."""
        self._accepted.take(references)
        self._refer()

    def _refer(self) -> None:
        for action, monitors in self._actions.items():
            references = self._accepted.of(action)
            for monitor in monitors:
                if monitor.last.name in references:
                    monitor.accept(references[monitor.last.name])


def _text(references: References) -> str:
    return json.dumps({name: list(counts) for name, counts in references.items()}, separators=(",", ":"))


def _parsed(text: str) -> References:
    try:
        found = {str(name): tuple(map(int, counts)) for name, counts in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        return {}  # `audit verify` finds it; drift is measured from the bundle meanwhile
    return {name: row for name, row in found.items() if len(row) == BINS and min(row) >= 0 and max(row) > 0}
