"""How `deploy serve` starts on a device: with little, and with the exit codes of every command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from calibration.errors import InputError
from tests.support import nspawn

_ASKED = """
import json, runpy, sys
sys.argv = ["deploy", "serve", sys.argv[1]]
runpy.run_module("deploy", run_name="__main__")
print(json.dumps(sorted(name for name in sys.modules if "." not in name)))
"""


def test_a_device_loads_no_command_line_and_no_arithmetic_to_answer(tmp_path: Path) -> None:
    """They cost more than the answer; what it knows of manifests is there all the same."""
    words = [sys.executable, "-c", _ASKED, str(tmp_path / "device")]
    said = subprocess.run(words, input=b'{"do": "facts"}\n', capture_output=True, check=True).stdout.splitlines()
    hello, reply, loaded = (json.loads(line) for line in said)
    assert (hello["protocol"], reply["error"], reply["state"]) == (1, "", None)
    assert not {"click", "rich", "numpy", "cv2", "asyncssh", "tuf"} & set(loaded)
    assert "pydantic" in loaded


@pytest.mark.parametrize("line", [b"hello\n", b'{"do": "format"}\n', b'{"do": "facts", "more": 1}\n'])
def test_what_is_no_request_ends_it_with_one_line_and_exit_code_2(tmp_path: Path, line: bytes) -> None:
    """As every command ends where its input is unusable."""
    words = [sys.executable, "-m", "deploy", "serve", str(tmp_path / "device")]
    done = subprocess.run(words, input=line, capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: request not understood: ")
    assert done.stderr.count(b"\n") == 1


def test_the_other_commands_are_there(tmp_path: Path) -> None:
    """The same program, also for `serve` with options."""
    for words in (["--version"], ["serve", "--help"], ["serve", str(tmp_path), "--json"]):
        done = subprocess.run([sys.executable, "-m", "deploy", *words], capture_output=True, check=False, input=b"")
        assert (done.returncode, done.stderr) == (0, b"")


def test_a_bare_device_names_the_packages_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """And begins nothing."""
    monkeypatch.setattr(nspawn, "_PATH", "/nowhere")
    with pytest.raises(InputError, match="apt-get install iproute2 mmdebstrap openssh-client systemd-container"):
        nspawn.check_tools()
