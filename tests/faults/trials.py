"""The situations in which an appliance with one broken promise betrays itself, each made for certain.

A trial does not hope for its situation: it looks into journal and database whether the line was in it, and tries again
until it was. An honest appliance goes through all of them and must be found good; a mutant goes through the one in
which its promise counts, and must be found by the very count that belongs to that promise.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.simulator.checks import COUNTS, Findings, check
from tests.faults.simulator.line import Line, LineError
from tests.faults.simulator.plan import GOOD
from tests.faults.simulator.settings import Settings
from tests.faults.simulator.world import DiskOrder, EngineOrder, Kind, Word

TIME_S = 120.0
"""A situation must be met within this time; on an idle machine each takes one to three seconds."""

WAIT_S = 60.0
FPS = 120.0
JUDGED = ("", "DEFECT", "UNSURE")

Situation = Callable[[Line], None]


@dataclass(frozen=True)
class Trial:
    """What became of one. found: counts and sentences of the checks. trouble: why it could not be held; then what was
    found says nothing. caught: whether the count that belongs to the mutant is among what was found."""

    found: str
    trouble: str
    caught: bool


def trial(mutant: str, seed: int) -> Trial:
    """One line through the mutant's situation; through all of them where no mutant is planted."""
    case = CASES.get(mutant)
    situations = [case.situation] if case else [each.situation for each in CASES.values()]
    with tempfile.TemporaryDirectory(prefix="lineguard-mutant-") as name:
        settings = Settings(name, seed, case.fps if case else FPS, rates={}, mutant=mutant)
        with Line(Path(name), settings) as line:
            try:
                line.start(WAIT_S)
                for situation in situations:
                    situation(line)
                line.passes(5, WAIT_S)
                line.stop()
            except AssertionError as error:
                return Trial("", str(error), False)
            found = check(line)
            return Trial(_said(found), "", bool(case and getattr(found, case.betrayed_by)))


def _said(found: Findings) -> str:
    """The findings in a few words."""
    counts = [f"{name} {getattr(found, name)}" for name in (*COUNTS, "unconfirmed") if getattr(found, name)]
    return "; ".join([*counts, *found.broken])


def _met(line: Line, try_it: Callable[[Line], bool]) -> None:
    """Try until it says that the situation was met, each time from a line that is well. Raises LineError."""
    end = time.monotonic() + TIME_S
    while True:
        line.passes(2, WAIT_S)
        if try_it(line):
            return
        if time.monotonic() > end:
            raise LineError(f"{try_it.__qualname__}: the situation was not met within {TIME_S:g} s")


def _synced(line: Line) -> None:
    """Rows become durable and their parts pass."""
    line.passes(20, WAIT_S)


def _shows(kind: Kind, *reasons: str) -> Situation:
    """A part with this done to its picture comes to the very test that it must not pass: its row has one of these
    reasons where that test stands, or tells of a PASS where it does not. Three times over."""

    def once(line: Line) -> bool:
        number = line.shot(kind, WAIT_S)
        (row,) = line.until_rows("SELECT reason FROM verdict WHERE trigger = ?", number, timeout_s=WAIT_S)
        return row[0] in ("", *reasons)

    def situation(line: Line) -> None:
        for _ in range(3):
            _met(line, once)

    return situation


def _dead(line: Line) -> None:
    """A black picture, of which no other was seen before."""

    def once(line: Line) -> bool:
        number = line.shot(Kind.BLACK, WAIT_S)
        (row,) = line.until_rows("SELECT reason FROM verdict WHERE trigger = ?", number, timeout_s=WAIT_S)
        return row[0] in ("BAD_IMAGE", *JUDGED)

    _met(line, once)


def _unwritten(line: Line) -> None:
    """The disk fails while parts that could pass have their rows under way."""

    def once(line: Line) -> bool:
        first = line.world.parts
        line.world.set(Word.DISK, DiskOrder.ERROR)
        line.run_parts(20, WAIT_S)
        line.world.set(Word.DISK, DiskOrder.NONE)
        line.passes(2, WAIT_S)  # after rows that tell of what was withheld
        return bool(line.rows("SELECT 1 FROM verdict WHERE trigger >= ? AND reason = 'LOG'", first))

    for _ in range(3):
        _met(line, once)


