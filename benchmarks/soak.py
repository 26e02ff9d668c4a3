"""`make soak`: a station at a steady rate for long: counts exact, memory and descriptors flat, no slower at the end.

The tiny bundle of the tests is judged, so that the appliance itself is what is measured: camera process, shared memory,
engine process, supervisor, database and relay. Times come from the rows, memory from /proc.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np

from calibration.cli_support import Report, emit, key_values, progress
from tests.faults.simulator.checks import Findings, check
from tests.faults.simulator.line import Line
from tests.faults.simulator.settings import Settings

FPS = 60.0
SAMPLE_S = 2.0
WARM_SHARE = 0.1
"""Of the time: before it nothing is compared."""

GROWTH_PER_MINUTE = 0.01
LATER = 1.10
"""How much slower the last tenth may be, at the 99th percentile."""

GRACE_MS = 2.0
"""... or by how much: a difference below it is the scheduler's."""


@dataclass(frozen=True)
class Sample:
    """Of supervisor, camera and engine process together. rss in bytes."""

    at_s: float
    rss: int
    descriptors: int


@dataclass(frozen=True)
class Summary:
    """Result. p99 in milliseconds from trigger to verdict, of the first and the last tenth after warm-up; growth of the
    resident memory in share a minute."""

    seconds: float
    frames_per_second: float
    triggers: int
    rows: int
    passed: int
    late: int
    overflow: int
    p99_first_ms: float
    p99_last_ms: float
    rss_mib: float
    rss_growth_per_minute: float
    descriptors_first: int
    descriptors_last: int
    problems: list[str]


def sample(line: Line, begin: float) -> Sample:
    """Now."""
    assert line.process is not None
    rss = descriptors = 0
    for pid in (line.process.pid, line.worker("camera"), line.worker("engine")):
        if pid is not None:
            rss += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
            descriptors += len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Sample(time.monotonic() - begin, rss, descriptors)


def soak(seconds: float, fps: float, report: Report) -> Summary:
    """Run a faultless line for so long, and compare its end with its beginning."""
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory(prefix="lineguard-soak-") as name:
        # Parts come at the set rate whatever the machine does, and have a second each.
        settings = Settings(name, seed=1, fps=fps, deadline_ms=1000.0, rates={})
        with Line(Path(name), settings) as line:
            line.start()
            begin = time.monotonic()
            while (left := begin + seconds - time.monotonic()) > 0:
                time.sleep(min(SAMPLE_S, left))
                samples.append(sample(line, begin))
                report(int(time.monotonic() - begin), int(seconds))
            code = line.stop()
            found = check(line)
            with closing(sqlite3.connect(line.paths.database)) as database:
                times = database.execute("SELECT mono_ns, total_us FROM verdict ORDER BY mono_ns").fetchall()
    problems = [*found.broken, *found.examples, *(["exit code " + str(code)] if code else [])]
    return summarise(seconds, samples, times, found, problems)


def summarise(
    seconds: float, samples: list[Sample], times: list[tuple[int, int]], found: Findings, problems: list[str]
) -> Summary:
    """Figures and verdict. times: (trigger in monotonic ns, microseconds until the verdict), oldest first."""
    warm = [each for each in samples if each.at_s >= WARM_SHARE * seconds] or samples[-1:]
    after = np.array(times[int(WARM_SHARE * len(times)) :], np.float64).reshape(-1, 2)
    tenth = max(1, len(after) // 10)
    first, last = (float(np.percentile(part[:, 1], 99)) / 1e3 for part in (after[:tenth], after[-tenth:]))
    minutes = (warm[-1].at_s - warm[0].at_s) / 60
    slope = float(np.polyfit([each.at_s / 60 for each in warm], [each.rss for each in warm], 1)[0]) if minutes else 0.0
    growth = slope / warm[0].rss
    if growth > GROWTH_PER_MINUTE:
        problems.append(f"memory grows by {growth:.1%} a minute")
    if warm[-1].descriptors > warm[0].descriptors:
        problems.append(f"{warm[-1].descriptors - warm[0].descriptors} more open files at the end")
    if last > max(LATER * first, first + GRACE_MS):
        problems.append(f"p99 of the last tenth is {last:.1f} ms, of the first {first:.1f} ms")
    if not found.good:
        problems.append("counts are not exact")
    span_s = (times[-1][0] - times[0][0]) / 1e9 if len(times) > 1 else seconds
    return Summary(
        seconds=seconds,
        frames_per_second=(len(times) - 1) / span_s,
        triggers=found.parts,
        rows=len(times),
        passed=found.passed,
        late=found.reasons.get("LATE", 0),
        overflow=found.reasons.get("OVERFLOW", 0),
        p99_first_ms=first,
        p99_last_ms=last,
        rss_mib=warm[-1].rss / 2**20,
        rss_growth_per_minute=growth,
        descriptors_first=warm[0].descriptors,
        descriptors_last=warm[-1].descriptors,
        problems=problems,
    )


@click.command(epilog="\b\nExample:\n  python -m benchmarks.soak --seconds 120 --json")
@click.option("--seconds", type=click.FloatRange(10), default=600.0, show_default=True, help="How long.")
@click.option("--hours", type=click.FloatRange(0.01), help="How long, instead of --seconds.")
@click.option("--fps", type=click.FloatRange(1), default=FPS, show_default=True, help="Frames per second.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("build/soak/summary.json"), show_default=True,
    help="Where the result goes.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def main(seconds: float, hours: float | None, fps: float, out: Path, as_json: bool) -> None:
    """Run a station for long; exit code 1 where a count is not exact, memory grows, or it becomes slower."""
    with progress("seconds") as report:
        summary = soak(hours * 3600 if hours else seconds, fps, report)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(asdict(summary), indent=2) + "\n", encoding="utf-8")
    rows = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in asdict(summary).items()}
    emit(summary, as_json, key_values("Soak", {**rows, "problems": "; ".join(summary.problems) or "-"}))
    sys.exit(1 if summary.problems else 0)


if __name__ == "__main__":
    main()
