"""The scheduled challenge: known frames between the parts, which nothing counts; a wrong answer holds the line."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from appliance.challenge import ANSWER_NS, Schedule
from appliance.messages import State
from tests.appliance.stations import Daemon, appliance, make_station, rows, run_json

PACED = "loop = true\nfps = 60.0"
OFTEN = "[challenge]\nevery_minutes = 0.005"
SECOND = 10**9
GOLDENS = 8
"""Of the tiny bundle; they lie in the last slots of the ring."""


@pytest.mark.parametrize(
    ("every_parts", "every_ns", "parts", "now_ns", "due"),
    [
        (100, 0, 99, 10**15, False),
        (100, 0, 100, 1, True),
        (0, SECOND, 10**6, SECOND - 1, False),
        (0, SECOND, 0, SECOND, True),
        (100, SECOND, 5, SECOND, True),
        (0, 0, 10**6, 10**15, False),
    ],
)
def test_a_challenge_is_due_by_parts_or_by_time(
    every_parts: int, every_ns: int, parts: int, now_ns: int, due: bool
) -> None:
    """Whichever comes first; neither where both are off."""
    assert Schedule(every_parts, every_ns, 0, 0).look(parts, now_ns) is due


def test_a_right_answer_begins_anew() -> None:
    """Parts and time count from it."""
    schedule = Schedule(100, SECOND, 0, 0)
    assert schedule.look(100, 5)
    schedule.passed(130, 6)
    assert not schedule.look(229, SECOND + 5)
    assert schedule.look(230, 7)


def test_without_a_right_answer_it_is_missed() -> None:
    """From the moment at which it was due, however often it is looked at."""
    schedule = Schedule(0, SECOND, 0, 0)
    assert not schedule.missed(ANSWER_NS * 2)
    assert schedule.look(0, SECOND)
    assert schedule.look(0, 2 * SECOND)
    assert not schedule.missed(SECOND + ANSWER_NS - 1)
    assert schedule.missed(SECOND + ANSWER_NS)


def test_challenges_are_on_record_and_count_as_no_parts(tmp_path: Path) -> None:
    """Rows, tally and histogram are the parts' alone."""
    config = make_station(tmp_path, 60, "fps = 60.0", OFTEN)
    summary = run_json(config)
    assert summary["counts"]["triggers"] == summary["rows"] == 60
    assert len(rows(config)) == 60
    assert rows(config, "SELECT coalesce(sum(parts), 0) FROM tally") == [(60,)]
    assert rows(config, "SELECT coalesce(sum(parts), 0) FROM histogram") == [(60,)]
    assert rows(config, "SELECT count(*) > 0 FROM audit WHERE action = 'challenge passed'") == [(1,)]
    assert rows(config, "SELECT count(*) FROM alert") == [(0,)]


def flip_goldens(pid: int) -> None:
    """One bit of each golden in the daemon's shared memory is another one."""
    for name in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{name}"
        if "lineguard-ring" in os.readlink(path):
            descriptor = os.open(path, os.O_RDWR)
            size = os.fstat(descriptor).st_size
            for place in range(size - GOLDENS * 32 * 48, size, 32 * 48):
                os.pwrite(descriptor, bytes([os.pread(descriptor, 1, place)[0] ^ 1]), place)
            os.close(descriptor)
            return  # the mapping holds a descriptor of its own


def test_a_missed_challenge_holds_the_line_until_somebody_has_looked(tmp_path: Path) -> None:
    """The known frames have rotted in memory: nothing passes, an alert; when they are whole again the line waits for an
    operator."""
    config = make_station(tmp_path, 20, PACED, OFTEN)
    with Daemon(config) as daemon:
        daemon.until(lambda s: s.state is State.RUN and s.counts.ok > 5, 40.0)
        flip_goldens(daemon.process.pid)
        held = daemon.until(lambda s: s.state is State.HOLD, 30.0)
        assert "challenge missed: a golden changed in memory" in held.state_reason
        later = daemon.until(lambda s: s.counts.triggers > held.counts.triggers + 60)
        assert later.counts.ok <= held.counts.ok
        flip_goldens(daemon.process.pid)
        daemon.until(lambda s: "over" in s.state_reason, 30.0)
        resumed = appliance("resume", "--config", config, "--operator", "anna")
        assert resumed.returncode == 0, resumed.stderr
        daemon.until(lambda s: s.state is State.RUN and s.counts.ok > later.counts.ok)
        daemon.stop(signal.SIGTERM)
    assert rows(config, "SELECT kind FROM alert") == [("CHALLENGE",)]
    assert {("challenge missed",), ("challenge passed",)} <= set(rows(config, "SELECT action FROM audit"))
