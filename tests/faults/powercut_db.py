"""`make powercut-db`: the station's database through thousands of power cuts.

The production store writes rows, alerts and audit entries on a recorded disk. For a random moment of the recording, and
a random choice of what the disk had not synced yet, the files are laid out and opened with the system's SQLite: it must
be whole, and show exactly the state acknowledged last, or that of the operation under way. Mutants (a store or a disk
that promises what it does not keep) must be found by the very same checks.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import cast

import click

from appliance.audit import verify_chain
from appliance.messages import Reason
from appliance.retention import Retention
from appliance.store import Store, StoreError, VerdictRow
from calibration.cli_support import emit, key_values, progress
from calibration.errors import InputError
from tests.faults.disk import Disk, Operation, RecordedConnection, RecordingVFS
from tests.faults.mutants import MUTANTS, Rewrite, as_it_is
from tests.faults.state import TABLES, State, comparable, missing, read_state

OPERATIONS = 60
"""Acknowledged operations of one recording."""

CUTS = 500
"""Cuts of one recording."""

FIRST_RELEASE = Path(__file__).resolve().parents[1] / "appliance" / "schemas" / "0001_station.sql"


@dataclass
class Recording:
    """A log of the disk with the states acknowledged in it.

    Attributes:
        log: all operations of the disk.
        spans: of each acknowledged operation: length of the log when it began and when it returned.
        states: before the first operation, and after each.
    """

    base: dict[str, bytes]
    log: list[Operation]
    spans: list[tuple[int, int]] = field(default_factory=list)
    states: list[State] = field(default_factory=lambda: [{table: [] for table in TABLES}])


@dataclass
class Outcome:
    """What became of a number of cuts: corrupt ones (not whole, or half an operation), and acknowledged rows lost."""

    cuts: int = 0
    corrupt: int = 0
    lost: int = 0
    first: str = ""

    def note(self, corrupt: str, lost: int) -> None:
        """Count one cut."""
        self.cuts += 1
        self.corrupt += bool(corrupt)
        self.lost += lost
        self.first = self.first or corrupt or (f"{lost} acknowledged rows lost" if lost else "")


def record(random: Random, rewrite: Callable[[], Rewrite], directory: Path) -> Recording:
    """Let the store work on a recorded disk: start, groups of rows, alerts, audit, retention, restarts.

    One recording in three begins with a database of the first release, and so with its migration.
    """
    vfs = RecordingVFS(f"recording-{random.getrandbits(64):x}")
    path, pages = directory / "station.db", random.choice((8, 30, 1000))
    recording = Recording({}, vfs.log)
    if random.random() < 1 / 3:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.executescript(FIRST_RELEASE.read_text(encoding="utf-8"))
            recording.states = [read_state(connection)]
        recording.base = {path.name: path.read_bytes()}

    def connect(path: Path) -> sqlite3.Connection:
        connection = RecordedConnection(path, vfs.name, rewrite())
        connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
        return cast(sqlite3.Connection, connection)

    stores: list[Store] = []
    rows: list[VerdictRow] = []

    def acknowledged(work: Callable[[], object]) -> None:
        begin = len(vfs.log)
        work()
        recording.spans.append((begin, len(vfs.log)))
        recording.states.append(read_state(stores[-1].connection))

    acknowledged(lambda: stores.append(Store(path, connect)))
    for _ in range(OPERATIONS):
        if random.random() < 0.06:
            acknowledged(lambda: (stores[-1].close(), stores.append(Store(path, connect))))
        else:
            acknowledged(_work(random, stores[-1], rows))
    stores[-1].close()
    return recording


def _work(random: Random, store: Store, last: list[VerdictRow]) -> Callable[[], object]:
    """One operation that the daemon does, chosen at random; it is prepared now and done when called.

    `last`: the rows of the last group, which a late disk may turn into rejects.
    """
    kind = random.random()
    alerts = store.open_alerts()
    if kind < 0.1:
        return lambda: store.alert("DRIFT", "x" * random.randrange(2000))
    if kind < 0.2:
        return lambda: store.audit("Jana", "threshold", "0.3", str(random.random()))
    if kind < 0.3 and alerts:
        return lambda: store.acknowledge(alerts[0].id, "Jana")
    if kind < 0.35:
        return lambda: Retention(store, 0, 1).step(time.time())
    if kind < 0.45 and last:
        late = [last.pop() for _ in range(min(3, len(last)))]
        return lambda: store.revoke(late, Reason.LATE)
    last[:] = [_row(random, store.next_seq + i) for i in range(random.choice((1, 4, 64)))]
    store.next_seq += len(last)
    for row in last:
        store.add(row, None if row.defect_probability is None else int(row.defect_probability * 19))
    return store.commit


def _row(random: Random, seq: int) -> VerdictRow:
    judged = random.random() < 0.9
    return VerdictRow(
        seq, "top", seq, f"{seq}.png", f"S{random.getrandbits(40)}", "L1", "2026-01-01T00:00:00.000000Z", seq, "boot",
        "OK" if judged else None, "PASS" if judged else "REJECT", "" if judged else "NO_FRAME",
        "d" * random.randrange(40), "ok", random.random() if judged else None,
        random.randbytes(16) if judged else None, 1, "b" * 64, 1, 2, 3, 4,
    )  # fmt: skip


def cut(recording: Recording, random: Random, cuts: int, directory: Path, step: Callable[[], None]) -> Outcome:
    """Cut the power so often, at random moments of a recording."""
    outcome, disk, played = Outcome(), Disk(recording.base), 0
    ends = [end for _, end in recording.spans]
    for moment in sorted(random.randrange(len(recording.log) + 1) for _ in range(cuts)):
        while played < moment:
            disk.play(recording.log[played])
            played += 1
        done = bisect_right(ends, moment)
        allowed = [recording.states[done]]
        if done < len(ends) and recording.spans[done][0] < moment:
            allowed.append(recording.states[done + 1])
        outcome.note(*_examine(disk.after_cut(random), allowed, directory))
        step()
    return outcome


def _examine(files: dict[str, bytes], allowed: list[State], directory: Path) -> tuple[str, int]:
    """Start on what a cut has left: what is corrupt ("" if nothing), and how many acknowledged rows are lost."""
    clear(directory)
    for name, data in files.items():
        (directory / name).write_bytes(data)
    path = directory / "station.db"
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            whole = connection.execute("PRAGMA integrity_check").fetchall()
            found = read_state(connection)
            chain = verify_chain(connection) if found["audit_head"] else []
        store = Store(path)
        store.audit("daemon", "started again")
        store.close()
    except (sqlite3.Error, InputError, StoreError) as error:
        return f"not usable: {error}", missing({}, allowed)
    lost = missing(found, allowed)
    if whole != [("ok",)] or chain:
        return str(chain or whole[0][0]), lost
    half = all(comparable(found) != comparable(state) for state in allowed)
    return "half an operation is there" if half and not lost else "", lost


def clear(directory: Path) -> None:
    """Delete the files in it."""
    for file in directory.iterdir():
        file.unlink()


@dataclass(frozen=True)
class Summary:
    """Result of a campaign."""

    seed: int
    cuts: int
    corrupt: int
    lost: int
    mutants_planted: int
    mutants_caught: int
    recordings: int
    operations: int
    seconds: float
    problem: str
    mutants: dict[str, str]

    @property
    def good(self) -> bool:
        """Nothing corrupt, nothing lost, every mutant found."""
        return not self.corrupt and not self.lost and self.mutants_planted == self.mutants_caught


def campaign(cuts: int, seed: int, report: Callable[[int, int], None] = lambda done, total: None) -> Summary:
    """All cuts of the production store, then of each mutant until it is found."""
    begin, random, total, done = time.monotonic(), Random(seed), Outcome(), 0
    recordings = operations = 0
    fast = Path("/dev/shm")  # noqa: S108  memory, where there is some: the cuts are simulated, the disk need not turn

    def step() -> None:
        nonlocal done
        done += 1
        report(min(done, cuts), cuts)

    with tempfile.TemporaryDirectory(dir=fast if fast.is_dir() else None) as name:
        work, after = Path(name, "work"), Path(name, "after")
        work.mkdir()
        after.mkdir()

        def one(rewrite: Callable[[], Rewrite], n: int) -> tuple[Outcome, int]:
            recording = record(random, rewrite, work)
            outcome = cut(recording, random, n, after, step)
            clear(work)
            return outcome, len(recording.log)

        while total.cuts < cuts:
            outcome, length = one(lambda: as_it_is, min(CUTS, cuts - total.cuts))
            total.cuts += outcome.cuts
            total.corrupt += outcome.corrupt
            total.lost += outcome.lost
            total.first = total.first or outcome.first
            recordings, operations = recordings + 1, operations + length
        mutants = {mutant: one(rewrite, CUTS)[0].first for mutant, rewrite in MUTANTS.items()}
    return Summary(
        seed, total.cuts, total.corrupt, total.lost, len(mutants), sum(map(bool, mutants.values())),
        recordings, operations, time.monotonic() - begin, total.first, mutants,
    )  # fmt: skip


@click.command(epilog="\b\nExample:\n  python -m tests.faults.powercut_db --cuts 10000 --seed 7 --json")
@click.option("--cuts", type=click.IntRange(1), default=10_000, show_default=True, help="Power cuts.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same cuts.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("build/powercut-db/summary.json"),
    show_default=True,
    help="Where the result goes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def main(cuts: int, seed: int, out: Path, as_json: bool) -> None:
    """Cut the database's power; exit code 1 when a row was lost, the database corrupt, or a mutant not found."""
    with progress("power cuts") as report:
        summary = campaign(cuts, seed, report)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(asdict(summary), indent=2) + "\n", encoding="utf-8")
    rows = {name: value for name, value in asdict(summary).items() if name not in ("mutants", "problem")}
    rows["seconds"] = f"{summary.seconds:.0f}"
    found = {f"mutant: {name}": problem or "NOT FOUND" for name, problem in summary.mutants.items()}
    emit(
        summary, as_json, key_values("Power cuts of the database", {**rows, "problem": summary.problem or "-", **found})
    )
    sys.exit(0 if summary.good else 1)


if __name__ == "__main__":
    main()
