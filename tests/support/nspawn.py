"""A bare Debian that boots with systemd in a container, and is reached by one private wire and nothing else."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from calibration.errors import InputError

TOOLS = {"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container", "ip": "iproute2", "ssh": "openssh-client"}
"""Programs, and the Debian packages that they come from."""
PACKAGES = ("systemd", "systemd-sysv", "dbus", "openssh-server", "python3", "python3-venv", "iproute2")
"""Beside minbase: what a person would have to install before a bootstrap, and how the wire gets its address."""
NEAR, FAR = "169.254.213.1", "169.254.213.2"
"""The workstation's end and the device's. Link-local: there is no route to anywhere else."""
BOOT_S, END_S = 60.0, 20.0
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"

_WIRE = f"""\
[Unit]
Description=The only wire
Before=ssh.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/ip address add {FAR}/30 dev host0
ExecStart=/bin/ip link set host0 up
[Install]
WantedBy=multi-user.target
"""


def _program(name: str) -> str:
    return shutil.which(name, path=_PATH) or name


def check_tools() -> None:
    """Raise InputError naming the Debian packages that are missing here."""
    missing = sorted({package for program, package in TOOLS.items() if shutil.which(program, path=_PATH) is None})
    if missing:
        raise InputError(f"a bare device cannot be made here: apt-get install {' '.join(missing)}")
    if os.geteuid() != 0:
        raise InputError("a bare device is booted as root: run this as root")


def debian(archive: Path, suite: str = "bookworm") -> Path:
    """A tar archive of a bare Debian, made from its mirror where it is missing. Raises InputError where that fails."""
    if archive.exists():
        return archive
    archive.parent.mkdir(parents=True, exist_ok=True)
    part = archive.with_name("part-" + archive.name)  # the suffix says what is made
    words = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, str(part)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise InputError(f"mmdebstrap: {said[-1][:300]}")
    return part.replace(archive)


def lay_out(archive: Path, tree: Path, authorized: str, host_key: Path) -> None:
    """Unpack the archive into a new directory, with one key that may log in as root and a host key that is known."""
    tree.mkdir(parents=True)
    subprocess.run([_program("tar"), "-x", "--numeric-owner", "-C", str(tree), "-f", str(archive)], check=True)
    (tree / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    (tree / "root/.ssh/authorized_keys").write_text(authorized)
    for old in (tree / "etc/ssh").glob("ssh_host_*"):
        old.unlink()
    for suffix in ("", ".pub"):
        shutil.copy(host_key.with_name(host_key.name + suffix), tree / f"etc/ssh/ssh_host_ed25519_key{suffix}")
    (tree / "etc/hostname").write_text("press-1\n")
    (tree / "etc/resolv.conf").unlink(missing_ok=True)
    unit = tree / "etc/systemd/system/wire.service"
    unit.write_text(_WIRE)
    wants = tree / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "wire.service").symlink_to("/etc/systemd/system/wire.service")


@contextmanager
def booted(tree: Path, log: Path) -> Iterator[None]:
    """The tree as a machine whose SSH port answers. It is switched off afterwards, whatever happened.

    Raises:
        InputError: it does not boot here; what it said is in `log`.
    """
    name = f"lg{os.getpid() % 100_000}"
    words = ["systemd-nspawn", "--quiet", "-D", str(tree), f"--machine={name}", "--register=no", "--keep-unit"]
    words += ["--network-veth", "--resolv-conf=off", "--console=pipe", "--boot"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _connect(f"ve-{name}", process, log)
        yield
    finally:
        _off(process)


def _connect(wire: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + BOOT_S
    addressed = False
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        if not addressed and Path("/sys/class/net", wire).exists():
            for words in (["address", "add", f"{NEAR}/30", "dev", wire], ["link", "set", wire, "up"]):
                subprocess.run([_program("ip"), *words], check=True, capture_output=True)
            addressed = True
        if addressed:
            with contextlib.suppress(OSError), socket.create_connection((FAR, 22), 1):
                return
        time.sleep(0.1)
    raise InputError(f"the device does not answer on its wire; see {log}")


def _off(process: subprocess.Popen[bytes]) -> None:
    """In good order where it obeys; its control group goes with the process in any case."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        process.send_signal(number)
        try:
            process.wait(END_S)
            return
        except subprocess.TimeoutExpired:
            continue
