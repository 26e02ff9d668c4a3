"""Whom to believe and what to log in with, in asyncssh's terms, and what a failed connection means."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncssh

from calibration.errors import InputError
from calibration.text import one_line
from deploy import protocol
from deploy.ssh_target import SshTarget


def keys(target: SshTarget) -> dict[str, Any]:
    """Whom to believe and what to log in with. Raises InputError where either is missing."""
    options: dict[str, Any] = {}
    if target.identity is not None:
        identity = target.identity.expanduser()
        try:
            if identity.stat().st_mode & 0o077:
                raise InputError(f"{identity}: readable by others; chmod 600 it")
            options |= {"client_keys": [asyncssh.read_private_key(identity)], "agent_path": None}
        except (OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            told = error.strerror if isinstance(error, OSError) else error
            raise InputError(f"{identity}: {told}; name a private key without a passphrase, or use the agent") from None
    if target.host_key:
        try:
            return options | {"known_hosts": ([asyncssh.import_public_key(target.host_key)], [], [])}
        except asyncssh.KeyImportError as error:
            raise InputError(f"{target.address}: host_key: {error}; copy the device's ssh_host_*_key.pub") from None
    known = target.known_hosts.expanduser()
    if not known.is_file():
        raise InputError(f"{known}: no such file; the device's host key must be known beforehand ({_PIN})")
    return options | {"known_hosts": str(known)}


_PIN = "put it there, or into the inventory as host_key, from the device's /etc/ssh/ssh_host_ed25519_key.pub"


def explained(error: Exception, target: SshTarget) -> str:
    """What happened and what to do."""
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return f"its host key is not the pinned one, or none is pinned: {error}; if it is right, {_PIN}"
    if isinstance(error, asyncssh.PermissionDenied):
        return f"does not let {target.user} in; add your public key to its authorized_keys"
    if isinstance(error, (protocol.ProtocolError, asyncssh.ChannelOpenError)):
        return str(error)
    if isinstance(error, asyncio.TimeoutError):
        return "no answer in time; push again once it can be reached"
    if isinstance(error, EOFError):
        return f"{target.program} ended without an answer; push again, or look for it on the device"
    return f"{one_line(str(error)) or type(error).__name__}; push again once it can be reached"
