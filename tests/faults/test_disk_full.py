"""Disk full (a real one, of a few MiB): the line is held, no row is lost, and it recovers by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.upkeep import MARGIN, Space, space

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = ["unshare", "--map-root-user", "--mount"]


def on_small_disk(directory: Path, case: str) -> dict[str, Any]:
    """Run a station on a tmpfs of 32 MiB; skips where this user may not mount one."""
    mount = f"mount -t tmpfs -o size=32m lineguard {directory}"
    try:
        allowed = subprocess.run([*NAMESPACE, "sh", "-c", mount], capture_output=True, timeout=20).returncode == 0
    except OSError:
        allowed = False
    if not allowed:
        pytest.skip("a mount namespace of one's own is needed (unshare --map-root-user --mount)")
    script = f'{mount} && exec "$0" -m tests.faults.on_small_disk {directory} {case}'
    done = subprocess.run(
        [*NAMESPACE, "sh", "-c", script, sys.executable], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("case", ["full", "low"])
def test_a_full_disk_holds_the_line_and_loses_nothing(tmp_path: Path, case: str) -> None:
    """HOLD: nothing passes, every trigger has its row in the end, PASS only with a row; afterwards RUN again."""
    found = on_small_disk(tmp_path, case)
    assert ("full" in found["held"]) if case == "full" else ("MiB free" in found["held"])
    assert found["passed_while_held"] == 0
    assert found["rows"] == found["triggers"]
    assert found["each_trigger_once"]
    assert found["passed"] == found["ok"] == found["passes_in_rows"]
    assert found["integrity"] == "ok"
    if case == "full":
        assert found["rows_written_while_held"] < found["triggers_at_hold"]
        assert "DATABASE" in found["alerts"]
    else:
        assert found["rows_written_while_held"] >= found["triggers_at_hold"]
        assert "DISK" in found["alerts"]
        assert "LOG" not in found["rejects"]


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 2000), st.sampled_from(Space))
def test_space_gets_worse_at_once_and_better_with_a_margin(free: int, warn: int, hold: int, before: Space) -> None:
    """Below a limit is below it, whatever was before; well above both everything is fine."""
    now = space(free, warn, hold, before)
    if free < hold:
        assert now is Space.FULL
    elif free < warn:
        assert now >= Space.LOW
    if free >= MARGIN * max(warn, hold):
        assert now is Space.ENOUGH
    assert space(free, warn, hold, now) is now
