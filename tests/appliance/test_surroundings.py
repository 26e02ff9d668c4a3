"""What a station needs around it: its configuration, directories, systemd, a machine that is fast enough."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from appliance.config import load_station
from appliance.daemon import run_station
from appliance.messages import State
from appliance.notify import notify
from appliance.paths import SOCKET_PATH_MAX, StationPaths, make_directories
from calibration.errors import InputError
from tests.appliance.stations import make_station, rows


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A datagram reaches the socket that systemd names, a path or an abstract one; without one nothing happens."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    for address, bound in ((str(tmp_path / "n"), str(tmp_path / "n")), ("@lineguard-test", "\0lineguard-test")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
            server.bind(bound)
            monkeypatch.setenv("NOTIFY_SOCKET", address)
            assert notify("READY=1\nSTATUS=x")
            assert server.recv(100) == b"READY=1\nSTATUS=x"
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not notify("READY=1")


def test_long_paths_get_a_short_socket_directory(tmp_path: Path) -> None:
    """A data directory too deep for a Unix socket: a short private directory, the same for daemon and client."""
    short, deep = StationPaths.of(tmp_path / "d"), StationPaths.of(tmp_path / ("x" * 90) / "data")
    assert short.run == tmp_path / "d" / "run"
    assert deep.run != deep.data / "run"
    assert len(os.fsencode(deep.control)) <= SOCKET_PATH_MAX
    assert deep == StationPaths.of(tmp_path / ("x" * 90) / "data")
    make_directories(deep)
    assert stat.S_IMODE(deep.run.stat().st_mode) == 0o700
    deep.run.rmdir()


def test_a_planted_run_directory_is_refused(tmp_path: Path) -> None:
    """A run directory that is a link, or cannot be made, is refused; one that is too open is closed."""
    paths = StationPaths.of(tmp_path / "data")
    make_directories(paths)
    paths.run.chmod(0o777)
    make_directories(paths)
    assert stat.S_IMODE(paths.run.stat().st_mode) == 0o700
    paths.run.rmdir()
    paths.run.symlink_to(tmp_path)
    with pytest.raises(InputError, match="remove it"):
        make_directories(paths)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"station\.data"):
        make_directories(StationPaths.of(tmp_path / "file" / "data"))


def test_configuration_errors_name_file_and_key(tmp_path: Path) -> None:
    """Not there, no TOML, missing and wrong values."""
    config = make_station(tmp_path, 1, 'fps = "fast"')
    with pytest.raises(InputError, match=r"station\.toml.*camera\.top.*fps"):
        load_station(config)
    config.write_text("[station\n")
    with pytest.raises(InputError, match="not valid TOML"):
        load_station(config)
    config.write_text("")
    with pytest.raises(InputError, match="station is missing"):
        load_station(config)
    with pytest.raises(InputError, match="--config"):
        load_station(tmp_path / "none.toml")


def test_the_slow_are_warned(tmp_path: Path) -> None:
    """A deadline that the machine cannot hold: single parts, a warning, and still one row for each."""
    config = make_station(tmp_path, 3, sections="[timing]\ndeadline_ms = 0.001")
    summary = run_station(load_station(config))
    assert summary.state is State.DEGRADED
    assert "too slow" in summary.state_reason
    assert summary.rejects_by_reason == {"LATE": 3}
    assert ("batch size", "8", "1") in rows(config, "SELECT action, old, new FROM audit")
