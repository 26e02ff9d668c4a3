"""Starting, watching and ending worker processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

WORKER = "appliance.worker"
"""Module that a worker process runs."""

RESTARTS = 5
WINDOW_NS = 60 * 10**9
"""More than RESTARTS in this time is a loop, and a fault."""


class Worker:
    """One worker process.

    Attributes:
        identity: its name on the workers' socket; a new one for each process, so that whatever a predecessor still
            had in flight is not taken for its successor's.
        pidfd: becomes readable when the process ends; for a poller.
    """

    def __init__(self, kind: str, identity: str, endpoint: str, settings: dict[str, Any], descriptor: int) -> None:
        """Start it. `descriptor` is the shared memory, inherited under its own number."""
        self.identity = identity
        told = {**settings, "identity": identity, "endpoint": endpoint, "parent": os.getpid(), "ring": descriptor}
        self._process = subprocess.Popen(
            [sys.executable, "-m", WORKER, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=(descriptor,),
            env=_environment(),
        )
        self.pidfd = os.pidfd_open(self._process.pid)
        assert self._process.stdin is not None  # noqa: S101  a pipe was asked for
        try:
            self._process.stdin.write(json.dumps(told).encode())
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it died at once; the pidfd says so

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll()

    def kill(self) -> None:
        """End it now and wait until it is gone: afterwards it writes to no slot."""
        self._process.kill()
        self._process.wait()

    def end(self, timeout_s: float) -> None:
        """Wait for it to end by itself, which it was told to do; kill it after `timeout_s` seconds."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def forget(self) -> None:
        """Close the descriptor of a process that has ended."""
        os.close(self.pidfd)


class RestartLimit:
    """Whether a worker may be started once more. Pure but for what it remembers."""

    def __init__(self) -> None:
        self._starts: deque[int] = deque()

    def allows(self, now_ns: int) -> bool:
        """Count one restart at `now_ns` (monotonic); False when there were too many."""
        while self._starts and self._starts[0] < now_ns - WINDOW_NS:
            self._starts.popleft()
        self._starts.append(now_ns)
        return len(self._starts) <= RESTARTS


def _environment() -> dict[str, str]:
    """Workers load the very code that runs here, whatever directory the daemon was started in; one thread each for
    libraries that would otherwise start one per core at import."""
    package = str(Path(__file__).resolve().parent.parent)
    paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return {**os.environ, **single, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
