"""Mutants: one promise broken each. The campaign must find every one of them.

A mutant is planted in all three kinds of process; each function says what it does in which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

Plant = Callable[[str], None]
"""Called with "daemon", "camera" or "engine", in that process, before it begins."""


def nothing(_: str) -> None:
    """No mutant."""


def synchronous_off(process: str) -> None:
    """The database says that a row is durable before it is."""
    if process == "daemon":
        from appliance import store

        store.PRAGMAS = tuple(pragma.replace("= FULL", "= OFF") for pragma in store.PRAGMAS)


def no_checksum(process: str) -> None:
    """The engine takes every tensor for whole."""
    if process == "engine":
        from appliance import judging

        class Anything(int):
            """Equal to every checksum."""

            def __eq__(self, other: object) -> bool:
                return True

            __hash__ = int.__hash__

        judging.checksum = lambda tensor: Anything(0)


def late_pass(process: str) -> None:
    """Every part is taken to have been triggered a minute later than it was."""
    if process == "daemon":
        from appliance.wire import FrameNote

        unpack = FrameNote.unpack

        def later(data: bytes) -> FrameNote:
            note = unpack(data)
            return note._replace(triggered_ns=note.triggered_ns + 60 * 10**9)

        FrameNote.unpack = later  # type: ignore[method-assign,assignment]


def stale_frame(process: str) -> None:
    """The camera process does not look whether it has seen a picture before."""
    if process == "camera":
        from tests.faults.simulator.camera import SimulatedCamera

        SimulatedCamera.live = False


def dead_frame(process: str) -> None:
    """A black picture is as good as any; and so is one without contrast."""
    if process == "camera":
        from appliance import camera

        camera.is_dead = lambda frame: False


def pass_before_row(process: str) -> None:
    """The PASS leaves first, the row follows some time later."""
    if process == "daemon":
        from appliance import ledger
        from appliance.ledger import Ledger

        queue = Ledger._queue

        def eager(self: Ledger, row: Any, *arguments: Any) -> None:
            """Let it pass at once."""
            queue(self, row, *arguments)
            token = self._tokens.get(row.seq)
            if token is not None:
                self._output.release([token], ledger.time.monotonic_ns())

        Ledger._queue = eager  # type: ignore[method-assign]


def unsure_passes(process: str) -> None:
    """A score that is no number counts as OK, as argmax would have it."""
    if process == "daemon":
        from appliance import line

        real = line.judge

        def trusting(rule: Any, scores: Any, *arguments: Any) -> Any:
            import numpy as np

            logits = np.nan_to_num(scores.logits, nan=0.0, posinf=0.0)
            bad = ~np.isfinite(scores.logits).all(axis=1)
            logits[bad] = [9.0, -9.0]
            return real(rule, replace(scores, logits=logits), *arguments)

        line.judge = trusting


def neighbours_verdict(process: str) -> None:
    """Verdicts are shifted by one within a batch."""
    if process == "daemon":
        from appliance import line

        real = line.judge

        def shifted(*arguments: Any) -> Sequence[Any]:
            judgements = real(*arguments)
            return [*judgements[1:], *judgements[:1]]

        line.judge = shifted


def forgotten_batch(process: str) -> None:
    """The parts that were with an engine that died are forgotten."""
    if process == "daemon":
        from appliance.engine_link import EngineLink

        lose = EngineLink.lose

        def forgetful(self: EngineLink, why: str) -> list[Any]:
            lose(self, why)
            return []

        EngineLink.lose = forgetful  # type: ignore[method-assign]


def silent_miss(process: str) -> None:
    """A trigger without a usable frame gets no row: the trigger is dropped with a shrug."""
    if process == "daemon":
        from appliance.line import Line

        Line.missed = lambda *_: None  # type: ignore[method-assign,assignment]


def uncounted(process: str) -> None:
    """Parts that passed while the station was down are not asked for."""
    if process == "daemon":
        from appliance.camera_link import CameraLink

        CameraLink.take_unfinished = lambda self: ()  # type: ignore[method-assign]


PLANTED: dict[str, Plant] = {
    "": nothing,
    "synchronous OFF": synchronous_off,
    "missing checksum test": no_checksum,
    "late PASS allowed": late_pass,
    "stale frame reused": stale_frame,
    "dead frame judged": dead_frame,
    "PASS before its row": pass_before_row,
    "NaN is OK": unsure_passes,
    "neighbour's verdict": neighbours_verdict,
    "batch of a dead engine forgotten": forgotten_batch,
    "trigger without a frame dropped": silent_miss,
    "unfinished parts not asked for": uncounted,
}
"""Mutants by name."""
