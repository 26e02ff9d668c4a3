"""A device behind SSH: `deploy serve` runs there, and this is the other end of its conversation.

Host keys are pinned, by the inventory or a known_hosts file; a key that is not known is refused, never learnt. Keys
alone log in: no passwords, no agent forwarding, and the user's ssh_config is not read, since it could say otherwise.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import shlex
import threading
from collections.abc import Callable, Coroutine
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import asyncssh

from calibration.errors import InputError
from calibration.text import one_line
from deploy import protocol
from deploy.files import digest_of
from deploy.install import Report, somebody
from deploy.record import DeviceBusy, DeviceError, DeviceStatus, StateRecord
from deploy.slots import SlotName, Slots
from deploy.ssh_keys import explained, keys
from deploy.ssh_target import SshTarget
from deploy.transport import TransportError
from deploy.trust_record import signature_path

CONNECT_S, LOGIN_S, ANSWER_S = 10.0, 20.0, 300.0
KEEPALIVE_S, KEEPALIVES = 10, 3
"""A device that is silently gone is noticed after 30 s."""
CHUNK = 1 << 18
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com")
"""The first is the cheapest where the processor knows AES, as all that run an appliance do."""

T = TypeVar("T")


class _Loop:
    """One event loop for all connections, in a thread of its own; begun when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: asyncio.AbstractEventLoop | None = None

    def get(self) -> asyncio.AbstractEventLoop:
        """The loop."""
        with self._lock:
            if self._running is None:
                self._running = asyncio.new_event_loop()
                threading.Thread(target=self._running.run_forever, name="ssh", daemon=True).start()
            return self._running


_LOOP = _Loop()


def _wait(work: Coroutine[Any, Any, T]) -> T:
    """Have the loop do it."""
    future = asyncio.run_coroutine_threadsafe(work, _LOOP.get())
    try:
        return future.result()
    except BaseException:  # interrupted: the work must not go on behind the caller's back
        future.cancel()
        raise


class SshTransport:
    """A device that answers `deploy serve` over SSH. One conversation; a cut one raises, the next call begins anew."""

    def __init__(self, target: SshTarget) -> None:
        self.address, self._target = target.address, target
        self._line: _Line | None = None
        self._generation: int | None = None
        self._enrolled: bool | None = None

    def slots(self) -> Slots:
        """As Transport."""
        facts = self._ask(protocol.Facts())
        self._enrolled = facts.enrolled
        return self._state(facts)

    def enrolled(self) -> bool:
        """As Transport: as it was said with the last `slots`."""
        if self._enrolled is None:
            self.slots()
        return bool(self._enrolled)

    def verify(self, file: Path) -> None:
        """As Transport: the signature is looked at there; the bytes were hashed here."""
        self._ask(protocol.Verify(**self._offer(file)))

    def intact(self, slot: SlotName, sha256: str) -> bool:
        """As Transport."""
        return self._ask(protocol.Intact(slot=slot, sha256=sha256)).intact.get(slot, False)

    def repair(self, file: Path, progress: Report) -> Slots:
        """As Transport."""
        return self._send(protocol.Begin(**self._offer(file), **self._claim(), kind="repair"), file, progress)

    def status(self, steps: int) -> DeviceStatus:
        """As Transport."""
        reply = self._ask(protocol.Status(steps=max(0, min(steps, protocol.MAX_STEPS))))
        return DeviceStatus(reply.state or StateRecord(), reply.intact, reply.history)

    def stage(self, file: Path, progress: Report) -> Slots:
        """As Transport. What an earlier transfer left is gone on from."""
        return self._send(protocol.Begin(**self._offer(file), **self._claim()), file, progress)

    def activate(self, sha256: str) -> Slots:
        """As Transport."""
        return self._state(self._ask(protocol.Activate(sha256=sha256, who=somebody()[:200])))

    def rollback(self, reason: str) -> Slots:
        """As Transport."""
        return self._state(self._ask(protocol.Rollback(reason=reason[:1000], who=somebody()[:200])))

    def close(self) -> None:
        """As Transport."""
        line, self._line = self._line, None
        if line is not None:
            _wait(line.close())

    def _send(self, begin: protocol.Begin, file: Path, progress: Report) -> Slots:
        reply = self._ask(begin)
        with file.open("rb") as opened:
            known = hashlib.sha256(opened.read(reply.offset)).hexdigest() == reply.prefix
        offset = reply.offset if known and reply.offset <= begin.size else 0
        taken = self._do(lambda line: line.upload(file, offset, begin.size, progress))
        if taken.error:  # the device has hung up: where among the bytes it stopped nobody knows
            self.close()
        _raised(taken)
        return self._state(self._ask(protocol.Finish()))

    def _offer(self, file: Path) -> dict[str, Any]:
        try:
            found = file.stat()
            digest = _digest(file, found.st_ino, found.st_size, found.st_mtime_ns)
            path = signature_path(file)
            signature = path.read_bytes() if path.exists() else None
        except OSError as error:
            raise InputError(f"{error.filename or file}: {error.strerror or error}") from None
        if signature is not None and len(signature) > protocol.MAX_LINE // 2:
            raise InputError(f"{path}: too large for a signature; copy it again")
        encoded = None if signature is None else base64.b64encode(signature)
        return {"sha256": digest, "size": found.st_size, "signature": encoded}

    def _claim(self) -> dict[str, Any]:
        return {"who": somebody()[:200], "generation": self._generation}

    def _state(self, reply: protocol.Reply) -> Slots:
        self._generation = reply.state.generation if reply.state else None
        return reply.state.slots() if reply.state else Slots()

    def _ask(self, request: protocol.Request) -> protocol.Reply:
        return _raised(self._do(lambda line: line.ask(request)))

    def _do(self, work: Callable[[_Line], Coroutine[Any, Any, protocol.Reply]]) -> protocol.Reply:
        try:
            if self._line is None:
                self._line = _wait(_Line.open(self._target))
            return _wait(work(self._line))
        except (OSError, EOFError, asyncio.TimeoutError, asyncssh.Error, protocol.ProtocolError) as error:
            line, self._line = self._line, None
            told = explained(error, self._target)
            if line is not None:
                told = _wait(line.last_words()) or told
            raise TransportError(f"{self.address}: {told}") from None


