"""Keys for trigger messages: the station's pair, and the public keys of those who may trigger.

::

    keys/station.key         secret, mode 0600      keys/station.pub    for the line's side
    keys/clients/NAME.pub    may trigger            keys/NAME.key       secret of a client, to be moved to its machine

Each file holds one Curve25519 key as 40 characters of Z85.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.utils import z85

from appliance.key_files import read_secret, write_secret
from calibration.errors import InputError

KEY_CHARACTERS = 40
CLIENTS_MAX = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True)
class StationKeys:
    """The station's pair (Z85), and the public keys (32 bytes) of clients with their names."""

    public: bytes
    secret: bytes
    clients: dict[bytes, str]


def load_keys(directory: Path) -> StationKeys:
    """Read them.

    Raises:
        InputError: missing, readable by others, damaged, or nobody may trigger; with the remedy.
    """
    path = directory / "station.key"
    if not path.exists():
        raise InputError(f"{path}: no such file; make the station's keys with `appliance keys`")
    secret = _checked(read_secret(path), path)
    files = sorted((directory / "clients").glob("*.pub"))
    if not files:
        raise InputError(
            f"{directory / 'clients'}: nobody may trigger; put public keys there, or make some with "
            "`appliance keys --client NAME`"
        )
    if len(files) > CLIENTS_MAX:
        raise InputError(f"{directory / 'clients'}: more than {CLIENTS_MAX} keys; remove those not in use")
    clients = {z85.decode(_checked(_text(file), file)): file.stem for file in files}
    return StationKeys(zmq.curve_public(secret), secret, clients)


def make_station_keys(directory: Path) -> list[Path]:
    """The station's pair, if it has none; the new files. Raises InputError."""
    if (directory / "station.key").exists():
        load_secret = read_secret(directory / "station.key")
        _checked(load_secret, directory / "station.key")
        return []
    return _make_pair(directory / "station.key", directory / "station.pub")


def make_client_keys(directory: Path, name: str) -> list[Path]:
    """A pair for a client that may trigger from now on; the new files. Raises InputError."""
    if not _NAME.fullmatch(name) or name == "station":
        raise InputError(f"--client: {name!r} is no name; use letters, digits, dot, dash and underscore")
    return _make_pair(directory / f"{name}.key", directory / "clients" / f"{name}.pub")


def _make_pair(secret_path: Path, public_path: Path) -> list[Path]:
    public, secret = zmq.curve_keypair()
    try:
        public_path.parent.mkdir(parents=True, exist_ok=True)
        if public_path.exists():
            raise FileExistsError(17, "File exists", str(public_path))
        write_secret(secret_path, secret.decode("ascii") + "\n")
        public_path.write_text(public.decode("ascii") + "\n", encoding="ascii")
    except FileExistsError as error:
        raise InputError(f"{error.filename}: there is one already; remove it first, or take another name") from None
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}; keys must be writable there") from None
    return [secret_path, public_path]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}; it must hold a public key") from None


def _checked(text: str, path: Path) -> bytes:
    key = text.encode("utf-8")
    try:
        good = len(key) == KEY_CHARACTERS and len(z85.decode(key)) == 32
    except (ValueError, KeyError):
        good = False
    if not good:
        raise InputError(f"{path}: it must hold {KEY_CHARACTERS} characters of Z85; make it anew with `appliance keys`")
    return key
