"""The units are valid and stay hardened, alone and with each drop-in; users and directories are what they say."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[1] / "systemd"
SERVICE = UNITS / "appliance.service"
DROP_INS = ("", "network.conf", "gpu.conf")

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run one of systemd's programs."""
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def installed(folder: Path, drop_in: str) -> Path:
    """The service with a drop-in, in `folder`, with a program that exists on this machine; returns its path."""
    unit = folder / SERVICE.name
    unit.write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", SERVICE.read_text()))
    if drop_in:
        beside = folder / f"{SERVICE.name}.d"
        beside.mkdir()
        shutil.copy(UNITS / drop_in, beside)
    return unit


@pytest.mark.parametrize("drop_in", DROP_INS)
def test_the_service_verifies_without_a_word_and_stays_hardened(tmp_path: Path, drop_in: str) -> None:
    """Unknown keys only show on stderr, so it must be empty; exposure at most 3.1 of 10 by systemd's own count."""
    unit = installed(tmp_path, drop_in)
    verified = run("systemd-analyze", "verify", str(unit))
    assert (verified.returncode, verified.stderr) == (0, "")
    secure = run("systemd-analyze", "security", "--offline=yes", "--threshold=31", str(unit))
    assert secure.returncode == 0, secure.stdout[-500:]


def test_every_service_is_looked_at_and_the_path_unit_verifies(tmp_path: Path) -> None:
    """A new service in systemd/ must be added here."""
    assert [path.name for path in UNITS.glob("*.service")] == [SERVICE.name]
    installed(tmp_path, "")
    for path in UNITS.glob("*.path"):
        result = run("systemd-analyze", "verify", shutil.copy(path, tmp_path))
        assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is not installed")
def test_the_user_is_one_that_systemd_takes(tmp_path: Path) -> None:
    """Made in an empty root: without a password, with the home that tmpfiles.conf makes."""
    (tmp_path / "etc").mkdir()
    result = run("systemd-sysusers", f"--root={tmp_path}", str(UNITS / "sysusers.conf"))
    assert result.returncode == 0, result.stderr
    user = (tmp_path / "etc/passwd").read_text()
    assert re.search(r"^lineguard:x:\d+:\d+:Lineguard appliance:/var/lib/lineguard-station:/bin/sh$", user, re.M)
    assert re.search(r"^lineguard:!", (tmp_path / "etc/shadow").read_text(), re.M)
    assert "/var/lib/lineguard-station 0700 lineguard" in (UNITS / "tmpfiles.conf").read_text()


def test_the_service_owns_what_it_needs_and_nothing_else() -> None:
    """Type=notify with a watchdog, its own user, its two directories, no network until a drop-in says so."""
    lines = SERVICE.read_text().splitlines()
    for wanted in (
        "Type=notify",
        "WatchdogSec=10",
        "User=lineguard",
        "StateDirectory=lineguard lineguard-station",
        "PrivateNetwork=yes",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
    ):
        assert wanted in lines
