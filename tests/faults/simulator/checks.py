"""What must hold after any faults: the invariants, as one comparison of journal, database and PLC."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field

from appliance.audit import verify_chain
from deploy.record import open_active, read_state
from deploy.slots import SlotState
from tests.faults.simulator.line import Line
from tests.faults.simulator.plan import may_pass
from tests.faults.simulator.world import Kind, Word

COUNTS = ("wrong_pass", "lost_rows", "no_row", "two_rows", "strange_rows", "judged_bad", "too_early")
"""Counts of Findings that must be 0."""

JUDGEABLE = (Kind.CLEAN, Kind.LATE)
"""A late part's picture is its own, and may be judged: it must not pass."""


@dataclass
class Findings:
    """What was found. Everything but `parts`, `passed`, `unconfirmed` and `reasons` must be 0 or empty.

    Attributes:
        parts: that the line has counted. passed: PASSes that the PLC took.
        wrong_pass: of those: bad picture, late, unknown part, or taken twice (I2).
        lost_rows: of those: without a row that says PASS (I3).
        unconfirmed: of those: with a row REJECT(OUTPUT), since the PLC's answer did not arrive.
        no_row, two_rows: parts with another number of rows than one (I1). strange_rows: rows of parts never counted.
        judged_bad: parts with a decision of the model, though their picture was bad, of another part, or dead (I2).
        too_early: commits whose rows were not synced when their PASSes left.
        broken: sentences about the database, the bundle, the audit (I1, I4, I5).
        examples: of any of these.
    """

    parts: int = 0
    passed: int = 0
    wrong_pass: int = 0
    lost_rows: int = 0
    unconfirmed: int = 0
    no_row: int = 0
    two_rows: int = 0
    strange_rows: int = 0
    judged_bad: int = 0
    too_early: int = 0
    broken: list[str] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return not any(getattr(self, name) for name in COUNTS) and not self.broken

    def example(self, text: str) -> None:
        """Note one, if there are few."""
        if len(self.examples) < 8:
            self.examples.append(text)


Rows = dict[int, list[tuple[str, str]]]
"""(verdict, reason) of the rows of each part."""


def check(line: Line) -> Findings:
    """Compare. The daemon must not run, and must have seen the end of the line's count."""
    found = Findings(parts=line.world.parts, too_early=line.world.get(Word.DIRTY))
    rows = _rows(line, found)
    found.reasons = dict(Counter(reason for entries in rows.values() for _, reason in entries))
    for number in range(found.parts):
        entries = rows.get(number, [])
        if len(entries) != 1:
            found.no_row += not entries
            found.two_rows += bool(entries)
            found.example(f"part {number} ({line.world.event(number)}) has rows {entries}")
    strange = [number for number in rows if not 0 <= number < found.parts]
    found.strange_rows = len(strange)
    for number in strange:
        found.example(f"a row of part {number}, which the line has not counted")
    _passes(line, rows, found)
    _bundle(line, found)
    return found


def _rows(line: Line, found: Findings) -> Rows:
    rows: Rows = {}
    if not line.paths.database.exists():
        found.broken.append(f"no database was made; {line.last_words()}")
        return rows
    with closing(sqlite3.connect(line.paths.database)) as connection:
        whole = connection.execute("PRAGMA integrity_check").fetchone()[0]
        if whole != "ok":
            found.broken.append(f"integrity_check: {whole}")
        spoiled = line.world.spoiled()
        query = "SELECT trigger, verdict, reason, decision FROM verdict"
        for trigger, verdict, reason, decision in connection.execute(query):
            rows.setdefault(trigger, []).append((verdict, reason))
            known = 0 <= trigger < found.parts
            if decision is not None and known and line.world.event(trigger).kind not in JUDGEABLE:
                found.judged_bad += 1
                found.example(f"part {trigger} ({line.world.event(trigger)}) was judged {decision}")
            if verdict == "PASS" and trigger in spoiled:
                found.wrong_pass += 1
                found.example(f"part {trigger}: the engine gave no judgement")
        counted = connection.execute("SELECT coalesce(sum(parts), 0) FROM tally").fetchone()[0]
        if counted != sum(map(len, rows.values())):
            found.broken.append(f"the tally counts {counted} parts")
        found.broken += [f"audit: {problem}" for problem in verify_chain(connection)]
        leaks = "SELECT count(*) FROM alert WHERE message LIKE '%Traceback%' OR message LIKE '%File \"%'"
        if connection.execute(leaks).fetchone()[0]:
            found.broken.append("an alert tells of the program's inside")
    return rows


def _passes(line: Line, rows: Rows, found: Findings) -> None:
    accepted = line.plc.accepted()
    deadline_ns = int(line.settings.deadline_ms * 1e6)
    found.passed = len(accepted)
    found.wrong_pass += line.plc.relay.twice
    times = Counter(passed.tag for passed in accepted)
    for passed in accepted:
        event = line.world.event(passed.tag) if 0 <= passed.tag < found.parts else None
        late = event is not None and passed.at_ns >= event.at_ns + deadline_ns
        if event is None or late or not may_pass(event.kind, event.part) or times[passed.tag] > 1:
            found.wrong_pass += 1
            found.example(f"{passed} of {event}{', late' if late else ''}")
        entries = rows.get(passed.tag, [])
        if entries == [("REJECT", "OUTPUT")]:
            found.unconfirmed += 1
        elif ("PASS", "") not in entries:
            found.lost_rows += 1
            found.example(f"{passed} with rows {entries}")


def _bundle(line: Line, found: Findings) -> None:
    root = line.directory / "root"
    open_active(root)  # raises where it is damaged or not trusted
    state = read_state(root)
    confirmed = [slot for slot in (state.a, state.b) if slot.state is SlotState.CONFIRMED]
    if len(confirmed) != 1 or state.active_slot not in confirmed:
        found.broken.append(f"the slots are {state}")
