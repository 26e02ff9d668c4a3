"""How long a station is without a PASS: while its bundle is changed, rolled back, or a process of it is killed.

A real daemon over a paced replay at half of what this machine judges, 250 parts/s at most; each round pushes another
bundle, rolls it back, kills the engine and kills the daemon, which is then started again at once. Times come from the
verdict rows, on the machine's monotonic clock: from the act to the verdict of the first PASS of a part triggered after.
The model is a small one, or with `--bundle` a real one over those of its goldens that are good.

    python -m benchmarks.recovery --rounds 5
    python -m benchmarks.recovery --bundle parts.lgb --engine openvino
    python -m benchmarks.recovery --rounds 1 --json
"""

from __future__ import annotations

import argparse
import os
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from appliance.messages import State
from calibration.cli_support import emit
from calibration.decision import Decision
from calibration.errors import InputError
from deploy.bundle import open_bundle, write_bundle
from deploy.install import Device
from tests.appliance.stations import Daemon, alive, make_station, run_json
from tests.support.tiny import tiny_bundle

TARGETS = {"rollback": 10.0, "engine killed": 3.0, "daemon killed": 3.0}
"""Seconds at most."""

FASTEST = 250.0
"""Parts a second at most: a camera has a number of slots, so the faster the line, the shorter the stall it bears."""

SETTLE_S = 1.0
"""After a switch the engine that is not needed any more is ended: it is not the one to kill."""

PROBE = 1500
"""Parts judged as fast as possible, to find out what this machine holds."""


@dataclass(frozen=True)
class Times:
    """Seconds to the first PASS of each round, sorted, and their limit."""

    median: float
    least: float
    most: float
    limit: float | None


@dataclass(frozen=True)
class Result:
    """The whole benchmark.

    Attributes:
        model: name of the bundle.
        fps: half of what the machine holds, or FASTEST.
        seconds: by act.
        triggers, rows: over all rounds; each trigger has exactly one row where they are equal.
        switch_rejects: reasons other than DEFECT and UNSURE of parts triggered while bundles were changed.
    """

    model: str
    engine: str
    rounds: int
    fps: float
    seconds: dict[str, Times]
    triggers: int
    rows: int
    switch_rejects: dict[str, int]


def real_pair(directory: Path, source: Path) -> list[Path]:
    """Two bundles of a real one's model, told apart by name, and its good goldens as the station's frames. Raises
    InputError: it is no bundle, or none of its goldens passes."""
    bundle = open_bundle(source)
    rule, frames = bundle.variant("cpu").rule, directory / "frames"
    frames.mkdir()
    for golden in bundle.goldens():
        if rule.decide(golden.logits["cpu"][None])[0] is Decision.OK:
            (frames / golden.name.rpartition("/")[2]).write_bytes(bundle.members[golden.name])
    if not any(frames.iterdir()):
        raise InputError(f"{source}: none of its goldens is judged OK; release it with good parts among them")
    members = {name: data for name, data in bundle.members.items() if name != "manifest.json"}
    paths = [directory / f"{name}.lgb" for name in ("one", "two")]
    for path in paths:
        write_bundle(path, bundle.manifest.model_copy(update={"name": path.stem}), members)
    return paths


