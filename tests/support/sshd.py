"""Real OpenSSH servers on loopback as devices, and a wire between that can be cut."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
KEYGEN = shutil.which("ssh-keygen")
needs_sshd = pytest.mark.skipif(
    SSHD is None or KEYGEN is None, reason="no sshd here: apt-get install openssh-server openssh-client"
)

_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 200
MaxSessions 200
LogLevel ERROR
Subsystem sftp internal-sftp
"""


class Sshd:
    """One device: its own server, host key, authorised key and device root.

    Args:
        folder: to make; the device root is FOLDER/root.
        identity: the private key that may log in (made where it is missing).
        forced: a command that the key is tied to; "" leaves the choice to who logs in.
    """

    def __init__(self, folder: Path, identity: Path, forced: str = "") -> None:
        folder.mkdir(parents=True)
        self.folder, self.root = folder, folder / "root"
        if not identity.exists():
            keygen(identity)
        keygen(folder / "host_key")
        tied = f'restrict,command="{forced}" ' if forced else ""
        (folder / "authorized_keys").write_text(tied + identity.with_suffix(".pub").read_text())
        self.host_key = " ".join((folder / "host_key.pub").read_text().split()[:2])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        (folder / "sshd_config").write_text(_CONFIG.format(port=self.port, folder=folder))
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd asks for it
        assert SSHD is not None
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
        self._await()

    def _await(self) -> None:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self._process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.02)
        raise AssertionError("sshd does not listen")

    def stop(self) -> None:
        """End the server; its open connections end by themselves."""
        self._process.terminate()
        self._process.wait(10)


def keygen(path: Path) -> None:
    """A key pair without a passphrase."""
    assert KEYGEN is not None
    subprocess.run([KEYGEN, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)


def inventory(path: Path, identity: Path, devices: dict[str, tuple[Sshd, int]], **more: Any) -> Path:
    """An inventory of devices, each reached at a port (its own, or that of a wire), and of a group `all` of them."""
    program = Path(sys.executable).with_name("deploy")
    lines = ["[ssh]", f'identity = "{identity}"', f'program = "{program}"']
    for name, (device, port) in devices.items():
        lines += [f"[devices.{name}]", 'host = "127.0.0.1"', f"port = {port}", f'root = "{device.root}"']
        lines += [f'host_key = "{more.get(name) or device.host_key}"']
    lines += ["[groups]", f"all = {list(devices)}"]
    path.write_text("\n".join(lines) + "\n")
    return path


class Wire:
    """A TCP relay to a port that cuts the connection once so many bytes went up it.

    Attributes:
        cut_after: bytes from the workstation to the device; None never cuts. Set before each connection.
        up: bytes that went up the last connection.
        stall_after: so many bytes go up, the rest once `go_on` is set; None never stalls.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self.cut_after: int | None = None
        self.up = 0
        self.stall_after: int | None = None
        self.stalled, self.go_on = threading.Event(), threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """No further connections."""
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.up = 0
                far = socket.create_connection(("127.0.0.1", self._to))
                threading.Thread(target=self._relay, args=(near, far, self.cut_after), daemon=True).start()

    def _relay(self, near: socket.socket, far: socket.socket, cut_after: int | None) -> None:
        with near, far, contextlib.suppress(OSError):
            while True:
                for ready in select.select([near, far], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    if ready is far:
                        near.sendall(data)
                        continue
                    if self.stall_after is not None and self.up > self.stall_after:
                        self.stalled.set()
                        self.go_on.wait(60)
                    left = len(data) if cut_after is None else cut_after - self.up
                    far.sendall(data[:left])
                    self.up += min(left, len(data))
                    if left <= len(data) and cut_after is not None:
                        return
