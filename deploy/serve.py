"""The device's side of a push over SSH: `deploy serve DIR` answers one workstation on standard input and output.

Everything is verified here, on the device, by the same code as for a device root on the workstation. A connection may
end at any byte: what had begun on the device is carried through or undone, what had not is never begun.
"""

from __future__ import annotations

import os
import select
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from calibration.errors import InputError
from calibration.text import one_line
from deploy import protocol
from deploy.incoming import Incoming, transfer_lock
from deploy.install import HEADROOM, Device, somebody
from deploy.record import DeviceBusy, DeviceError, check_usable, holds, read_record, read_status, read_trust
from deploy.refusals import ArbitraryBundle, TrustError, UnsignedBundle
from deploy.transport import TransportError

IDLE_S = 120.0
"""How long the workstation may say nothing: a connection that is dead without an end must not lock the device."""
LOCK_S = 2.0
"""How long to wait for the lock: one whose connection was just cut needs a moment to notice."""


class Pipe:
    """Lines and bytes over two file descriptors."""

    def __init__(self, read_fd: int, write_fd: int, idle_s: float = IDLE_S) -> None:
        self._in, self._out, self._idle_s = read_fd, write_fd, idle_s
        self._buffer = bytearray()

    def line(self) -> bytes:
        """The next line, without its end; b"" when there will be none. Raises TransportError, ProtocolError."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > protocol.MAX_LINE:
                raise protocol.ProtocolError(f"a request of more than {protocol.MAX_LINE} bytes")
            more = self._more()
            if not more:
                return b""
            self._buffer += more
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def read(self, most: int) -> bytes:
        """The next bytes, one at least. Raises TransportError where the sender is gone."""
        data = bytes(self._buffer[:most])
        del self._buffer[:most]
        data = data or self._more(most)
        if not data:
            raise TransportError("the connection was cut")
        return data

    def send(self, line: bytes) -> None:
        """One line. Raises TransportError where nobody listens."""
        view = memoryview(line)
        try:
            while view:
                view = view[os.write(self._out, view) :]
        except OSError:
            raise TransportError("the connection was cut") from None

    def _more(self, most: int = 1 << 16) -> bytes:
        if not select.select([self._in], [], [], self._idle_s)[0]:
            raise TransportError(f"nothing was said for {self._idle_s:.0f} s")
        return os.read(self._in, most)


class Session:
    """One workstation's conversation with one device root."""

    def __init__(self, root: Path, pipe: Pipe) -> None:
        self._root, self._pipe = root, pipe
        self._lock = ExitStack()
        self._begun: tuple[protocol.Begin, Incoming] | None = None

    def run(self) -> None:
        """Answer until the workstation hangs up. Raises TransportError, ProtocolError where it does so rudely."""
        self._pipe.send(protocol.encode(protocol.Hello(protocol=protocol.PROTOCOL, version=version("lineguard"))))
        with self._lock:
            while line := self._pipe.line():
                request = protocol.parse_request(line)
                try:
                    reply = self._answer(request)
                except TransportError:
                    raise
                except InputError as error:
                    reply = protocol.Reply(error=str(error), kind=type(error).__name__)
                    self._lock.close()  # what failed is over: somebody else may try
                    self._begun = None
                self._pipe.send(protocol.encode(reply))
                if reply.error and isinstance(request, protocol.Data):
                    return  # bytes that nobody took may follow: they must not be read as requests

    def _answer(self, request: protocol.Request) -> protocol.Reply:
        if isinstance(request, protocol.Intact):
            return protocol.Reply(intact={request.slot: holds(self._root, request.slot, request.sha256)})
        if isinstance(request, protocol.Status):
            status = read_status(self._root, request.steps)
            return protocol.Reply(state=status.record, intact=dict(status.intact), history=status.history)
        if isinstance(request, protocol.Verify):
            self._check_signature(request)
            return protocol.Reply()
        if isinstance(request, protocol.Begin):
            return self._begin(request)
        if isinstance(request, protocol.Data):
            _, incoming = self._transfer()
            incoming.receive(request.offset, self._pipe.read)
            return protocol.Reply()
        if isinstance(request, protocol.Finish):
            return self._finish()
        if isinstance(request, protocol.Activate):
            self._device(request.who).activate(request.sha256)
            self._lock.close()
        if isinstance(request, protocol.Rollback):
            self._device(request.who).rollback(request.reason)
        return self._facts()

    def _facts(self) -> protocol.Reply:
        state = read_record(self._root) if check_usable(self._root) else None
        return protocol.Reply(state=state, enrolled=read_trust(self._root) is not None)

    def _begin(self, request: protocol.Begin) -> protocol.Reply:
        self._lock.enter_context(transfer_lock(self._root, LOCK_S))
        now = read_record(self._root).generation if check_usable(self._root) else None
        if now != request.generation:
            raise DeviceBusy(f"{self._root}: BUSY, somebody else has changed this device meanwhile; push again")
        incoming = Incoming(self._root, request.sha256, request.size, HEADROOM)
        offset, prefix = incoming.begin(request.signature)
        if request.kind == "stage":
            self._refuse_early(request, incoming)
        self._begun = request, incoming
        return protocol.Reply(offset=offset, prefix=prefix)

    def _finish(self) -> protocol.Reply:
        request, incoming = self._transfer()
        device = self._device(request.who)
        try:
            if request.kind == "stage":
                device.stage(incoming.path, take=True)
            else:
                device.repair(incoming.path, take=True)
        finally:
            incoming.clear()
            self._begun = None
        if request.kind == "repair":
            self._lock.close()
        return self._facts()

    def _transfer(self) -> tuple[protocol.Begin, Incoming]:
        if self._begun is None:
            raise DeviceError("no bundle was offered before its bytes; push again")
        return self._begun

    def _check_signature(self, offer: protocol.Offer) -> None:
        """Whether the device trusts the signature, and it is one over this bundle. Raises TrustError."""
        record = read_trust(self._root)
        if record is None:
            return
        from deploy import trust  # python-tuf costs a quarter of a second: only where signatures are looked at

        if offer.signature is None:
            raise UnsignedBundle("not signed (FILE.sig is missing beside FILE); `deploy sign` makes it")
        verified = trust.verify(record, offer.signature)
        if (verified.sha256, verified.length) != (offer.sha256, offer.size):
            raise ArbitraryBundle("not the bundle that was signed; copy or sign it again")

    def _refuse_early(self, request: protocol.Begin, incoming: Incoming) -> None:
        """What the signature alone gives away costs no transfer; it goes on record as any refusal does."""
        try:
            self._check_signature(request)
        except TrustError:
            incoming.path.unlink(missing_ok=True)
            try:
                self._device(request.who).stage(incoming.path)
            finally:
                incoming.clear()
            raise

    def _device(self, who: str) -> Device:
        """`who` is what the workstation says of itself; the account it came in by is known."""
        said = one_line(who)
        return Device(self._root, who=f"{said} through {somebody()}" if said else somebody(), wait_s=LOCK_S)


def serve(root: Path, read_fd: int = 0, write_fd: int = 1, idle_s: float = IDLE_S) -> None:
    """Answer one workstation until it hangs up; a connection that was cut is no error of the device.

    Raises:
        ProtocolError: the other side is no workstation of this version.
    """
    try:
        Session(root, Pipe(read_fd, write_fd, idle_s)).run()
    except TransportError:
        return