class Line:
    """A station with a device root and two bundles that take turns: of `source`'s model, or of a small one."""

    def __init__(self, directory: Path, engine: str, source: Path | None, fps: float | None = None) -> None:
        self.root = directory / "root"
        if source is None:
            self.bundles = [tiny_bundle(directory / f"{name}.lgb", name=name) for name in ("one", "two")]
        else:
            self.bundles = real_pair(directory, source)
        self._push(self.bundles[0])
        pace = f"loop = true\ncount = {PROBE}" if fps is None else f"loop = true\nfps = {fps}"
        sections = f'[trial]\nframes = 100000\n[timing]\ndeadline_ms = 1000\n[engine]\nkind = "{engine}"'
        self.config = make_station(directory, 0 if source else 40, pace, sections, self.root)

    def _push(self, bundle: Path) -> str:
        device = Device(self.root, who="benchmark", wait_s=5.0)
        device.stage(bundle)
        slot = device.activate().active_slot
        assert slot is not None
        return slot.sha256

    def first_pass(self, since_ns: int, bundle: str = "", timeout_s: float = 30.0) -> float:
        """Seconds from a time to the first PASS of a part triggered after it, waiting for that row. InputError."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            with closing(sqlite3.connect(self.config.parent / "data" / "station.db")) as connection:
                row = connection.execute(
                    "SELECT min(mono_ns + total_us * 1000) FROM verdict "
                    "WHERE verdict = 'PASS' AND mono_ns >= ? AND bundle LIKE ?",
                    (since_ns, bundle or "%"),
                ).fetchone()
            if row[0] is not None:
                return float(row[0] - since_ns) / 1e9
            time.sleep(0.05)
        raise InputError(f"no PASS within {timeout_s:g} s; look at the alerts in {self.config.parent}")

    def switch(self, daemon: Daemon) -> tuple[float, float, tuple[int, int]]:
        """Push the second bundle and roll it back; seconds of both, and the span of time that both took."""
        began = time.monotonic_ns()
        new = self.first_pass(began, self._push(self.bundles[1]))
        daemon.until(lambda status: status.state is State.SWITCH)
        back_ns = time.monotonic_ns()
        slot = Device(self.root, who="benchmark", wait_s=5.0).rollback("benchmark").active_slot
        assert slot is not None
        back = self.first_pass(back_ns, slot.sha256)
        daemon.until(lambda status: status.state in (State.RUN, State.DEGRADED))
        return new, back, (began, time.monotonic_ns())

    def rejects(self, span: tuple[int, int]) -> Counter[str]:
        """Reasons of parts triggered in a span of time that are no judgements."""
        with closing(sqlite3.connect(self.config.parent / "data" / "station.db")) as connection:
            query = "SELECT reason FROM verdict WHERE mono_ns BETWEEN ? AND ?"
            reasons = (reason for (reason,) in connection.execute(query, span))
            return Counter(reason for reason in reasons if reason not in ("", "DEFECT", "UNSURE"))


def measure(rounds: int, directory: Path, engine: str = "onnxruntime", source: Path | None = None) -> Result:
    """All rounds, in one directory that may be thrown away afterwards. Raises InputError."""
    directory.joinpath("probe").mkdir()
    directory.joinpath("line").mkdir()
    probe = Line(directory / "probe", engine, source)
    fps = min(FASTEST, run_json(probe.config, timeout=240)["frames_per_second"] / 2)
    line = Line(directory / "line", engine, source, fps)
    times: dict[str, list[float]] = {name: [] for name in ("switch", *TARGETS)}
    rejects: Counter[str] = Counter()
    triggers = rows = 0
    for _ in range(rounds):
        with Daemon(line.config) as daemon:
            daemon.until(lambda status: status.state in (State.RUN, State.DEGRADED) and status.counts.ok > 0)
            new, back, span = line.switch(daemon)
            times["switch"].append(new)
            times["rollback"].append(back)
            rejects += line.rejects(span)
            time.sleep(SETTLE_S)
            engine = daemon.workers()["engine"]
            killed_ns = time.monotonic_ns()
            os.kill(engine, signal.SIGKILL)
            while alive(engine):  # what it judges with its last breath is no recovery
                time.sleep(0.0005)
            dead_ns = time.monotonic_ns()
            times["engine killed"].append(line.first_pass(dead_ns) + (dead_ns - killed_ns) / 1e9)
            daemon.process.kill()
            killed_ns = time.monotonic_ns()
            daemon.process.wait()
        with Daemon(line.config) as daemon:
            times["daemon killed"].append(line.first_pass(killed_ns))
            summary = daemon.stop(signal.SIGTERM)
            triggers, rows = triggers + summary["counts"]["triggers"], rows + summary["rows"]
    seconds = {
        name: Times(statistics.median(each), min(each), max(each), TARGETS.get(name)) for name, each in times.items()
    }
    model = "small" if source is None else open_bundle(source).manifest.name
    return Result(model, engine, rounds, fps, seconds, triggers, rows, dict(rejects))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where a limit was exceeded or a part not inspected during a switch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each act is measured (default 5)")
    parser.add_argument("--bundle", type=Path, help="a real bundle instead of the small model")
    parser.add_argument("--engine", default="onnxruntime", choices=("onnxruntime", "openvino"))
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    with tempfile.TemporaryDirectory() as directory:
        try:
            result = measure(options.rounds, Path(directory), options.engine, options.bundle)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    lines = [
        f"model {result.model}, {result.engine}, {result.fps:.0f} parts/s, {result.rounds} rounds; "
        "seconds to the first PASS, median (least to most):"
    ]
    for name, each in result.seconds.items():
        limit = "" if each.limit is None else f", limit {each.limit:g}"
        lines.append(f"  {name:14} {each.median:6.2f} ({each.least:.2f} to {each.most:.2f}{limit})")
    lines.append(f"  parts not inspected while bundles were changed: {result.switch_rejects or 'none'}")
    emit(result, options.json, "\n".join(lines))
    slow = any(each.limit is not None and each.most > each.limit for each in result.seconds.values())
    return int(slow or bool(result.switch_rejects) or result.rows != result.triggers)


if __name__ == "__main__":
    sys.exit(main())
