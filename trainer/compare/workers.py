"""Cells computed side by side: a process a core, one thread in each.

One thread, because what several threads sum rounds by how many they are: so a comparison comes to the same figures with
any number of workers.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from calibration.errors import InputError
from trainer.compare.cells import cell_file, run_cell, write_cell
from trainer.compare.folds import Split
from trainer.compare.recipes import Candidate
from trainer.compare.store import CACHE, Store
from trainer.data.manifest import Dataset
from trainer.features import Progress

WORKER_BYTES = 3 * 2**30
"""Memory to reckon with for one worker; a judgement: it grows with the frames and with what learns from them."""

LOOK_EVERY = 0.2
"""Seconds between two looks at what the workers report."""

STORY_BYTES = 400
"""What a worker tells at once, at most. A pipe takes as little whole or not at all (PIPE_BUF is 512 or more, by POSIX),
so that workers may share it without a lock, and one that is killed leaves neither half a message nor a lock behind."""


@dataclass(frozen=True)
class Task:
    """What one worker computes at a stretch, in this order: cells on one split, of recipes that share a backbone."""

    candidates: tuple[Candidate, ...]
    split: Split


def usual_jobs() -> int:
    """As many workers as this process has cores, and as the memory that is free now has room for; at least one."""
    found = re.search(r"^MemAvailable: *(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
    fitting = int(found[1]) * 1024 // WORKER_BYTES if found else 1
    return max(1, min(len(os.sched_getaffinity(0)), fitting))


def compute(
    tasks: Sequence[Task], dataset: Dataset, out: Path, jobs: int, device: torch.device, progress: Progress
) -> int:
    """Compute the cells of all tasks and write each into ``out`` as soon as it is there.

    Args:
        jobs: >= 1, how many workers at most.
        device: where upper stages learn.
        progress: is told of the cells, and what each worker is at.

    Returns:
        How many cells there were.

    Raises:
        InputError: a worker found its input unusable, or was ended from outside. What was finished by then is kept.
    """
    total = sum(len(task.candidates) for task in tasks)
    if not tasks:
        return 0
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit the locks of PyTorch's threads
    heard, told = spawn.Pipe(duplex=False)
    with (
        heard,
        told,
        _one_thread_each(),
        ProcessPoolExecutor(min(jobs, len(tasks)), spawn, _begin, (dataset, out, device, told)) as pool,
    ):
        try:
            pending: set[Future[int]] = {pool.submit(_work, task) for task in tasks}
            done = 0
            while pending:
                finished, pending = wait(pending, LOOK_EVERY, FIRST_EXCEPTION)
                done += sum(future.result() for future in finished)
                while heard.poll():
                    progress(*json.loads(heard.recv_bytes()))
                progress("cells", done, total)
        except BrokenProcessPool:
            raise InputError(
                f"{out}: a worker was ended from outside, most likely because memory ran out; finished trainings are "
                f"kept: run the command again with fewer than --jobs {jobs}"
            ) from None
        except BaseException:
            _end_workers()
            raise
    return total


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """What libraries read when a process loads them; this one has loaded them already."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _end_workers() -> None:
    """End those that are at work still, because another failed or the user broke off."""
    for process in multiprocessing.active_children():
        process.terminate()


@dataclass(frozen=True)
class _Bench:
    """What a worker has for all its tasks."""

    store: Store
    out: Path


_bench: _Bench


def _begin(dataset: Dataset, out: Path, device: torch.device, told: Connection) -> None:
    """First thing in a worker."""
    global _bench
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches every process; one traceback would be too many
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    number = multiprocessing.current_process().name.rpartition("-")[2]

    def report(what: str, done: int, total: int) -> None:
        story = json.dumps([f"worker {number}: {what}", done, total]).encode()
        if len(story) <= STORY_BYTES:
            told.send_bytes(story)

    _bench = _Bench(Store(dataset, out / CACHE, report, device), out)


def _end_with_parent() -> None:
    """A worker that nobody waits for ends, instead of computing for hours or waiting for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _work(task: Task) -> int:
    """Compute the cells of a task; how many there were."""
    store = _bench.store
    for candidate in task.candidates:
        cell = run_cell(candidate, task.split, store, store.progress)
        write_cell(cell_file(_bench.out, store.fingerprint(candidate), task.split), cell)
    return len(task.candidates)
