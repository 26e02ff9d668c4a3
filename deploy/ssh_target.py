"""Where a device behind SSH is, and by what key it is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SshTarget:
    """Where a device is and how it is known.

    Attributes:
        address: what the user called it.
        host, port, user: as ssh takes them.
        root: the device root there, an absolute path.
        program: the `deploy` that is installed there.
        host_key: the device's public key, "ssh-ed25519 AAAA..."; "" looks it up in `known_hosts`.
        known_hosts: a file as OpenSSH keeps it.
        identity: the private key to log in with; None tries those in ~/.ssh and of the running agent.
    """

    address: str
    host: str
    port: int
    user: str
    root: str
    program: str = "deploy"
    host_key: str = ""
    known_hosts: Path = Path("~/.ssh/known_hosts")
    identity: Path | None = None
