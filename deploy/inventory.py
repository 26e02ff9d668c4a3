"""Names for devices and groups of them, and every way to write a device on the command line.

A device is written `file:DIR`, `ssh://USER@HOST:PORT/DIR`, or by a name from the inventory, a TOML file::

    [ssh]                                  # what holds for every device that does not say otherwise
    user = "lineguard"
    root = "/var/lib/lineguard"
    identity = "push_ed25519"              # files are found relative to the inventory
    known_hosts = "known_hosts"

    [devices.press-3]
    host = "10.1.0.3"
    host_key = "ssh-ed25519 AAAA..."       # pins the device; without it known_hosts does

    [groups]
    hall-1 = ["press-3", "press-4"]        # devices or groups
"""

from __future__ import annotations

import getpass
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from calibration.errors import InputError
from deploy.ssh_target import SshTarget
from deploy.transport import LocalTransport, Transport

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ROOT, PROGRAM, KNOWN_HOSTS = "/var/lib/lineguard", "deploy", Path("~/.ssh/known_hosts")

Root = Annotated[str, Field(pattern=r"^/[^\x00-\x1f]*$")]
Word = Annotated[str, Field(pattern=r"^[^\x00-\x20-][^\x00-\x20]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Defaults(_Strict):
    """[ssh]: what holds for every device that does not say otherwise."""

    user: Word | None = None
    port: int = Field(default=22, ge=1, le=65535)
    root: Root = ROOT
    program: Word = PROGRAM
    identity: str | None = None
    known_hosts: str | None = None


class Entry(_Strict):
    """[devices.NAME]."""

    host: Word
    port: int | None = Field(default=None, ge=1, le=65535)
    user: Word | None = None
    root: Root | None = None
    program: Word | None = None
    host_key: str = ""


class Inventory(_Strict):
    """The whole file."""

    ssh: Defaults = Defaults()
    devices: dict[str, Entry] = {}
    groups: dict[str, list[str]] = {}

    @model_validator(mode="after")
    def _names(self) -> Inventory:
        for name in (*self.devices, *self.groups):
            if not NAME.fullmatch(name):
                raise ValueError(f"name {name!r}: use 1 to 64 letters, digits, '.', '_' or '-'")
        both = sorted(set(self.devices) & set(self.groups))
        if both:
            raise ValueError(f"{both[0]} is a device and a group; rename one")
        for group in self.groups:
            self.members(group)
        return self

    def members(self, name: str, above: tuple[str, ...] = ()) -> list[str]:
        """The devices that a name stands for, each once, in order. Raises ValueError where there is no such name."""
        if name in self.devices:
            return [name]
        if name in above:
            raise ValueError(f"group {name} holds itself")
        if name not in self.groups:
            where = f"group {above[-1]} names {name}, which" if above else f"{name!r}"
            raise ValueError(f"{where} is neither a device nor a group")
        found = [device for member in self.groups[name] for device in self.members(member, (*above, name))]
        return list(dict.fromkeys(found))


def read_inventory(path: Path) -> Inventory:
    """Raises InputError naming the file, the field and what is wrong with it."""
    try:
        return Inventory.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; name an inventory with --inventory") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{path}: {where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}"
        ) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: not valid TOML ({error})") from None


@dataclass(frozen=True)
class Ways:
    """What the command line says about reaching devices. It goes before the inventory.

    Attributes:
        inventory: the file; None where names cannot be used.
        known_hosts, identity: see SshTarget; None takes what the inventory says, or OpenSSH's own places.
    """

    inventory: Path | None = None
    known_hosts: Path | None = None
    identity: Path | None = None

    def reach(self, written: Sequence[str]) -> list[Transport]:
        """The ways to devices and the members of groups. Raises InputError also where one device comes twice."""
        found: list[Transport] = []
        for word in written:
            found.extend(self._reach(word))
        seen: set[str] = set()
        for device in found:
            if device.address in seen:
                raise InputError(f"device {device.address} is named twice")
            seen.add(device.address)
        return found

    def _reach(self, word: str) -> Iterator[Transport]:
        scheme, colon, rest = word.partition(":")
        if colon and scheme == "file":
            if not rest:
                raise InputError(f"device {word!r} names no directory; write file:DIR")
            yield LocalTransport(Path(rest).expanduser())
        elif colon and scheme == "ssh":
            yield _over_ssh(self._parsed(word))
        elif colon:
            raise InputError(f"device {word!r}: unknown scheme {scheme!r}; write file:DIR or ssh://USER@HOST:PORT/DIR")
        elif not NAME.fullmatch(word):
            raise InputError(f"device {word!r} has no scheme; for a directory on this machine write file:{word}")
        else:
            yield from (_over_ssh(target) for target in self._named(word))

    def _parsed(self, word: str) -> SshTarget:
        try:
            parts = urlsplit(word)
            port = parts.port or 22
        except ValueError as error:
            raise InputError(f"device {word!r}: {error}; {_SSH}") from None
        root = unquote(parts.path)
        if not parts.hostname or parts.password is not None or parts.query or parts.fragment:
            raise InputError(f"device {word!r}: {_SSH}; passwords are not used")
        if len(root) < 2 or not root.isprintable():
            raise InputError(f"device {word!r} names no directory there; {_SSH}")
        user = unquote(parts.username) if parts.username else _user()
        known = self.known_hosts or KNOWN_HOSTS
        return SshTarget(word, parts.hostname, port, user, root, known_hosts=known, identity=self.identity)

    def _named(self, name: str) -> Iterator[SshTarget]:
        if self.inventory is None:
            raise InputError(
                f"device {name!r} has no scheme and there is no inventory; write file:{name} for a directory on this "
                "machine, or name an inventory with --inventory"
            )
        inventory = read_inventory(self.inventory)
        try:
            members = inventory.members(name)
        except ValueError as error:
            raise InputError(f"{self.inventory}: {error}") from None
        if not members:
            raise InputError(f"{self.inventory}: group {name} is empty")
        for member in members:
            yield self._target(inventory, member, self.inventory.parent)

    def _target(self, inventory: Inventory, name: str, folder: Path) -> SshTarget:
        common, entry = inventory.ssh, inventory.devices[name]
        known = folder / Path(common.known_hosts).expanduser() if common.known_hosts else KNOWN_HOSTS
        identity = folder / Path(common.identity).expanduser() if common.identity else None
        return SshTarget(
            name,
            entry.host,
            entry.port or common.port,
            entry.user or common.user or _user(),
            str(PurePosixPath(entry.root or common.root)),
            entry.program or common.program,
            entry.host_key,
            self.known_hosts or known,
            self.identity or identity,
        )


def _over_ssh(target: SshTarget) -> Transport:
    from deploy.ssh import SshTransport  # a tenth of a second that `deploy serve`, on the device, does not need

    return SshTransport(target)


_SSH = "write ssh://USER@HOST:PORT/DIR"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise InputError("who logs in? write ssh://USER@HOST:PORT/DIR, or user in the inventory") from None
