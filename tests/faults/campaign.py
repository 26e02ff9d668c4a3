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
from tests.faults.session import CAUSES, UNCONFIRMED, Session
from tests.faults.simulator.checks import Findings, check
from tests.faults.simulator.line import Line
from tests.faults.simulator.planted import PLANTED
from tests.faults.simulator.settings import Settings
from tests.faults.simulator.world import Kind
from tests.faults.trials import trial

LINES = 4
AT_ONCE = 2
FPS = 120.0
PARTS_A_RUN = 350
RUNS_MAX = 40


@dataclass
class Outcome:
    """What one line went through, and what was found. seconds: starts are of each start until its first part."""

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


def torture(seed: int, parts: int, faults: int, kills: int) -> Outcome:
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
                    done = session.tally
                    enough = done.kills.total() >= kills and done.faults.total() >= faults
                    if enough and line.world.parts >= parts:
                        break
                session.finish()
            except AssertionError as error:
                trouble = str(error)
                line.abandon()
            findings = check(line)
            causes = sum(session.tally.faults[name] for name in CAUSES)
            if findings.unconfirmed > UNCONFIRMED * causes:
                findings.broken.append(
                    f"{findings.unconfirmed} PASSes unconfirmed, after {causes} faults that explain some"
                )
            kinds = Counter(line.world.event(number).kind.name for number in range(line.world.parts))
            del kinds[Kind.CLEAN.name]
            frames = Counter({f"frame {kind}": n for kind, n in kinds.items()})
            return Outcome(findings, session.tally.faults + frames, session.tally.kills, line.starts_s, trouble)


def campaign(
    parts: int, faults: int, kills: int, seed: int, report: Callable[[int, int], None] = lambda done, total: None
) -> Summary:
    """All lines, then each mutant."""
    begin = time.monotonic()
    mutants = list(PLANTED)  # the first is none: an honest appliance, in which the trial must find nothing
    lines: list[Future[Outcome]] = []
    trials: dict[str, Future[str]] = {}
    with ProcessPoolExecutor(AT_ONCE) as pool:
        for index in range(LINES):
            share = (-(-parts // LINES), -(-faults // LINES), -(-kills // LINES))
            lines.append(pool.submit(torture, seed * LINES + index, *share))
        for mutant in mutants:
            trials[mutant] = pool.submit(trial, mutant, seed)
        waiting: set[Future[Outcome] | Future[str]] = {*lines, *trials.values()}
        while waiting:
            report(len(lines) + len(mutants) - len(waiting), len(lines) + len(mutants))
            _, waiting = wait(waiting, return_when=FIRST_COMPLETED)
    outcomes = [line.result() for line in lines]
    found = {mutant: caught.result() for mutant, caught in trials.items()}
    honest = found.pop("")
    if honest:
        outcomes[0].trouble += f"the trial finds fault with an honest appliance: {honest}"
    return summarise(outcomes, found, (parts, faults, kills), seed, time.monotonic() - begin)


def summarise(
    outcomes: list[Outcome], mutants: dict[str, str], asked: tuple[int, int, int], seed: int, seconds: float
) -> Summary:
    """Add up. `asked`: parts, faults (of processes and devices, beside those of frames), kills."""
    findings = [outcome.findings for outcome in outcomes]
    faults = sum((outcome.faults for outcome in outcomes), Counter[str]())
    kills = sum((outcome.kills for outcome in outcomes), Counter[str]())
    starts = sorted(start for outcome in outcomes for start in outcome.starts_s)
    triggers = sum(each.parts for each in findings)
    done = (triggers, sum(n for name, n in faults.items() if not name.startswith("frame ")), kills.total())
    lost = sum(each.lost_rows + each.no_row + each.two_rows + each.strange_rows for each in findings)
    broken = [text for each in findings for text in (*each.broken, *each.examples)]
    broken += [outcome.trouble for outcome in outcomes if outcome.trouble]
    broken += [f"{each.too_early} commits before they were durable" for each in findings if each.too_early]
    return Summary(
        seed=seed,
        triggers=triggers,
        faults=faults.total(),
        kills=kills.total(),
        wrong_pass=sum(each.wrong_pass for each in findings),
        lost_rows=lost,
        mutants_planted=len(mutants),
        mutants_caught=sum(map(bool, mutants.values())),
        seconds=seconds,
        passed=sum(each.passed for each in findings),
        unconfirmed=sum(each.unconfirmed for each in findings),
        start_s={"median": starts[len(starts) // 2], "worst": starts[-1]} if starts else {},
        faults_by_class=dict(sorted(faults.items())),
        kills_by_process=dict(sorted(kills.items())),
        rows_by_reason=dict(sum((Counter(each.reasons) for each in findings), Counter[str]())),
        broken=broken,
        mutants=mutants,
        short_of=[
            f"{what}: {n} of {wanted}" for what, n, wanted in zip(_ASKED, done, asked, strict=True) if n < wanted
        ],
    )


_ASKED = ("triggers", "faults beside those of frames", "kills")


@click.command(epilog="\b\nExample:\n  python -m tests.faults.campaign --seed 7 --json")
@click.option("--triggers", type=click.IntRange(1), default=20_000, show_default=True, help="Parts, at least.")
@click.option("--faults", type=click.IntRange(0), default=300, show_default=True, help="Beside those of frames.")
@click.option("--kills", type=click.IntRange(0), default=200, show_default=True, help="kill -9, at least.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed plans the same faults.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("build/faults/summary.json"), show_default=True,
    help="Where the result goes.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def main(triggers: int, faults: int, kills: int, seed: int, out: Path, as_json: bool) -> None:
    """Everything fails at random; exit code 1 on a wrong PASS, a lost row, or a mutant that was not found."""
    with progress("lines and mutants") as report:
        summary = campaign(triggers, faults, kills, seed, report)
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
