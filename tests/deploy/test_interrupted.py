"""A push killed before any one of its file operations: the device judges with a whole bundle, the next push works."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.bundle import open_bundle
from deploy.install import Device
from deploy.record import open_active, read_history, read_record, read_state, read_status
from deploy.rollout import push
from deploy.slots import SlotState

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.chmod", "fcntl.flock")
DONE, KILLED = 0, 77


def _killed_at(step: int, work: Callable[[], object], inside: Path) -> None:
    """Carry `work` out and die, without any clean-up, before its `step`-th file operation below `inside`."""
    seen = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event not in EVENTS:
            return
        if event != "fcntl.flock" and not str(arguments[0]).startswith(str(inside)):
            return
        seen += 1
        if seen == step:
            os._exit(KILLED)

    sys.addaudithook(count)
    work()
    os._exit(DONE)


def exit_code(step: int, work: Callable[[], object], inside: Path) -> int | None:
    """The exit code of a child that was to be killed."""
    process = multiprocessing.get_context("fork").Process(target=_killed_at, args=(step, work, inside))
    process.start()
    process.join(30)
    return process.exitcode


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where syncing costs nothing, if there is such a place: a kill loses no written data, synced or not."""
    memory = Path("/dev/shm")  # noqa: S108  a directory of our own is made in it
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def line(place: Path, bundles: list[Path], shas: list[str]) -> Path:
    """A device that has confirmed one, then two: both slots are full."""
    root = place / "line"
    for path, digest in zip(bundles[:2], shas[:2], strict=True):
        push(path, [f"file:{root}"])
        Device(root).confirm(digest)
    return root


def check(root: Path, allowed: set[str]) -> None:
    """A whole bundle judges, one of those allowed; the record tells no more than happened."""
    assert open_active(root).sha256 in allowed
    record = read_record(root)
    assert read_status(root).intact[record.active or "a"]
    carried_out = [step for step in read_history(root) if step.generation <= record.generation]
    assert len(carried_out) >= record.generation - 1  # emptying a slot is no step of its own


def test_a_push_killed_anywhere(line: Path, bundles: list[Path], shas: list[str], place: Path) -> None:
    """The old bundle or the new one judges, never none and never a mix; pushing again completes it."""
    killed = 0
    for step in range(1, 1000):
        root = place / f"copy-{step}"
        shutil.copytree(line, root)
        code = exit_code(step, lambda root=root: push(bundles[2], [f"file:{root}"]), root)
        check(root, {shas[1], shas[2]})
        again = push(bundles[2], [f"file:{root}"])
        assert again.failed == ()
        assert open_active(root).sha256 == shas[2]
        assert read_state(root).active_slot is not None
        assert not list(root.rglob("bundle.lgb.part"))
        shutil.rmtree(root)
        if code == DONE:
            break
        assert code == KILLED
        killed += 1
    assert killed >= 20


def test_the_first_push_killed_anywhere(bundles: list[Path], shas: list[str], place: Path) -> None:
    """Nothing judges before it is complete; pushing again always completes it."""
    killed = 0
    for step in range(1, 1000):
        root = place / f"first-{step}"
        code = exit_code(step, lambda root=root: push(bundles[0], [f"file:{root}"]), root)
        again = push(bundles[0], [f"file:{root}"])
        assert again.failed == (), again.failed
        assert open_active(root).sha256 == shas[0]
        if code == DONE:
            break
        assert code == KILLED
        killed += 1
    assert killed >= 15


def test_a_rollback_killed_anywhere(line: Path, shas: list[str], place: Path) -> None:
    """Before or after, nothing between."""
    killed = 0
    for step in range(1, 1000):
        root = place / f"back-{step}"
        shutil.copytree(line, root)
        code = exit_code(step, lambda root=root: Device(root).rollback("operator"), root)
        check(root, {shas[0], shas[1]})
        if read_state(root).active == "b":
            Device(root).rollback("operator")
        assert open_active(root).sha256 == shas[0]
        assert read_state(root).b.state is SlotState.REJECTED
        if code == DONE:
            break
        killed += 1
    assert killed >= 5


def test_the_bundles_themselves_are_untouched(bundles: list[Path], shas: list[str]) -> None:
    """Whatever happened to the copies."""
    assert [open_bundle(path).sha256 for path in bundles] == shas
