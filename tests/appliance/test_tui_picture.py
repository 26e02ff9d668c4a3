"""docs/make_screenshot.py: the picture in the README comes from a real daemon."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.tiny import tiny_bundle, write_parts

ROOT = Path(__file__).resolve().parents[2]


def make(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the script as `make screenshot` does."""
    command = [sys.executable, str(ROOT / "docs" / "make_screenshot.py"), *(str(word) for word in arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


def test_the_picture_shows_a_real_run_and_fetches_nothing(tmp_path: Path) -> None:
    """A daemon judges parts, the screen counts them, and the picture loads no font from elsewhere."""
    tiny_bundle(tmp_path / "tiny.lgb")
    write_parts(tmp_path / "frames", 20)
    words = ("--bundle", tmp_path / "tiny.lgb", "--frames", tmp_path / "frames", "--out", tmp_path / "tui.svg")
    done = make(*words, "--fps", "100", "--parts", "50")
    assert done.returncode == 0, done.stderr
    picture = (tmp_path / "tui.svg").read_text()
    assert "RUN" in picture
    assert "scratch" in picture
    assert "url(" not in picture.replace("url(#", "")


def test_without_a_demo_it_says_what_to_run(tmp_path: Path) -> None:
    """The bundle comes from the demo."""
    done = make("--bundle", tmp_path / "none.lgb")
    assert done.returncode == 1
    assert "run `make demo` first" in done.stderr
