"""One short run through the faults that tell an honest appliance from a mutant."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.simulator.checks import Findings, check
from tests.faults.simulator.line import Line
from tests.faults.simulator.settings import Settings
from tests.faults.simulator.world import DiskOrder, EngineOrder, Kind, Word

RATES = {
    Kind.BLACK: 40,
    Kind.FROZEN: 30,
    Kind.OLD: 30,
    Kind.LATE: 12,
    Kind.FLIPPED: 20,
    Kind.OVERWRITTEN: 30,
    Kind.UNSEEN: 20,
}


def trial(mutant: str, seed: int) -> str:
    """What the checks find where a mutant is planted; empty where they find nothing."""
    return _tried(mutant, seed, _course)


def short_trial(mutant: str, seed: int) -> str:
    """The same, without restarts: enough for mutants that let bad frames or early PASSes through."""
    return _tried(mutant, seed, _short_course)


def _tried(mutant: str, seed: int, course: Callable[[Line], None]) -> str:
    with tempfile.TemporaryDirectory(prefix="lineguard-mutant-") as name:
        rates = {int(kind): rate for kind, rate in RATES.items()}
        with Line(Path(name), Settings(name, seed, fps=120.0, rates=rates, mutant=mutant)) as line:
            trouble = ""
            try:
                course(line)
            except AssertionError as error:
                trouble = str(error)
                line.abandon()
            found = check(line)
            return _said(found) or trouble


def _short_course(line: Line) -> None:
    line.start()
    _bad_parts(line)
    line.passes(60)
    line.stop()


def _bad_parts(line: Line) -> None:
    # one in eight shows a scratched part, which no mutant passes; what a model makes of a black one is chance
    for kind, times, apart in ((Kind.LATE, 4, 15), (Kind.BLACK, 12, 6)):
        for _ in range(times):
            line.world.set(Word.FRAME, kind)
            line.run_parts(apart)


def _course(line: Line) -> None:
    line.start()
    _bad_parts(line)
    line.run_parts(40)
    line.world.set(Word.DISK, DiskOrder.ERROR)
    time.sleep(0.25)
    line.world.set(Word.DISK, DiskOrder.NONE)
    line.run_parts(50)
    for parts in (12, 20, 28, 40):  # it dies while an engine holds parts and later ones have their rows
        line.world.set(Word.ENGINE, EngineOrder.HANG)
        line.run_parts(parts)
        line.kill()
        line.unseen(3)
        line.start()
        line.passes(5)
    for _ in range(5):
        line.world.set(Word.ENGINE, EngineOrder.NAN)
        line.run_parts(6)
        line.passes(2)
    line.world.set(Word.ENGINE, EngineOrder.KILL)
    line.run_parts(60)
    line.passes(5)
    line.stop()


def _said(found: Findings) -> str:
    """The findings in a few words."""
    names = ("wrong_pass", "lost_rows", "no_row", "two_rows", "strange_rows", "too_early", "unconfirmed")
    counts = [f"{name} {getattr(found, name)}" for name in names if getattr(found, name)]
    return "; ".join([*counts, *found.broken])
