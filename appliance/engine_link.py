"""The supervisor's side of the engine process: loading, proving on goldens, batches in flight, restarts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from appliance.batcher import Part
from appliance.channels import WorkerChannel
from appliance.engines.protocol import WHOLE_BATCHES
from appliance.ring import Ring, checksum
from appliance.selftest import golden_batches, golden_problem
from appliance.sizing import AHEAD, Trials, rest_ns
from appliance.wire import (
    END,
    HELLO,
    LOAD,
    READY,
    SCORES,
    STOP,
    ScoreNote,
    WireError,
    pack_batch,
    pack_trim,
    unpack_json,
)
from appliance.workers import RestartLimit, Worker
from calibration.decision import DecisionRule
from deploy.bundle import Bundle, GoldenFrame, GoldenScores

START_NS = 60 * 10**9
"""Longest time for starting, loading and proving."""

TRIALS_NS = 250_000_000
"""Time for each comparison of two batch sizes, and for the trials of each number of lanes."""


class EnginePhase(str, Enum):
    """DOWN: no process. TIMING: proven, and being timed. REFUSED: the goldens failed; starting again would not help."""

    DOWN = "DOWN"
    LOADING = "LOADING"
    PROVING = "PROVING"
    TIMING = "TIMING"
    SERVING = "SERVING"
    REFUSED = "REFUSED"


@dataclass(frozen=True)
class Model:
    """What is judged with: one variant of a verified bundle, held in memory so that no restart reads a file again."""

    bundle: Bundle
    variant: str

    @property
    def rule(self) -> DecisionRule:
        """The variant's decision rule."""
        return self.bundle.variant(self.variant).rule


