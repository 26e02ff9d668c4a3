"""Where a bundle comes from: code revision, package versions, time."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from calibration.errors import InputError

PACKAGES = ("lineguard", "numpy", "onnx", "onnxruntime", "onnxscript", "opencv-python-headless", "torch")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a model computes."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def code_revision() -> str:
    """Git revision of this program, with `-dirty` where files were changed; "unknown" when it is no checkout."""
    root = Path(__file__).resolve().parents[1]
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return "unknown"
    command = [git, "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 and answer.stdout.strip() else "unknown"


def created() -> datetime:
    """Now, in UTC to the second; or SOURCE_DATE_EPOCH where it is set, so that equal runs give equal bundles.

    Raises:
        InputError: SOURCE_DATE_EPOCH is no number of seconds.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is None:
        return datetime.now(timezone.utc).replace(microsecond=0)
    try:
        return datetime.fromtimestamp(int(epoch), timezone.utc)
    except (ValueError, OverflowError, OSError):
        raise InputError(f"SOURCE_DATE_EPOCH: {epoch!r} is no number of seconds since 1970; unset it") from None
