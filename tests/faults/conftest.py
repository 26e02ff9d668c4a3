"""One running line for all named faults of a module: each leaves it well, and all promises are kept at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.simulator.checks import check
from tests.faults.simulator.line import Line
from tests.faults.simulator.settings import Settings
from tests.faults.simulator.world import Kind

FPS = 80.0
DEADLINE_MS = 600.0
WAIT_S = 60.0


class Asked:
    """A line that is asked for one fault at a time."""

    def __init__(self, line: Line) -> None:
        self.line = line

    def shot(self, kind: Kind) -> int:
        """Let this happen to the picture of the next part; the part's number."""
        return self.line.shot(kind, WAIT_S)

    def row(self, number: int) -> tuple[str, str]:
        """(verdict, reason) of a part, as soon as it is on disk."""
        return self.until_rows("SELECT verdict, reason FROM verdict WHERE trigger = ?", number)[0]  # type: ignore[return-value]

    def reasons_from(self, first: int) -> set[str]:
        """Reasons of all rows from a part on; "" is a PASS."""
        return {reason for (reason,) in self.rows("SELECT DISTINCT reason FROM verdict WHERE trigger >= ?", first)}

    def until_rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query, once there are some."""
        return self.line.until_rows(query, *values, timeout_s=WAIT_S)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query now."""
        return self.line.rows(query, *values)

    def alerts(self, kind: str) -> int:
        """How many of a kind there are."""
        return int(self.rows("SELECT count(*) FROM alert WHERE kind = ?", kind)[0][0])

    def wait(self, good: Callable[[], bool], what: str) -> None:
        """Until it is so."""
        self.line.until(good, WAIT_S, what)

    def accepted(self, number: int) -> bool:
        """Whether the PLC took a PASS for a part."""
        return any(passed.tag == number for passed in self.line.plc.accepted())


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """A line without random faults; all invariants are checked when its module is done."""
    directory: Path = tmp_path_factory.mktemp("line")
    settings = Settings(str(directory), fps=FPS, deadline_ms=DEADLINE_MS, rates={})
    with Line(directory, settings) as line:
        line.start()
        line.passes(5, WAIT_S)
        yield Asked(line)
        if line.process is None:
            line.start()
        time.sleep(0.1)
        assert line.stop() in (0, 1)  # 1: it was in FAULT
        found = check(line)
        assert found.good, found
