"""The README's commands do what it says, in order, on a generated folder of images."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.folders import FolderSpec, write_folder

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    """Contents of the README's fenced blocks of one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)


def commands(block: str) -> list[list[str]]:
    """The command lines of a block, split as a shell would."""
    return [shlex.split(line) for line in block.splitlines() if line.strip()]


def run(folder: Path, *command: str) -> str:
    """Run one of Lineguard's programs from this environment; its standard output."""
    program = Path(sys.executable).with_name(command[0])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [program, *command[1:]], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_a_folder_of_images_becomes_a_judging_station(tmp_path: Path) -> None:
    """Every command of the README works as written, from a folder of images to the station's status."""
    write_folder(tmp_path / "images", FolderSpec(48, 64, counts=(45, 20, 15)))
    _, training, judging = blocks("bash")
    for command in commands(training):
        run(tmp_path, *command)
    (tmp_path / "station.toml").write_text(blocks("toml")[0])
    outputs = [run(tmp_path, *command) for command in commands(judging)]
    assert re.search(r"^\W*parts\W+80\W*$", outputs[-1], flags=re.MULTILINE), outputs[-1]


def test_the_two_commands_are_make_targets() -> None:
    """What the README promises to a newcomer exists."""
    targets = README.with_name("Makefile").read_text()
    for _, target in commands(blocks("bash")[0]):
        assert re.search(rf"^{target}:", targets, flags=re.MULTILINE)
