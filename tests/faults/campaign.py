"""`make faults`: thousands of parts through a line where everything fails at random, then the same with mutants.

Several lines run side by side, each with its own seed, station and PLC. After the last fault every promise is checked
on the journal of what really happened; every mutant, one promise broken each, must fail those very checks.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import click

from calibration.cli_support import emit, key_values, progress
from tests.faults.session import CAUSES, KINDS, UNCONFIRMED, Session, by_class
from tests.faults.simulator.checks import Findings, check
from tests.faults.simulator.line import Line
from tests.faults.simulator.planted import PLANTED
from tests.faults.simulator.settings import Settings
from tests.faults.trials import Trial, trial

LINES = 4
AT_ONCE = 4
"""On two cores: a line mostly waits, for its next part, a time-out, or a process that starts."""

FPS = 90.0
PARTS_A_RUN = 350
RUNS_MAX = 40


@dataclass(frozen=True)
class Amount:
    """How much is asked for, at least: parts, faults of every class, faults of every kind, `kill -9`."""

    parts: int
    of_class: int
    of_kind: int
    kills: int

    def shared(self, lines: int) -> Amount:
        """What each of so many lines has to do."""
        return Amount(*(-(-n // lines) for n in (self.parts, self.of_class, self.of_kind, self.kills)))

    def short_of(self, parts: int, faults: Counter[str], kills: int) -> list[str]:
        """What is missing, in words. `faults`: by kind."""
        done = [("parts", parts, self.parts), ("kills", kills, self.kills)]
        done += [(name, n, self.of_class) for name, n in by_class(faults).items()]
        done += [(name, faults[name], self.of_kind) for name in KINDS]
        return [f"{what}: {n} of {wanted}" for what, n, wanted in done if n < wanted]


@dataclass
class Outcome:
    """What one line went through, and what was found. faults: by kind. starts_s: each start until its first part."""

    findings: Findings
    faults: Counter[str]
    kills: Counter[str]
    starts_s: list[float]
    trouble: str = ""


@dataclass(frozen=True)
class Summary:
    """Result of a campaign. lost_rows: PASSes without their row, or parts without exactly one."""

    seed: int
    triggers: int
    faults: int
    kills: int
    wrong_pass: int
    lost_rows: int
    mutants_planted: int
    mutants_caught: int
    seconds: float
    passed: int
    unconfirmed: int
    start_s: dict[str, float]
    faults_by_class: dict[str, int]
    faults_by_kind: dict[str, int]
    kills_by_process: dict[str, int]
    rows_by_reason: dict[str, int]
    broken: list[str]
    mutants: dict[str, str]
    short_of: list[str]

    @property
    def good(self) -> bool:
        """Nothing wrong, nothing lost, every mutant found, and as much done as was asked for."""
        held = not (self.wrong_pass or self.lost_rows or self.broken or self.short_of)
        return held and self.mutants_planted == self.mutants_caught


def torture(seed: int, amount: Amount) -> Outcome:
    """One line, until it has gone through so much at least."""
    random = Random(seed)
    with tempfile.TemporaryDirectory(prefix="lineguard-faults-") as name:
        settings = Settings(name, seed, FPS)
        with Line(Path(name), settings) as line:
            session = Session(line, random)
            trouble = ""
            try:
                for _ in range(RUNS_MAX):
                    session.run(PARTS_A_RUN)
                    if not amount.short_of(line.world.parts, session.faults(), session.kills.total()):
                        break
                session.finish()
            except AssertionError as error:
                trouble = str(error)
                line.abandon()
            findings = check(line)
            faults = session.faults()
            causes = sum(faults[name] for name in CAUSES)
            if findings.unconfirmed > UNCONFIRMED * causes:
                findings.broken.append(
                    f"{findings.unconfirmed} PASSes unconfirmed, after {causes} faults that explain some"
                )
            return Outcome(findings, faults, session.kills, line.starts_s, trouble)


def campaign(amount: Amount, seed: int, report: Callable[[int, int], None] = lambda done, total: None) -> Summary:
    """All lines, and each mutant's trial between them."""
    begin = time.monotonic()
    lines: list[Future[Outcome]] = []
    trials: dict[str, Future[Trial]] = {}
    with ProcessPoolExecutor(AT_ONCE) as pool:
        for index in range(LINES):
            lines.append(pool.submit(torture, seed * LINES + index, amount.shared(LINES)))
        for mutant in PLANTED:  # the first is none: an honest appliance, in which the trials must find nothing
            trials[mutant] = pool.submit(trial, mutant, seed)
        waiting: set[Future[Outcome] | Future[Trial]] = {*lines, *trials.values()}
        total = len(waiting)
        while waiting:
            report(total - len(waiting), total)
            _, waiting = wait(waiting, return_when=FIRST_COMPLETED)
    outcomes = [line.result() for line in lines]
    found = {mutant: each.result() for mutant, each in trials.items()}
    return summarise(outcomes, found, amount, seed, time.monotonic() - begin)


