"""One bundle at its post: its memory, its engine, its parts that wait, its rule and its drift monitors.

Two bundles may be at their posts at once, while one takes over from the other. A part belongs to the post in whose
memory its frame lies, and to no other: so nothing preprocessed for one bundle is ever judged by another.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.batcher import Batcher, Part
from appliance.channels import WorkerChannel
from appliance.config import Station, engine_settings
from appliance.engine_link import EngineLink, Model
from appliance.engines.protocol import WHOLE_BATCHES
from appliance.ledger import Ledger
from appliance.line import Line
from appliance.messages import Drift, Reason
from appliance.monitor.drift_watch import Accepted, DriftWatch
from appliance.prediction_cache import Known, PredictionCache
from appliance.ring import Ring
from appliance.sizing import WINDOW_BYTES, fitting_batch, most_lanes, timely, window
from appliance.sources.settings import ReplayCamera
from appliance.wire import ScoreNote


@dataclass(frozen=True)
class Ears:
    """Who is told of a part's row (and with it, that its slot is free), of its reason, and of a drift comparison."""

    release: Callable[[Part, int, Reason], None]
    seen: Callable[[str, str, Reason], None]
    drifted: Callable[[Drift], None]


class Post:
    """A bundle at its post.

    Attributes:
        station: with its batch no larger than the bundle takes.
        model, ring, engine, batcher, cache, drift, line: its own.
        slots: of each camera, in the ring.
    """

    def __init__(
        self,
        station: Station,
        model: Model,
        channel: WorkerChannel,
        ledger: Ledger,
        ears: Ears,
        first: int,
        accepted: Accepted,
    ) -> None:
        """Make the memory, slots from number `first` on, with the goldens in it. Starts no process, so that a thread
        may do it. `accepted`: see DriftWatch.

        Raises:
            InputError: too little memory. GeometryError: the goldens are not what the bundle's preprocessing takes.
        """
        self.station, self.model = station, model
        size, self._spec = station.batch.size, model.bundle.manifest.preprocess
        goldens, lanes = model.bundle.goldens(), most_lanes(station.engine.threads, len(os.sched_getaffinity(0)))
        self._most = WINDOW_BYTES // math.prod(self._spec.shape)
        windows = [window(camera.pace, size, lanes, self._most) for camera in station.camera.values()]
        self.ring = Ring.create(sum(windows) + len(goldens), self._spec.shape, first)
        self.slots: dict[str, range] = {}
        for name, count in zip(station.camera, windows, strict=True):
            self.slots[name] = range(first, first + count)
            first += count
        settings = {
            **self.settings(),
            "engine": engine_settings(station),
            "batch": size,
            "lanes": lanes,
        }
        try:
            self.engine = EngineLink(model, goldens, settings, station.engine.timeout_s, self.ring, first, channel)
        except BaseException:
            self.ring.close()
            raise
        self._whole = station.engine.kind in WHOLE_BATCHES
        self.batcher = Batcher(size, int(station.batch.wait_ms * 1e6), self._whole)
        self.cache = PredictionCache(station.cache.mib * 2**20)
        replayed = {name for name, camera in station.camera.items() if isinstance(camera, ReplayCamera)}
        self._remembered = replayed if station.cache.mib else set[str]()
        self.drift = DriftWatch(model, station.camera, station.drift, accepted)
        self.line = Line(model.rule, ledger, self.drift.predictions, ears.release, ears.drifted, ears.seen, self.sha256)

    def known(self, part: Part) -> Known | None:
        """What is known of the part's frame, where its camera replays recorded ones and this very frame was judged."""
        return self.cache.find(self.ring.slot(part.slot), part.crc) if part.camera in self._remembered else None

    def remember(self, parts: Sequence[Part], scores: ScoreNote) -> None:
        """Keep the scores of replayed frames, while these still lie in their slots."""
        for position, part in enumerate(parts):
            if part.camera in self._remembered and scores.whole[position]:
                known = Known(scores.logits[position], len(parts), position)
                self.cache.keep(self.ring.slot(part.slot), part.crc, known)

    @property
    def sha256(self) -> str:
        """Of its bundle."""
        return self.model.bundle.sha256

    @property
    def name(self) -> str:
        """Of its bundle, for people."""
        return self.model.bundle.manifest.name

    @property
    def idle(self) -> bool:
        """Whether no part is with it."""
        return not len(self.batcher) and self.engine.idle

    def settings(self) -> dict[str, Any]:
        """What its workers need to know of it."""
        return {
            "slots": self.ring.slots,
            "first": self.ring.first,
            "shape": list(self._spec.shape),
            "preprocess": self._spec.to_json(),
            "bundle": self.sha256,
        }

    def fit(self, deadline_ns: int) -> Mapping[str, range]:
        """Make batches as small as this machine's measured speed demands, so that waiting alone makes no part late.

        Returns:
            The slots that each camera may use.
        """
        cameras = self.station.camera
        unpaced = sum(camera.pace <= 0 for camera in cameras.values())
        engine = self.engine
        size = fitting_batch(engine.size, engine.part_ns, deadline_ns, unpaced, engine.lanes)
        if self._whole and size < engine.size:
            size = 1  # batches in between were not compiled, nor proven
        self.batcher.size = min(self.batcher.size, size)
        most = min(self._most, timely(engine.part_ns, deadline_ns, unpaced, size, engine.lanes))
        usable = window(0, size, engine.lanes, most)
        return {
            name: self.slots[name][:usable] if camera.pace <= 0 else self.slots[name]
            for name, camera in cameras.items()
        }

    def take_back(self, why: str) -> list[Part]:
        """End its engine; the parts that were with it or waited for it, none of which it will judge."""
        return [*self.engine.lose(why), *self.batcher.take_all()]

    def close(self, timeout_s: float) -> None:
        """End its engine, which `engine.stop` has asked to end, and give up its memory."""
        self.engine.close(timeout_s)
        self.ring.close()