def _senseless(line: Line) -> None:
    """The engine's scores are no numbers, and in time."""

    def once(line: Line) -> bool:
        first = line.world.parts - 100
        line.order_engine(EngineOrder.NAN, WAIT_S)
        line.passes(2, WAIT_S)
        spoiled = line.world.spoiled()
        rows = line.rows("SELECT trigger, reason FROM verdict WHERE trigger >= ?", first)
        return any(trigger in spoiled and reason in ("", "ENGINE") for trigger, reason in rows)

    _met(line, once)


def _together(line: Line) -> None:
    """A scratched part is judged in one batch with the good one behind it."""

    def once(line: Line) -> bool:
        first = line.world.parts
        line.pause(0.15)  # what is triggered meanwhile is read at once, and fills the batches
        line.run_parts(40, WAIT_S)
        line.passes(2, WAIT_S)
        query = "SELECT trigger, reason, batch, position FROM verdict WHERE trigger >= ? ORDER BY seq"
        return any(_mixed(line, batch) for batch in _batches(line.rows(query, first)))

    _met(line, once)


def _batches(rows: list[tuple[Any, ...]]) -> list[list[tuple[Any, ...]]]:
    """Rows (trigger, reason, batch, position) in order of their number, by batches that are whole."""
    return [
        rows[start : start + size]
        for start, (_, _, size, position) in enumerate(rows)
        if position == 0 and [row[3] for row in rows[start : start + size]] == list(range(size))
    ]


def _mixed(line: Line, batch: list[tuple[Any, ...]]) -> bool:
    good = [line.world.event(trigger).part < GOOD for trigger, *_ in batch]
    judged = all(reason in JUDGED for _, reason, *_ in batch)
    return judged and any(not here and there for here, there in zip(good, [*good[1:], good[0]], strict=True))


def _in_hand(line: Line) -> None:
    """The engine dies with parts in hand."""
    _met(line, lambda line: line.order_engine(EngineOrder.KILL, WAIT_S) is None)


def _unseen_by_engine(line: Line) -> None:
    """The picture of a part never comes, and the line goes on without a restart until the end."""
    line.passes(2, WAIT_S)
    line.run_parts(line.shot(Kind.NO_FRAME, WAIT_S) + 30 - line.world.parts, WAIT_S)


def _orphaned(line: Line) -> None:
    """The supervisor dies while parts are with the engine, and a later part has its row already."""

    def once(line: Line) -> bool:
        line.order_engine(EngineOrder.HANG, WAIT_S)
        number = line.shot(Kind.NO_FRAME, WAIT_S)
        line.until_rows("SELECT 1 FROM verdict WHERE trigger = ?", number, timeout_s=WAIT_S)
        line.kill()
        found = {trigger for (trigger,) in line.rows("SELECT trigger FROM verdict")}
        line.start(WAIT_S)
        return any(trigger not in found for trigger in range(min(found), number))

    _met(line, once)


@dataclass(frozen=True)
class Case:
    """The situation for a mutant, and the count of Findings that tells of it there. fps: of the line."""

    situation: Situation
    betrayed_by: str
    fps: float = FPS


CASES = {
    "synchronous OFF": Case(_synced, "too_early"),
    "missing checksum test": Case(_shows(Kind.OVERWRITTEN, "CHECKSUM"), "wrong_pass"),
    # so slow that the parts behind a late one find free slots: without, they hold the line before it is judged
    "late PASS allowed": Case(_shows(Kind.LATE, "LATE"), "wrong_pass", fps=20.0),
    "stale frame reused": Case(_shows(Kind.FROZEN, "FROZEN"), "wrong_pass"),
    "dead frame judged": Case(_dead, "judged_bad"),
    "PASS before its row": Case(_unwritten, "lost_rows"),
    "NaN is OK": Case(_senseless, "wrong_pass"),
    "neighbour's verdict": Case(_together, "wrong_pass"),
    "batch of a dead engine forgotten": Case(_in_hand, "no_row"),
    "unfinished parts not asked for": Case(_orphaned, "no_row"),
    "trigger without a frame dropped": Case(_unseen_by_engine, "no_row"),
}
"""By mutant; in this order an honest appliance goes through all of them."""
