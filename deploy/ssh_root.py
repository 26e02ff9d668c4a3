"""Root on a device, over SSH: what a bootstrap is carried out with."""

from __future__ import annotations

import asyncio

import asyncssh

from calibration.errors import InputError
from calibration.text import one_line
from deploy.ssh_keys import explained, keys
from deploy.ssh_target import SshTarget
from deploy.transport import TransportError

CONNECT_S, SCRIPT_S = 20.0, 1800.0


class SshRoot:
    """One connection for each script: they are few, and a device may restart between two."""

    def __init__(self, target: SshTarget) -> None:
        self._target = target

    def run(self, script: str, data: bytes = b"") -> str:
        """As bootstrap.Remote. Raises TransportError where the device cannot be reached."""
        try:
            return asyncio.run(self._run(script, data))
        except (OSError, asyncio.TimeoutError, asyncssh.Error) as error:
            raise TransportError(f"{self._target.address}: {explained(error, self._target)}") from None

    async def _run(self, script: str, data: bytes) -> str:
        target = self._target
        async with asyncssh.connect(
            target.host, target.port, username=target.user, config=None, connect_timeout=CONNECT_S,
            preferred_auth=["publickey"], password_auth=False, kbdint_auth=False, agent_forwarding=False,
            keepalive_interval=10, keepalive_count_max=6, **keys(target),
        ) as connection:  # fmt: skip
            done = await connection.run(script, input=data, encoding=None, check=False, timeout=SCRIPT_S)
        out, err = (stream if isinstance(stream, bytes) else b"" for stream in (done.stdout, done.stderr))
        if done.exit_status != 0:
            said = err.decode(errors="replace").strip().splitlines() or ["it said nothing"]
            raise InputError(f"the device ended with {done.exit_status}: {one_line(said[-1])[:300]}")
        return out.decode(errors="replace")

    def close(self) -> None:
        """Nothing is held."""