def summarise(outcomes: list[Outcome], trials: dict[str, Trial], amount: Amount, seed: int, seconds: float) -> Summary:
    """Add up. `trials`: by mutant; "" is an honest appliance."""
    findings = [outcome.findings for outcome in outcomes]
    faults = sum((outcome.faults for outcome in outcomes), Counter[str]())
    kills = sum((outcome.kills for outcome in outcomes), Counter[str]())
    starts = sorted(start for outcome in outcomes for start in outcome.starts_s)
    triggers = sum(each.parts for each in findings)
    lost = sum(each.lost_rows + each.no_row + each.two_rows + each.strange_rows for each in findings)
    broken = [text for each in findings for text in (*each.broken, *each.examples)]
    broken += [outcome.trouble for outcome in outcomes if outcome.trouble]
    broken += [f"{each.too_early} commits before they were durable" for each in findings if each.too_early]
    broken += [f"{each.judged_bad} parts judged by another picture" for each in findings if each.judged_bad]
    broken += [f"trial {mutant!r}: {each.trouble}" for mutant, each in trials.items() if each.trouble]
    honest = trials.get("")
    if honest is None or honest.found:
        broken.append(f"the trials find fault with an honest appliance: {honest and honest.found}")
    planted = {mutant: each for mutant, each in trials.items() if mutant}
    return Summary(
        seed=seed,
        triggers=triggers,
        faults=faults.total(),
        kills=kills.total(),
        wrong_pass=sum(each.wrong_pass for each in findings),
        lost_rows=lost,
        mutants_planted=len(planted),
        mutants_caught=sum(each.caught for each in planted.values()),
        seconds=seconds,
        passed=sum(each.passed for each in findings),
        unconfirmed=sum(each.unconfirmed for each in findings),
        start_s={"median": starts[len(starts) // 2], "worst": starts[-1]} if starts else {},
        faults_by_class=by_class(faults),
        faults_by_kind=dict(sorted(faults.items())),
        kills_by_process=dict(sorted(kills.items())),
        rows_by_reason=dict(sum((Counter(each.reasons) for each in findings), Counter[str]())),
        broken=broken,
        mutants={mutant: each.found if each.caught else "" for mutant, each in planted.items()},
        short_of=amount.short_of(triggers, faults, kills.total()),
    )


@click.command(epilog="\b\nExample:\n  python -m tests.faults.campaign --seed 7 --json")
@click.option("--triggers", type=click.IntRange(1), default=20_000, show_default=True, help="Parts, at least.")
@click.option("--faults", type=click.IntRange(0), default=300, show_default=True, help="Of every class, at least.")
@click.option("--of-kind", type=click.IntRange(0), default=10, show_default=True, help="Of every kind, at least.")
@click.option("--kills", type=click.IntRange(0), default=200, show_default=True, help="kill -9, at least.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed plans the same faults.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("build/faults/summary.json"), show_default=True,
    help="Where the result goes.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def main(triggers: int, faults: int, of_kind: int, kills: int, seed: int, out: Path, as_json: bool) -> None:
    """Everything fails at random; exit code 1 on a wrong PASS, a lost row, or a mutant that was not found."""
    with progress("lines and mutants") as report:
        summary = campaign(Amount(triggers, faults, of_kind, kills), seed, report)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(asdict(summary), indent=2) + "\n", encoding="utf-8")
    rows = {name: value for name, value in asdict(summary).items() if not isinstance(value, (dict, list))}
    rows["seconds"] = f"{summary.seconds:.0f}"
    found = {f"mutant: {name}": what or "NOT FOUND" for name, what in summary.mutants.items()}
    problems = {"problems": "; ".join([*summary.short_of, *summary.broken])[:2000] or "-"}
    emit(summary, as_json, key_values("Faults at random", {**rows, **problems, **found}))
    sys.exit(0 if summary.good else 1)


if __name__ == "__main__":
    main()
