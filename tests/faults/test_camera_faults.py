"""Faults of cameras and frames, each on a running line: the part is rejected for its reason, the next ones pass."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Asked
from tests.faults.simulator.world import CameraOrder, Kind, Word


@pytest.mark.parametrize(
    ("kind", "reasons"),
    [
        (Kind.EMPTY, {"BAD_IMAGE", "DECODE"}),
        (Kind.TRUNCATED, {"BAD_IMAGE", "DECODE"}),
        (Kind.GEOMETRY, {"FORMAT"}),
        (Kind.BLACK, {"BAD_IMAGE"}),
        (Kind.FROZEN, {"FROZEN"}),
        (Kind.OLD, {"FROZEN"}),
        (Kind.NO_FRAME, {"NO_FRAME"}),
        (Kind.LATE, {"LATE"}),
        (Kind.FLIPPED, {"CHECKSUM"}),
        (Kind.OVERWRITTEN, {"CHECKSUM"}),
        (Kind.UNSEEN, {"NO_FRAME"}),
    ],
    ids=lambda value: value.name.lower() if isinstance(value, Kind) else "",
)
def test_a_bad_frame_is_rejected_for_its_reason(asked: Asked, kind: Kind, reasons: set[str]) -> None:
    """Faults 3, 4, 5 (black), 6, 7, 8, 9, 10, 11, 12: one row with the right reason, no PASS, and the line goes on."""
    number = asked.shot(kind)
    verdict, reason = asked.row(number)
    assert verdict == "REJECT"
    assert reason in reasons
    asked.line.passes(3)
    assert not asked.accepted(number)


def test_a_camera_that_is_unplugged_is_opened_again(asked: Asked) -> None:
    """Fault 1: an alert that tells what the driver said, a new process, and PASSes again."""
    before = asked.alerts("CAMERA")
    asked.line.world.set(Word.CAMERA, CameraOrder.UNPLUG)
    asked.wait(lambda: asked.alerts("CAMERA") > before, "alert")
    assert "UnpluggedError" in asked.rows("SELECT message FROM alert WHERE kind = 'CAMERA' ORDER BY id DESC")[0][0]
    asked.line.passes(5)


def test_a_killed_camera_process_loses_no_part(asked: Asked) -> None:
    """Fault 1, by kill -9: what the process had shot and not told of is rejected, each part once."""
    first = asked.line.world.parts
    assert asked.line.kill_worker("camera")
    asked.line.passes(10)
    last = asked.line.world.parts - 40  # rows of the newest parts are still on their way
    found = [n for (n,) in asked.rows("SELECT trigger FROM verdict WHERE trigger >= ? AND trigger < ?", first, last)]
    assert sorted(found) == list(range(first, last))


def test_more_parts_than_can_be_judged_overflow(asked: Asked) -> None:
    """Faults 15, 37: what has piled up while everything stood still is rejected, and nothing passes late."""
    first = asked.line.world.parts
    asked.line.pause(1.0)
    asked.line.passes(5)
    assert asked.reasons_from(first) & {"OVERFLOW", "LATE"}


def test_a_camera_that_stalls_is_started_anew(asked: Asked) -> None:
    """Fault 2: the driver's call never returns; its process is ended by the supervisor's own clock."""
    before = asked.alerts("CAMERA")
    asked.line.world.set(Word.CAMERA, CameraOrder.STALL)
    asked.wait(lambda: asked.alerts("CAMERA") > before, "alert")
    asked.line.passes(5)