class _Line:
    """One connection with `deploy serve` at its other end. All of it runs in the event loop."""

    def __init__(self, connection: asyncssh.SSHClientConnection, process: asyncssh.SSHClientProcess[bytes]) -> None:
        self._connection, self._process = connection, process

    @classmethod
    async def open(cls, target: SshTarget) -> _Line:
        """Connect, log in, start the program, hear its first line."""
        connection = await asyncssh.connect(
            target.host, target.port, username=target.user, config=None, connect_timeout=CONNECT_S,
            login_timeout=LOGIN_S, keepalive_interval=KEEPALIVE_S, keepalive_count_max=KEEPALIVES,
            encryption_algs=CIPHERS, compression_algs=["none"], preferred_auth=["publickey"],
            password_auth=False, kbdint_auth=False, host_based_auth=False, gss_auth=False, gss_kex=False,
            agent_forwarding=False, **keys(target),
        )  # fmt: skip
        command = shlex.join([target.program, "serve", target.root])
        try:
            process = await connection.create_process(command, encoding=None)
            line = cls(connection, process)
            try:
                protocol.parse_hello(await line._hear())
            except (EOFError, protocol.ProtocolError) as error:
                raise protocol.ProtocolError(await line.last_words() or str(error)) from None
        except BaseException:
            connection.abort()
            raise
        return line

    async def ask(self, request: protocol.Request) -> protocol.Reply:
        """One request and its answer."""
        self._process.stdin.write(protocol.encode(request))
        await asyncio.wait_for(self._process.stdin.drain(), ANSWER_S)
        return protocol.parse_reply(await self._hear())

    async def upload(self, file: Path, offset: int, size: int, progress: Report) -> protocol.Reply:
        """`Data`, the bytes of a file from `offset` to `size`, and the answer."""
        stdin = self._process.stdin
        stdin.write(protocol.encode(protocol.Data(offset=offset)))
        progress(offset, size)
        try:
            with file.open("rb") as opened:
                opened.seek(offset)
                while offset < size:
                    chunk = opened.read(min(CHUNK, size - offset))
                    if not chunk:
                        raise protocol.ProtocolError(f"{file} became shorter while it was sent; push again")
                    stdin.write(chunk)
                    await asyncio.wait_for(stdin.drain(), ANSWER_S)
                    offset += len(chunk)
                    progress(offset, size)
        except (OSError, asyncssh.Error):  # the device may have said why before it hung up
            return protocol.parse_reply(await self._hear())
        return protocol.parse_reply(await self._hear())

    async def close(self) -> None:
        """Hang up."""
        self._connection.close()
        try:
            await asyncio.wait_for(self._connection.wait_closed(), 5.0)
        except (OSError, asyncio.TimeoutError, asyncssh.Error):
            self._connection.abort()

    async def last_words(self) -> str:
        """Hang up; the last line of the program's standard error, where there is one."""
        said = b""
        try:
            self._process.stdin.write_eof()
            said = await asyncio.wait_for(self._process.stderr.read(2000), 1.0)
        except (OSError, asyncio.TimeoutError, asyncssh.Error):
            pass  # it has none
        await self.close()
        return one_line(said.decode("utf-8", "replace").strip().rpartition("\n")[2])[:300]

    async def _hear(self) -> bytes:
        heard = await asyncio.wait_for(self._process.stdout.readuntil(b"\n"), ANSWER_S)
        return bytes(heard)


class RemoteError(DeviceError):
    """An error that a device has told. `kind` is the name of its class there."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


@lru_cache(maxsize=4)
def _digest(file: Path, _inode: int, _size: int, _changed_ns: int) -> str:
    """SHA-256 of a file: once for a hundred devices. One that changed unnoticed would be refused by the device."""
    return digest_of(file)


def _raised(reply: protocol.Reply) -> protocol.Reply:
    """An answer, or the error in it."""
    if not reply.error:
        return reply
    told = one_line(reply.error)[:1000]
    raise DeviceBusy(told) if reply.kind == DeviceBusy.__name__ else RemoteError(told, one_line(reply.kind)[:60])