class EngineLink:
    """The engine.

    Attributes:
        name: what it says it is, once loaded.
        phase: see EnginePhase.
        trouble: why it is down or refused; empty in good health.
        looping: restarted too often.
        size, lanes: parts a batch and batches at once that paid best when it was first timed; the most before.
        part_ns: time for one part with both; 0 before.
    """

    def __init__(
        self,
        model: Model,
        goldens: Sequence[GoldenFrame],
        settings: dict[str, Any],
        timeout_s: float,
        ring: Ring,
        first: int,
        channel: WorkerChannel,
    ) -> None:
        """Preprocess the goldens into the ring from slot `first` on, where they stay; their frames are not kept.

        `settings`: for its process; a batch has at most `batch` parts, and at most `lanes` are judged at once.

        Raises:
            GeometryError: the bundle's own goldens are not what its preprocessing takes.
        """
        self._model, self._rule, self._ring = model, model.rule, ring
        self._goldens = [GoldenScores(golden.name, golden.logits) for golden in goldens]
        self._settings, self._timeout_ns, self._first, self._channel = settings, int(timeout_s * 1e9), first, channel
        self.size, self.lanes = int(settings["batch"]), int(settings["lanes"])
        self._whole = settings["engine"]["kind"] in WHOLE_BATCHES
        self._plan = golden_batches(len(goldens), self.size)
        self._trials: Trials | None = None
        self._timed: list[ScoreNote] = []
        spec = model.bundle.manifest.preprocess
        self._crcs = [checksum(spec.apply(golden.frame, out=ring.slot(first + i))) for i, golden in enumerate(goldens)]
        self._worker: Worker | None = None
        self._limit = RestartLimit()
        self._generation = 0
        self._number = 0
        self._proven = 0
        self._since_ns = 0
        self._flying: dict[int, tuple[Sequence[Part], int]] = {}
        self._challenge: tuple[int, list[int]] | None = None
        self._challenges = 0
        self._answer: str | None = None
        self.phase = EnginePhase.DOWN
        self.name = ""
        self.trouble = ""
        self.looping = False
        self.part_ns = 0.0

    def pace_like(self, other: EngineLink) -> None:
        """Take batches and lanes over from the engine that judges now: timing this one would slow that one down."""
        self._pace(min(self.size, other.size), min(self.lanes, other.lanes), other.part_ns)
        self._trials = Trials(self.size, self.lanes, 0)

    def _pace(self, size: int, lanes: int, part_ns: float) -> None:
        """What parts will be judged with, and so goldens from here on: a larger batch would only cost memory."""
        self.size, self.lanes, self.part_ns = size, lanes, part_ns
        self._settings = {**self._settings, "batch": size}
        self._plan = golden_batches(len(self._goldens), size)

    def revive(self, now_ns: int) -> None:
        """An operator has repaired what was at fault: start and prove it as if it had never failed."""
        self.looping, self._limit, self.phase = False, RestartLimit(), EnginePhase.DOWN
        self.start(now_ns, alone=True)

    @property
    def worker(self) -> Worker | None:
        """Its process, if one runs."""
        return self._worker

    def start(self, now_ns: int, alone: bool) -> None:
        """Start a process, counting it as one more start. `alone`: no other judges meanwhile."""
        if not self._limit.allows(now_ns):
            self.looping = True
            return
        self._generation += 1
        identity = f"engine-{self._ring.first}-{self._generation}"
        settings = {**self._settings, "alone": alone}
        self._worker = Worker("engine", identity, self._channel.endpoint, settings, self._ring.descriptor)
        self._channel.watch(self._worker, self)
        self.phase, self._since_ns, self._proven = EnginePhase.LOADING, now_ns, 0

    @property
    def has_room(self) -> bool:
        """Whether it may be sent another batch."""
        return self.phase is EnginePhase.SERVING and len(self._flying) < self.lanes * (1 + AHEAD)

    @property
    def rest_ns(self) -> int:
        """For so long it needs nothing from us; 0 where it has room for another batch."""
        if self.phase is not EnginePhase.SERVING or self.has_room:
            return 0
        least = min(len(parts) for parts, _ in self._flying.values())
        return rest_ns(self.part_ns, self.lanes, least)

    @property
    def waits(self) -> bool:
        """Whether it would start on a batch at once."""
        return self.phase is EnginePhase.SERVING and len(self._flying) < self.lanes

    @property
    def idle(self) -> bool:
        """Whether no part is with it."""
        return not self._flying

    def send(self, parts: Sequence[Part], now_ns: int) -> None:
        """Send one batch; it ends in `message` or in `lost`."""
        self._number += 1
        self._flying[self._number] = (parts, now_ns)
        self._submit(self._number, [part.slot for part in parts], [part.crc for part in parts])

    def challenge(self, now_ns: int) -> None:
        """Ask it about known frames: the next batch of goldens goes to it as parts do, whatever it is at."""
        self._number += 1
        batch = self._plan[self._challenges % len(self._plan)]
        self._challenges += 1
        self._challenge, self._answer = (self._number, batch), None
        self._flying[self._number] = ((), now_ns)
        self._submit(self._number, *self._lying(batch))

    @property
    def challenged(self) -> bool:
        """Whether it owes an answer."""
        return self._challenge is not None

    def challenge_answer(self) -> str | None:
        """What was wrong with its last answer, "" where it was right; once. None while there is none."""
        answer, self._answer = self._answer, None
        return answer

    def message(self, data: bytes) -> tuple[Sequence[Part], ScoreNote] | None:
        """Take one message of its process; a judged batch of parts, if it is one. Raises WireError."""
        kind = data[:1]
        if kind == SCORES:
            scores = ScoreNote.unpack(data, len(self._rule.classes))
            if self.phase is EnginePhase.PROVING:
                self._prove(scores)
                return None
            if self.phase is EnginePhase.TIMING:
                self._time(scores)
                return None
            parts, _ = self._flying.pop(scores.number, ((), 0))
            if self._challenge is not None and scores.number == self._challenge[0]:
                self._answer, self._challenge = self._problem(self._challenge[1], scores), None
                return None
            if len(parts) != len(scores.whole):
                raise WireError(f"scores of {len(scores.whole)} parts for batch {scores.number}")
            return parts, scores
        if kind == HELLO:
            assert self._worker is not None  # noqa: S101  a watched process has said this
            self._channel.send(self._worker.identity, LOAD + self._model.bundle.model(self._model.variant))
        elif kind == READY:
            self.name = str(unpack_json(data))[:200]
            self.phase = EnginePhase.PROVING
            self._submit_goldens()
        elif kind == END:
            self.trouble = str(unpack_json(data))[:300] if len(data) > 1 else ""
        else:
            raise WireError(f"a message of kind {kind!r}")
        return None

    def gone(self, now_ns: int) -> None:
        """Its process has ended: told by the kernel."""
        if self.phase is not EnginePhase.REFUSED:
            self.trouble = self.trouble or "the engine process died"
            self.phase = EnginePhase.DOWN

    def hangs(self, now_ns: int) -> bool:
        """Whether it has been busy for longer than it may."""
        if self.phase in (EnginePhase.LOADING, EnginePhase.PROVING, EnginePhase.TIMING):
            return now_ns > self._since_ns + START_NS
        oldest = next(iter(self._flying.values()), None)
        return oldest is not None and now_ns > oldest[1] + self._timeout_ns

    def lose(self, why: str) -> list[Part]:
        """Kill it; the parts that were with it, none of which it will ever judge."""
        self.trouble = why or self.trouble
        lost = [part for parts, _ in self._flying.values() for part in parts]
        self._flying.clear()
        self._challenge = None
        if self._worker is not None:
            self._worker.kill()
            self._channel.unwatch(self._worker)
            self._worker = None
        if self.phase is not EnginePhase.REFUSED:
            self.phase = EnginePhase.DOWN
        return lost

    def stop(self) -> None:
        """Ask it to end."""
        if self._worker is not None:
            self._channel.send(self._worker.identity, STOP)

    def close(self, timeout_s: float) -> list[Part]:
        """Wait for its end; the parts that were still with it."""
        if self._worker is not None:
            self._worker.end(0.0 if self.phase is EnginePhase.LOADING else timeout_s)
        return self.lose("")

    def _submit(self, number: int, slots: Sequence[int], crcs: Sequence[int]) -> None:
        assert self._worker is not None  # noqa: S101  only a serving or proving engine is sent batches
        self._channel.send(self._worker.identity, pack_batch(number, slots, crcs))

    def _submit_goldens(self) -> None:
        self._submit(0, *self._lying(self._plan[self._proven]))

    def _lying(self, batch: Sequence[int]) -> tuple[list[int], list[int]]:
        """Slots and checksums of goldens."""
        return [self._first + index for index in batch], [self._crcs[index] for index in batch]

    def _problem(self, batch: Sequence[int], scores: ScoreNote) -> str:
        """What is wrong with the scores of a batch of goldens; "" if nothing."""
        if not scores.whole.all():
            return "a golden changed in memory"
        return golden_problem(self._rule, self._goldens, self._model.variant, batch, scores.logits)

    def _prove(self, scores: ScoreNote) -> None:
        problem = self._problem(self._plan[self._proven], scores)
        if problem:
            self.phase, self.trouble = EnginePhase.REFUSED, problem
            return
        self._proven += 1
        if self._proven < len(self._plan):
            self._submit_goldens()
        elif self._trials is not None:  # a restart: its size and lanes are known
            self.phase, self.trouble = EnginePhase.SERVING, ""
        else:
            self._trials = Trials(self.size, self.lanes, TRIALS_NS, self.size if self._whole else 2)
            self.phase = EnginePhase.TIMING
            self._submit_trial()

    def _submit_trial(self) -> None:
        assert self._trials is not None  # noqa: S101  made before the first of them
        trial = self._trials.next
        if trial is None:
            self._pace(self._trials.size, self._trials.lanes, self._trials.part_ns)
            assert self._worker is not None  # noqa: S101  it was timed
            self._channel.send(self._worker.identity, pack_trim(self.size))
            self.phase, self.trouble = EnginePhase.SERVING, ""
            return
        self._timed = []
        batch = [index % len(self._goldens) for index in range(trial.size)]
        for _ in range(trial.lanes):
            self._submit(0, *self._lying(batch))

    def _time(self, scores: ScoreNote) -> None:
        assert self._trials is not None  # noqa: S101  it was submitted
        self._timed.append(scores)
        trial = self._trials.next
        if trial is not None and len(self._timed) == trial.lanes:
            ended = max(each.ended_ns for each in self._timed)
            self._trials.took(ended - min(each.started_ns for each in self._timed))
            self._submit_trial()
