"""One bundle onto many devices: some at a time, a few first, and no further once a trial has failed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from calibration.errors import InputError
from deploy.bundle import open_bundle
from deploy.inventory import Ways
from deploy.push import Order, Outcome, Watch, push_one, rollback_one, unwatched
from deploy.transport import Transport

JOBS = 8
STOPS = ("TrialFailed", "TrialPending")
T = TypeVar("T")


@dataclass(frozen=True)
class Rollout:
    """How many devices, and when.

    Attributes:
        jobs: devices worked on at once.
        canary: so many of them first, alone; the others follow once all of these have confirmed the bundle.
        wait_s: how long each trial is watched; 0 pushes and leaves.
    """

    jobs: int = JOBS
    canary: int = 0
    wait_s: float = 0.0

    def __post_init__(self) -> None:
        if self.jobs < 1 or self.canary < 0 or not 0 <= self.wait_s < float("inf"):
            raise InputError("--jobs is 1 at least, --canary and --wait are not negative")
        if self.canary and not self.wait_s:
            raise InputError("--canary needs --wait SECONDS: how long the first devices may take to confirm the bundle")


@dataclass(frozen=True)
class PushReport:
    """Who has what after a push."""

    file: Path
    name: str
    sha256: str
    dry_run: bool
    devices: tuple[Outcome, ...]

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The devices that did not get the bundle, or did not keep it."""
        return tuple(outcome for outcome in self.devices if outcome.error)


def push(
    file: Path,
    devices: Sequence[str],
    watch: Watch = unwatched,
    dry_run: bool = False,
    retry: bool = False,
    rollout: Rollout = Rollout(),
    ways: Ways = Ways(),  # noqa: B008  frozen
) -> PushReport:
    """Verify a bundle and put it on trial on each device.

    A device that cannot be reached does not stop the others, unless it is a canary; a trial that fails does.

    Args:
        file: the bundle.
        devices: as they are written, see deploy.inventory.
        watch: progress, one per device that is copied to; called from several threads.
        dry_run: make the plans, carry none out.
        retry: push even what a device has rejected before.
        rollout: see Rollout.
        ways: how devices are reached.

    Raises:
        BundleError: the file is no good; no device was touched.
        InputError: a name stands for no device; no device was touched.
    """
    bundle = open_bundle(file)
    transports = ways.reach(devices)
    order = Order(file, bundle.sha256, dry_run, retry, rollout.wait_s)
    first = transports[: 0 if dry_run else rollout.canary]
    outcomes = _wave(order, first, rollout.jobs, watch, "")
    failed = next((outcome for outcome in outcomes if outcome.error), None)
    stopped = f"canary {failed.address} failed ({failed.error})" if failed else ""
    outcomes += _wave(order, transports[len(first) :], rollout.jobs, watch, stopped)
    return PushReport(file, bundle.manifest.name, bundle.sha256, dry_run, tuple(outcomes))


def _wave(order: Order, devices: Sequence[Transport], jobs: int, watch: Watch, stopped: str) -> list[Outcome]:
    """Push to some devices at once; once a trial has failed no further one is begun."""
    lock = threading.Lock()

    def one(device: Transport) -> Outcome:
        nonlocal stopped
        if stopped:
            return Outcome(device.address, error=f"not pushed: {stopped}", kind="Stopped")
        outcome = push_one(order, device, watch)
        if outcome.kind in STOPS:
            with lock:
                stopped = stopped or f"the trial on {outcome.address} failed ({outcome.error})"
        return outcome

    return on_each(devices, one, jobs)


def rollback(
    devices: Sequence[str], reason: str, dry_run: bool = False, jobs: int = JOBS, ways: Ways = Ways()  # noqa: B008
) -> tuple[Outcome, ...]:  # fmt: skip
    """Each device back to the bundle it had confirmed before.

    Raises:
        InputError: a name stands for no device; no device was touched.
    """
    return tuple(on_each(ways.reach(devices), lambda device: rollback_one(device, reason, dry_run), jobs))


def on_each(devices: Sequence[Transport], work: Callable[[Transport], T], jobs: int) -> list[T]:
    """What `work` gives for each device, in order; so many at a time, and each is hung up on afterwards."""

    def one(device: Transport) -> T:
        try:
            return work(device)
        finally:
            device.close()

    pool = ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="device")
    try:
        return list(pool.map(one, devices))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
