"""`deploy bootstrap`: the appliance onto a bare Debian, over SSH, with nothing from the network on the device.

Facts, then a plan made of them alone, then the plan carried out by a `Remote`. Each release lies in a directory of its
own; /opt/lineguard is a link that is swapped once the new one has run. So a bootstrap that is cut leaves what was
there, and doing it again completes it.
"""

from __future__ import annotations

import hashlib
import io
import shlex
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from calibration.errors import InputError

PREFIX = "/opt/lineguard"
INCOMING = "/var/tmp/lineguard-bootstrap"  # noqa: S108  made by mkdir of root alone, which fails where it exists
DEVICE_ROOT, STATION = "/var/lib/lineguard", "/var/lib/lineguard-station"
NEEDED_MIB = 1500
"""What wheels and the environment made of them take, with room to spare."""

FACTS = """
printf '%s\\n' "$(id -u)" "$(uname -m)" "$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)"
python3 -c 'import venv, ensurepip' 2>/dev/null && echo yes || echo no
systemctl --version 2>/dev/null | head -n1 | cut -d' ' -f2
df -Pm /opt | tail -n1 | awk '{print $4}'
readlink /opt/lineguard || echo none
"""


class Remote(Protocol):
    """Root on a device. Both raise InputError with what the device said."""

    def run(self, script: str, data: bytes = b"") -> str:
        """Run a shell script with `data` on its standard input; returns its standard output."""

    def close(self) -> None:
        """Hang up."""


@dataclass(frozen=True)
class Facts:
    """What a device says of itself. `linked` is the release that /opt/lineguard points to; "" where none does."""

    uid: int
    machine: str
    python: tuple[int, int]
    venv: bool
    systemd: int
    free_mib: int
    linked: str


@dataclass(frozen=True)
class Goods:
    """What is sent.

    Attributes:
        wheels: file names and contents. units: those of systemd/, likewise.
        station: station.toml; None leaves the device's own, if any.
        push_key: a public key that may push and do nothing else; "" for none.
        root, device: root metadata and id to enrol with; None and "" for a device in development.
        extra: of the Python package: "cpu" or "gpu".
        network, gpu: which drop-ins of the service are installed.
    """

    wheels: dict[str, bytes]
    units: dict[str, bytes]
    station: bytes | None = None
    push_key: str = ""
    root: bytes | None = None
    device: str = ""
    extra: str = "cpu"
    network: bool = False
    gpu: bool = False

    @property
    def release(self) -> str:
        """The directory of this release: equal wheels, equal name."""
        made = hashlib.sha256(self.extra.encode())
        for name, data in sorted(self.wheels.items()):
            made.update(name.encode() + hashlib.sha256(data).digest())
        return f"{PREFIX}-{made.hexdigest()[:12]}"


@dataclass(frozen=True)
class Step:
    """One step on the device: for people, and for its shell. `sends` tells whether the archive goes with it."""

    title: str
    script: str
    sends: bool = False


def read_facts(remote: Remote) -> Facts:
    """Ask the device. Raises InputError where it says nothing that can be understood."""
    lines = remote.run(FACTS).splitlines()
    try:
        uid, machine, python, venv, systemd, free, linked = lines
        major, _, minor = (python or "0.0").partition(".")
        where = "" if linked == "none" else linked
        return Facts(int(uid), machine, (int(major), int(minor)), venv == "yes", int(systemd or 0), int(free), where)
    except ValueError:
        raise InputError(f"the device gave no facts that can be understood: {' | '.join(lines)[:200]!r}") from None


def check(facts: Facts, goods: Goods) -> None:
    """Raise InputError naming what the device lacks and the remedy; nothing was changed."""
    if facts.uid != 0:
        raise InputError("bootstrap must log in as root (PermitRootLogin prohibit-password is enough)")
    if facts.systemd < 245:
        raise InputError(f"the device has systemd {facts.systemd or 'not at all'}; 245 or newer is needed")
    if facts.python < (3, 10):
        raise InputError("the device lacks Python 3.10 or newer: apt-get install python3 python3-venv")
    if not facts.venv:
        raise InputError("the device's Python lacks venv: apt-get install python3-venv")
    if facts.linked != goods.release and facts.free_mib < NEEDED_MIB:
        raise InputError(f"the device has {facts.free_mib} MiB free in /opt; {NEEDED_MIB} are needed")
    tag = f"cp{facts.python[0]}{facts.python[1]}"
    for name in goods.wheels:
        python, abi, platform = name.removesuffix(".whl").split("-")[-3:]
        fits = platform == "any" or facts.machine in platform
        if not fits or not (abi in ("none", "abi3") or tag in python.split(".")):
            raise InputError(
                f"wheel {name} does not fit the device ({tag}, {facts.machine}); "
                "leave --wheelhouse out to have the right ones downloaded"
            )
    if not any(name.startswith("lineguard-") for name in goods.wheels):
        raise InputError(
            "the wheelhouse holds no lineguard wheel; `pip wheel --no-deps .` in its source tree makes one"
        )


