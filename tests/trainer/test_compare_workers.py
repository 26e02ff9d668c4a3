"""Cells of a comparison computed by several processes: the same figures, and nobody left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from calibration.errors import InputError
from tests.support.folders import FolderSpec, write_folder
from trainer.compare import workers
from trainer.compare.recipes import Candidate, pick
from trainer.compare.run import Comparison, compare
from trainer.data.importers import import_folder
from trainer.data.manifest import read_dataset
from trainer.features import Progress, silent

PLAIN = pick(["fine-tuned-adjusted"])
"""The baseline, and one that learns; shortened by `few`."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 good and 6 scratched parts, 48x48."""
    root = tmp_path_factory.mktemp("workers")
    write_folder(root / "images", FolderSpec(48, 48, (16, 6)))
    import_folder(root / "images", root / "data", licence="none")
    return root / "data"


def few(epochs: int = 1) -> tuple[Candidate, ...]:
    """The baseline, and two recipes that share a backbone."""
    baseline, tuned = PLAIN
    fast = replace(tuned.recipe, batch=4, frozen_stages=5, flips="none", flip_average="none")
    short = replace(fast, epochs=epochs, patience=epochs)
    return baseline, Candidate("short", short), Candidate("far", replace(short, name="far", anomaly=True))


def run(data: Path, out: Path, jobs: int, progress: Progress = silent, epochs: int = 1) -> Comparison:
    """Compare the few on three folds."""
    return compare(read_dataset(data), out, few(epochs), 3, 1, 0.1, ["grouped"], progress, draws=5, jobs=jobs)


def cells(out: Path) -> dict[str, list[str]]:
    """The logits that every cell holds, as they are written."""
    kept = {str(path.relative_to(out)): path.read_text().splitlines() for path in out.rglob("grouped-*.json")}
    timed = ("seconds", "images_per_second")
    return {name: [line for line in lines if not any(word in line for word in timed)] for name, lines in kept.items()}


def test_two_workers_compute_the_very_cells_of_one(data: Path, tmp_path: Path) -> None:
    """To the last digit, recipes that learn among them; and every cell once."""
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    told = []
    assert run(data, alone, 1).computed == 9
    assert run(data, shared, 2, lambda what, done, total: told.append((what, done, total))).computed == 9
    assert cells(shared) == cells(alone)
    assert told[-1] == ("cells", 9, 9)
    assert all(what == "cells" or what.startswith("worker ") for what, _, _ in told)


def test_there_are_as_many_workers_as_cores_and_memory_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default, and at least one."""
    cores = len(os.sched_getaffinity(0))
    monkeypatch.setattr(workers, "WORKER_BYTES", 1)
    assert workers.usual_jobs() == cores
    monkeypatch.setattr(workers, "WORKER_BYTES", 2**60)
    assert workers.usual_jobs() == 1


def test_a_worker_that_is_killed_is_said_and_what_was_finished_is_kept(data: Path, tmp_path: Path) -> None:
    """One line with the remedy; called again, the command goes on."""

    def kill_one(what: str, done: int, total: int) -> None:
        if what == "cells" and done:
            os.kill(next(child.pid for child in multiprocessing.active_children() if child.pid), signal.SIGKILL)

    with pytest.raises(InputError, match=r"a worker was ended from outside.*fewer than --jobs 2"):
        run(data, tmp_path / "out", 2, kill_one, epochs=3)
    kept = len(cells(tmp_path / "out"))
    assert kept > 0
    assert run(data, tmp_path / "out", 2, epochs=3).computed == 9 - kept


def test_a_comparison_that_is_broken_off_leaves_no_worker(data: Path, tmp_path: Path) -> None:
    """Ctrl-C does not wait for trainings to end."""

    def break_off(what: str, done: int, total: int) -> None:
        if "epochs of this cell" in what:
            raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "out", 2, break_off, epochs=300)
    assert multiprocessing.active_children() == []
    assert time.monotonic() - begun < 60


def test_workers_end_with_a_command_that_was_killed(data: Path, tmp_path: Path) -> None:
    """They would compute for hours for nobody."""
    words = [Path(sys.executable).with_name("trainer"), "compare", data, "--out", tmp_path / "out", "--folds", "3"]
    command = [*map(str, words), "--recipes", "whole", "--jobs", "2"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as parent:
        started = wait_for_workers(parent.pid)
        parent.kill()
    deadline = time.monotonic() + 30
    while any(is_alive(pid) for pid in started):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def wait_for_workers(parent: int) -> list[int]:
    """Two children that run Python's spawned main; the resource tracker is none."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        found = [int(pid) for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
        if len(found) == 2:
            return found
        time.sleep(0.1)
    raise AssertionError("no two workers within a minute")


def is_alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
