"""Everything the appliance needs on a device without a network: wheels, and the units of this release."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from calibration.errors import InputError
from calibration.text import one_line

SOURCE = Path(__file__).resolve().parents[1]
_NOT_BUILT = (".*", "build", "tests", "docs", "benchmarks", "*.egg-info", "__pycache__")
_GLIBC = ("2_28", "2_27", "2_26", "2_24", "2_17")
"""manylinux versions, newest first, all by name: with the oldest alone pip silently takes old packages."""


def build_wheelhouse(out: Path, extra: str, python: tuple[int, int], machine: str) -> None:
    """Build this release's wheel and download what it needs, into `out`.

    Args:
        extra: of the package, "cpu" or "gpu".
        python, machine: of the device: (3, 11), "aarch64".

    Raises:
        InputError: this is no source tree, or pip failed; with what it said.
    """
    if not (SOURCE / "pyproject.toml").exists():
        raise InputError("this lineguard was not installed from its source tree; name its wheels with --wheelhouse DIR")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:  # a copy: what earlier builds left in the tree must not get in
        tree = shutil.copytree(SOURCE, Path(folder) / "lineguard", ignore=shutil.ignore_patterns(*_NOT_BUILT))
        _pip("wheel", "--no-deps", "--wheel-dir", str(out), str(tree))
    words = ["download", "--dest", str(out), "--find-links", str(out), "--only-binary=:all:"]
    words += ["--constraint", str(SOURCE / "constraints.txt")]
    if (python, machine) != (sys.version_info[:2], platform.machine()):
        words += ["--python-version", f"{python[0]}.{python[1]}", "--implementation", "cp"]
        words += [word for glibc in _GLIBC for word in ("--platform", f"manylinux_{glibc}_{machine}")]
        words += ["--platform", f"manylinux2014_{machine}"]
    _pip(*words, f"lineguard[{extra}]")


def units() -> dict[str, bytes]:
    """systemd/, by file name. Raises InputError where this is no source tree."""
    found = {path.name: path.read_bytes() for path in sorted((SOURCE / "systemd").glob("*"))}
    if "appliance.service" not in found:
        raise InputError(f"{SOURCE / 'systemd'}: no units here; run deploy from Lineguard's source tree")
    return found


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr]
        raise InputError(f"pip {words[0]}: {one_line(said[-1])[:300]}")
