"""`make powercut-deploy`: a device root through thousands of power cuts.

Every file operation of push, installation, activation, confirmation, roll-back and enrolment is recorded. After each,
what the disk may hold if its power fails is laid out, and comes up by the code that a device starts with (checks.py).
Mutants (code that promises what it does not keep) must be found by the very same checks.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import get_args

import click

from calibration.cli_support import emit, key_values, progress
from deploy.install import Device
from tests.powercut.checks import problem_of
from tests.powercut.disk import Cut, Data, Disk, Names, Operation, Recorder, Tree, digest, lay_out
from tests.powercut.mutants import MUTANTS
from tests.powercut.scenes import SCENES, Facts, Scene, Stock

WAYS: tuple[tuple[Data, Names], ...] = (
    ("lost", "lost"),
    ("lost", "kept"),
    ("kept", "lost"),
    ("kept", "kept"),
    ("torn", "kept"),
    ("zeros", "kept"),
    ("kept", "any"),
    ("lost", "any"),
)
"""What is tried after each operation, beside random choices."""

_TELLING = (
    "push and roll back",
    "push and roll back, enrolled",
    "staging killed, then again",
    "sent, cut, resumed",
)
MUTANT_SCENES = tuple(scene for name in _TELLING for scene in SCENES if scene.name == name)


@dataclass
class Recording:
    """A scene on its disk.

    Attributes:
        tree: what was there. log: the operations. killed: at which of them the first act was killed.
        spans: where in the log each act began and ended.
    """

    scene: Scene
    tree: Tree
    numbers: dict[str, int]
    log: list[Operation] = field(default_factory=list)
    killed: int = 0
    spans: list[tuple[int, int]] = field(default_factory=list)
    facts: list[Facts] = field(default_factory=list)

    def between(self, at: int) -> tuple[Facts, Facts]:
        """What held before and will hold after the act under way once `at` operations are done; equal between acts."""
        done = sum(end <= at for _, end in self.spans)
        under_way = done < len(self.spans) and at > self.spans[done][0]
        return self.facts[done], self.facts[done + under_way]


def recordings(scene: Scene, stock: Stock, folder: Path, stride: int) -> Iterator[Recording]:
    """A scene played with production code; one that is killed, once for each `stride`-th operation of its first act.

    Args:
        folder: new.

    Raises:
        AssertionError: an operation went unseen.
    """
    device = Device(folder / "world" / "device", who="campaign")
    device.root.parent.mkdir(parents=True)
    for act in scene.before:
        act(device, stock)
    whole = _recorded(scene, stock, folder, None)
    if not scene.kill:
        yield whole
        return
    for kill_at in range(whole.spans[0][1] - 1, 0, -stride):
        yield _recorded(scene, stock, folder, kill_at)


def _recorded(scene: Scene, stock: Stock, folder: Path, kill_at: int | None) -> Recording:
    """The acts on a copy of the prepared device; the first one killed at an operation, then done again."""
    world = Path(shutil.copytree(folder / "world", folder / "copy"))
    recorder, device = Recorder(world), Device(world / "device", who="campaign")
    tree = recorder.known()
    numbers = {path: recorder.number(path) for path, data in tree.items() if data is not None}
    made = Recording(scene, tree, numbers, recorder.log, facts=[Facts.of(device.root)])
    for act in scene.acts:
        begin = resumed = len(recorder.log) if made.spans else 0
        with recorder.recording():
            if kill_at is not None:
                recorder.kill_at = kill_at
                with suppress(Cut):
                    act(device, stock)
                made.killed = kill_at
                recorder.kill_at = kill_at = None
                resumed = len(recorder.log)
            act(device, stock)
        if made.killed and not made.spans and len(recorder.log) == resumed:
            continue  # it found nothing left to do, and so promises nothing
        made.spans.append((begin, len(recorder.log)))
        made.facts.append(Facts.of(device.root))
    disk = Disk(tree, numbers.__getitem__)
    for operation in recorder.log:
        disk.play(operation)
    assert disk.left("kept", "kept", Random(0)) == recorder.known(), "an operation went unseen"
    shutil.rmtree(world)
    return made


@dataclass
class Outcome:
    """What became of a number of crash states: how many, how many brick the device, and the first problem."""

    states: int = 0
    bricked: int = 0
    first: str = ""


def cut(recording: Recording, stock: Stock, folder: Path, random: Random, extra: int, stop: bool = False) -> Outcome:
    """Cut the power after each operation, in each way and `extra` random ones; equal states are tried once.

    Args:
        stop: at the first problem, and look no further than at the device as it comes up.
    """
    disk, outcome = Disk(recording.tree, recording.numbers.__getitem__), Outcome()
    seen: set[tuple[bytes, int, int]] = set()
    ways = [*WAYS, *((random.choice(get_args(Data)), random.choice(get_args(Names))) for _ in range(extra))]
    for at, operation in enumerate([None, *recording.log]):
        if operation is not None:
            disk.play(operation)
        if at < recording.killed:
            continue  # as without the kill
        low, high = recording.between(at)
        for data, names in ways:
            tree = disk.left(data, names, random)
            key = (digest(tree), low.generation, high.generation)
            if key in seen:
                continue
            seen.add(key)
            world = folder / "after"
            lay_out(tree, world)
            exempt = recording.scene.damaged and low is recording.facts[0]
            problem = problem_of(world / "device", low, high, exempt, None if stop else stock)
            shutil.rmtree(world)
            outcome.states += 1
            outcome.bricked += bool(problem)
            if problem and not outcome.first:
                last = f"{operation.kind} {operation.target or operation.path}" if operation else "nothing"
                outcome.first = (
                    f"{recording.scene.name}, {at} operations done, the last {last}; {data}/{names}: {problem}"
                )
            if problem and stop:
                return outcome
    return outcome


@dataclass
class Summary:
    """build/powercut-deploy/summary.json. `mutants`: how each was found; `problem`: the first of the real code."""

    states: int
    bricked: int
    by_scene: dict[str, int]
    operations: int
    mutants_planted: int
    mutants_caught: int
    seed: int
    seconds: float
    problem: str
    mutants: dict[str, str]

    @property
    def good(self) -> bool:
        """Nothing bricked, everything planted found."""
        return not self.bricked and self.mutants_caught == self.mutants_planted


def caught(name: str, stock: Stock, folder: Path, random: Random) -> str:
    """How one mutant was found; "" when it was not. The scenes are tried until one shows it."""
    for number, scene in enumerate(MUTANT_SCENES):
        here = folder / str(number)
        with MUTANTS[name]():
            for recording in recordings(scene, stock, here, 1):
                outcome = cut(recording, stock, here, random, 0, stop=True)
                if outcome.first:
                    return outcome.first
    return ""


def campaign(extra: int, stride: int, seed: int, report: Callable[[int, int], None]) -> Summary:
    """All scenes with `extra` random cuts after each operation and kills at each `stride`-th one, then all mutants."""
    start, random = time.monotonic(), Random(seed)
    outcomes: list[Outcome] = []
    by_scene = dict.fromkeys((scene.name for scene in SCENES), 0)
    operations, steps = 0, len(SCENES) + len(MUTANTS)
    with tempfile.TemporaryDirectory(dir=_fast()) as name:
        folder = Path(name)
        stock = Stock.made(folder)
        for number, scene in enumerate(SCENES):
            here = folder / f"scene-{number}"
            for recording in recordings(scene, stock, here, stride):
                outcomes.append(cut(recording, stock, here, random, 0 if scene.kill else extra))
                by_scene[scene.name] += outcomes[-1].states
                operations += len(recording.log)
            report(number + 1, steps)
        found = {}
        for number, mutant in enumerate(MUTANTS):
            found[mutant] = caught(mutant, stock, folder / f"mutant-{number}", random)
            report(len(SCENES) + number + 1, steps)
    return Summary(
        states=sum(by_scene.values()),
        bricked=sum(outcome.bricked for outcome in outcomes),
        by_scene=by_scene,
        operations=operations,
        mutants_planted=len(MUTANTS),
        mutants_caught=sum(bool(problem) for problem in found.values()),
        seed=seed,
        seconds=round(time.monotonic() - start, 1),
        problem=next((outcome.first for outcome in outcomes if outcome.first), ""),
        mutants=found,
    )


def _fast() -> Path | None:
    """Where syncing costs nothing: the cuts are the model's."""
    memory = Path("/dev/shm")  # noqa: S108  a directory of our own is made in it
    return memory if os.access(memory, os.W_OK) else None


@click.command()
@click.option("--extra", default=40, show_default=True, help="Random cuts after each operation, beside the fixed ones.")
@click.option("--stride", default=1, show_default=True, help="Kill a push at each N-th of its operations.")
@click.option("--seed", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/powercut-deploy/summary.json"))
@click.option("--json", "as_json", is_flag=True)
def main(extra: int, stride: int, seed: int, out: Path, as_json: bool) -> None:
    """Cut a device's power; exit code 1 when it is bricked anywhere, or a mutant is not found."""
    with progress("power cuts") as report:
        summary = campaign(extra, stride, seed, report)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(asdict(summary), indent=2) + "\n", encoding="utf-8")
    rows = {name: value for name, value in asdict(summary).items() if name not in ("mutants", "by_scene", "problem")}
    found = {f"mutant: {name}": problem or "NOT FOUND" for name, problem in summary.mutants.items()}
    emit(summary, as_json, key_values("Power cuts of a device", {**rows, "problem": summary.problem or "-", **found}))
    sys.exit(0 if summary.good else 1)


if __name__ == "__main__":
    main()