def plan(facts: Facts, goods: Goods) -> tuple[Step, ...]:
    """What would be done, in order, from facts and goods alone."""
    check(facts, goods)
    release, size = goods.release, sum(len(data) for data in goods.wheels.values()) >> 20
    steps = []
    if facts.linked != release:
        steps = [
            Step(f"send {len(goods.wheels)} wheels ({size} MiB) and {len(goods.units)} units", _RECEIVE, sends=True),
            Step(f"make {release}, from the wheels alone", _install(release, goods.extra)),
            Step(f"check it, and let {PREFIX} point to it", _switch(release)),
        ]
    else:
        steps = [Step(f"send {len(goods.units)} units; {release} is there already", _RECEIVE, sends=True)]
    steps.append(Step("user, directories and units", _units(goods)))
    if goods.station is not None:
        steps.append(Step("station.toml", f"install -m 0644 {INCOMING}/station.toml /etc/lineguard/station.toml"))
    if goods.push_key:
        steps.append(Step("let one key push, and do nothing else", _allow(goods.push_key)))
    if goods.root is not None:
        steps.append(Step(f"enrol as {goods.device}", _enrol(goods.device)))
    steps.append(Step("start with the next push, and at boot", _START))
    return tuple(steps)


def apply(remote: Remote, steps: Sequence[Step], goods: Goods, report: Callable[[int, int], None]) -> None:
    """Carry a plan out. `report` is called with (steps done, steps in all). Raises InputError naming the step."""
    archive = packed(goods, wheels=any(PREFIX + "-" in step.title for step in steps[1:3]))
    for number, step in enumerate(steps):
        try:
            remote.run(f"set -eu; umask 022\n{step.script}", archive if step.sends else b"")
        except InputError as error:
            raise InputError(f"{step.title}: {error}") from None
        report(number + 1, len(steps))


def packed(goods: Goods, wheels: bool) -> bytes:
    """A tar archive of the goods: wheels/, units/, station.toml, root.json."""
    members = {f"units/{name}": data for name, data in goods.units.items()}
    if wheels:
        members |= {f"wheels/{name}": data for name, data in goods.wheels.items()}
    members |= {} if goods.station is None else {"station.toml": goods.station}
    members |= {} if goods.root is None else {"root.json": goods.root}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in sorted(members.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


_RECEIVE = f"""
rm -rf {INCOMING}; mkdir -m 0700 {INCOMING}
tar -x --no-same-owner -C {INCOMING} -f -
"""

_START = f"""
systemctl daemon-reload
systemctl enable --quiet appliance.service
systemctl enable --quiet --now appliance.path
if test -f /etc/lineguard/station.toml && test -f {DEVICE_ROOT}/state.json; then
  systemctl reset-failed appliance.service || true; systemctl restart appliance.service
fi
rm -rf {INCOMING}; sync
"""


def _install(release: str, extra: str) -> str:
    package = shlex.quote(f"lineguard[{extra}]")
    return f"""
rm -rf {release}
python3 -m venv {release}
{release}/bin/pip install --quiet --no-index --no-cache-dir --disable-pip-version-check \\
  --find-links {INCOMING}/wheels {package}
"""


def _switch(release: str) -> str:
    return f"""
{release}/bin/appliance run --help >/dev/null; {release}/bin/deploy --version >/dev/null
sync
ln -sfn {release} {PREFIX}.new; mv -T {PREFIX}.new {PREFIX}; sync
"""


def _units(goods: Goods) -> str:
    drop_ins = [name for name, wanted in (("network.conf", goods.network), ("gpu.conf", goods.gpu)) if wanted]
    lines = [
        f"cd {INCOMING}/units",
        "install -D -m 0644 sysusers.conf /usr/lib/sysusers.d/lineguard.conf; systemd-sysusers lineguard.conf",
        "install -D -m 0644 tmpfiles.conf /usr/lib/tmpfiles.d/lineguard.conf; systemd-tmpfiles --create lineguard.conf",
        "install -m 0644 appliance.service appliance.path /etc/systemd/system/",
    ]
    for name in drop_ins:
        lines.append(f"install -D -m 0644 {name} /etc/systemd/system/appliance.service.d/{name}")
    return "\n".join(lines)


def _allow(key: str) -> str:
    line = f'command="{PREFIX}/bin/deploy serve {DEVICE_ROOT}",restrict {key}'
    return f"""
install -d -m 0755 {STATION}/.ssh
printf '%s\\n' {shlex.quote(line)} > {STATION}/.ssh/authorized_keys
chmod 0644 {STATION}/.ssh/authorized_keys
"""


def _enrol(device: str) -> str:
    copy = f"{STATION}/root.json"
    return f"""
if ! test -f {DEVICE_ROOT}/trust.json; then
  install -m 0644 -o lineguard {INCOMING}/root.json {copy}
  runuser -u lineguard -- {PREFIX}/bin/deploy enrol file:{DEVICE_ROOT} --root {copy} --id {shlex.quote(device)}
  rm {copy}
fi
"""


def read_wheels(folder: Path) -> dict[str, bytes]:
    """The wheels of a wheelhouse. Raises InputError where it holds none."""
    try:
        wheels = {path.name: path.read_bytes() for path in sorted(folder.glob("*.whl"))}
    except OSError as error:
        raise InputError(f"{error.filename or folder}: {error.strerror or error}") from None
    if not wheels:
        raise InputError(f"{folder}: holds no wheels; `deploy bootstrap` without --wheelhouse builds one")
    return wheels
