"""All drift monitors of one bundle at its post: of its predictions, and of each camera's light and focus."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from appliance.config import DriftSection
from appliance.engine_link import Model
from appliance.history import open_readonly
from appliance.messages import Drift
from appliance.monitor.drift import LEAST, DriftMonitor
from appliance.wire import LOOKED_AT, FrameNote
from calibration.errors import InputError
from calibration.values import BINS

References = Mapping[str, Sequence[int]]
"""Histograms by the name of what is watched."""


class DriftWatch:
    """The monitors.

    Attributes:
        predictions: of the defect probability, which the line feeds.
        accepted: references that a person has accepted, by name; the bundle's own are not among them.
    """

    def __init__(self, model: Model, cameras: Iterable[str], section: DriftSection, accepted: References) -> None:
        self._actions = _actions(model)
        looks = model.bundle.manifest.appearance
        window, light = section.window, max(LEAST, section.window // LOOKED_AT)
        self.predictions = DriftMonitor(
            model.bundle.variant(model.variant).baseline.counts, window, section.false_alarm
        )
        self._light = {
            camera: (
                DriftMonitor(
                    looks.brightness.counts, light, section.false_alarm, Drift(quantity="brightness", camera=camera)
                ),
                DriftMonitor(
                    looks.sharpness.counts, light, section.false_alarm, Drift(quantity="sharpness", camera=camera)
                ),
            )
            for camera in cameras
        }
        self.accepted: References = {}
        self.accept(accepted)

    @property
    def light(self) -> tuple[Drift, ...]:
        """Last comparisons of the cameras' frames."""
        return tuple(monitor.last for pair in self._light.values() for monitor in pair)

    def prepare(self) -> None:
        """Simulate the limits now: a fraction of a second, so not for the middle of parts."""
        for monitor in self._monitors():
            monitor.prepare()

    def see(self, camera: str, frame: FrameNote) -> list[Drift]:
        """A frame of a camera; the comparisons that it completes."""
        if frame.looks is None:
            return []
        found = [monitor.add(bin_, frame.crc) for monitor, bin_ in zip(self._light[camera], frame.looks, strict=True)]
        return [comparison for comparison in found if comparison is not None]

    def windows(self) -> References:
        """What would be the references if the line, as it is, were accepted: the last whole windows, and what was
        accepted before of what has none yet. Equal to `accepted` where there is no window at all."""
        return {**self.accepted, **{monitor.last.name: monitor.whole for monitor in self._monitors() if monitor.whole}}

    def entries(self, counts: References) -> list[tuple[str, str, str]]:
        """What the audit says of accepting `counts`: actions with old and new, as `accepted_before` reads them."""
        told = []
        for action, watched in zip(self._actions, ([self.predictions], self._monitors()[1:]), strict=True):
            names = [monitor.last.name for monitor in watched]
            old, new = (
                json.dumps({name: list(each[name]) for name in names if name in each}, separators=(",", ":"))
                for each in (self.accepted, counts)
            )
            if old != new:
                told.append((action, old, new))
        return told

    def accept(self, counts: References) -> None:
        """A person says that the line was well when these were counted. What is not watched here is left out."""
        known = {monitor.last.name: monitor for monitor in self._monitors()}
        self.accepted = {name: tuple(row) for name, row in counts.items() if name in known}
        for name, row in self.accepted.items():
            known[name].accept(row)

    def _monitors(self) -> list[DriftMonitor]:
        return [self.predictions, *(monitor for pair in self._light.values() for monitor in pair)]


def accepted_before(database: Path, model: Model) -> References:
    """What a person has accepted last, from the audit: the counts stand there, so that they can be neither lost with
    old rows nor changed unseen. Through a connection of its own, since a thread may ask.

    Empty where nothing was accepted, and where the database does not answer or the entry is damaged: those are dealt
    with where rows are written and by `audit verify`; here drift is measured from the bundle then.
    """
    found: dict[str, tuple[int, ...]] = {}
    try:
        with open_readonly(database) as connection:
            for action in _actions(model):
                query = "SELECT new FROM audit WHERE action = ? ORDER BY id DESC LIMIT 1"
                row = connection.execute(query, (action,)).fetchone()
                found |= {name: tuple(map(int, counts)) for name, counts in json.loads(row[0] if row else "{}").items()}
    except (InputError, sqlite3.Error, ValueError, TypeError, AttributeError):
        return {}
    return {name: row for name, row in found.items() if len(row) == BINS and min(row) >= 0 and max(row) > 0}


def _actions(model: Model) -> tuple[str, str]:
    """What the audit calls the acceptance of predictions and of light: these are a model's and a preprocessing's, so
    that the light which was accepted stays so with the next bundle."""
    spec = model.bundle.manifest.preprocess.sha256
    return f"drift reference {model.bundle.sha256} {model.variant}", f"drift reference {spec}"
