"""The units are valid and stay hardened."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[1] / "systemd" / "appliance.service"

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze."""
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60, check=False)  # noqa: S607


def test_the_unit_verifies_without_a_word(tmp_path: Path) -> None:
    """Unknown keys only show on stderr, so it must be empty (with a program that exists on this machine)."""
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text()))
    result = analyze("verify", str(unit))
    assert (result.returncode, result.stderr) == (0, "")


def test_the_unit_stays_hardened() -> None:
    """Exposure at most 3.1 of 10 by systemd's own count."""
    result = analyze("security", "--offline=yes", "--threshold=31", str(UNIT))
    assert result.returncode == 0, result.stdout[-500:]
