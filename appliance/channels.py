"""The supervisor's sockets: to its cameras, its engines and its clients, and the poller that watches all of them."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Protocol

import zmq
from pydantic import ValidationError

from appliance.messages import Reply, Request
from appliance.wire import has_message
from appliance.workers import Worker
from calibration.errors import InputError

Channel = zmq.Socket[bytes]
BURST = 256
"""Deliveries taken before the loop looks at its clocks again."""

REQUESTS = 8
"""Clients served before the loop goes back to its parts."""


class Watched(Protocol):
    """Whoever owns a worker and wants to know when it ends."""

    def gone(self, now_ns: int) -> None:
        """Its process has ended."""


def bind_private(context: zmq.Context[Channel], path: Path) -> Channel:
    """A ROUTER socket on a Unix socket file of mode 0600. Raises InputError."""
    channel = context.socket(zmq.ROUTER)
    channel.setsockopt(zmq.LINGER, 200)
    mask = os.umask(0o177)
    try:
        channel.bind(f"ipc://{path}")
    except zmq.ZMQError as error:
        channel.close()
        raise InputError(f"{path}: {error}; set station.data to a local directory that may be written") from None
    finally:
        os.umask(mask)
    return channel


class WorkerChannel:
    """All workers of a kind, told apart by their identities; a worker's end is an event like its messages."""

    def __init__(self, context: zmq.Context[Channel], path: Path, poller: zmq.Poller) -> None:
        """Bind. Raises InputError."""
        self.endpoint = f"ipc://{path}"
        self._socket = bind_private(context, path)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._poller = poller
        self._owners: dict[bytes, Watched] = {}
        self._ends: dict[int, Watched] = {}
        self._wakes = False
        self.wake(True)

    def wake(self, wakes: bool) -> None:
        """Whether messages wake the poller, or wait until something else does."""
        if wakes != self._wakes:
            self._wakes = wakes
            self._poller.register(self._socket, zmq.POLLIN if wakes else 0)

    def watch(self, worker: Worker, owner: Watched) -> None:
        """Deliver this worker's messages and its end to `owner`."""
        self._owners[worker.identity.encode()] = owner
        self._ends[worker.pidfd] = owner
        self._poller.register(worker.pidfd, zmq.POLLIN)

    def unwatch(self, worker: Worker) -> None:
        """Nothing of this worker is delivered any more."""
        self._owners.pop(worker.identity.encode(), None)
        if self._ends.pop(worker.pidfd, None) is not None:
            self._poller.unregister(worker.pidfd)
        worker.forget()

    def send(self, identity: str, data: bytes) -> bool:
        """Send without waiting; False when the worker is not there (its end is then on its way to the owner)."""
        try:
            self._socket.send_multipart((identity.encode(), data), zmq.DONTWAIT)
        except zmq.ZMQError:
            return False
        return True

    def receive(self) -> Iterator[tuple[Watched, bytes]]:
        """The messages that are there, with their owners. Those of workers no longer watched are dropped, even one that
        came together with the reason to give its worker up."""
        for _ in range(BURST):
            if not has_message(self._socket):
                return
            identity, *messages = self._socket.recv_multipart(zmq.DONTWAIT)
            for data in messages:
                owner = self._owners.get(identity)
                if owner is not None:
                    yield owner, data

    def report_ends(self, ready: dict[object, int], now_ns: int) -> None:
        """Tell the owners of processes that have ended, once each."""
        for descriptor in self._ends.keys() & ready.keys():
            self._poller.unregister(descriptor)
            self._ends.pop(descriptor).gone(now_ns)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close(linger=0)


class ControlChannel:
    """Clients' requests. An answer that a client does not take is dropped; nothing here ever waits for one."""

    def __init__(self, context: zmq.Context[Channel], path: Path, poller: zmq.Poller) -> None:
        """Bind. Raises InputError."""
        self._socket = bind_private(context, path)
        self._socket.setsockopt(zmq.MAXMSGSIZE, 64 * 1024)
        poller.register(self._socket, zmq.POLLIN)

    def serve(self, ready: dict[object, int], answer: Callable[[Request], Reply]) -> None:
        """Answer what is waiting, at most REQUESTS of them; `ready` is what the poller found."""
        for _ in range(REQUESTS if self._socket in ready else 0):
            if not has_message(self._socket):
                return
            identity, *_, data = self._socket.recv_multipart(zmq.DONTWAIT)
            try:
                reply = answer(Request.model_validate_json(data))
            except ValidationError as error:
                reply = Reply(error=f"not understood: {error.errors()[0]['msg']}")
            except InputError as error:
                reply = Reply(error=str(error))
            try:
                self._socket.send_multipart((identity, reply.model_dump_json().encode()), zmq.DONTWAIT)
            except zmq.ZMQError:
                continue

    def close(self) -> None:
        """Close the socket."""
        self._socket.close(linger=200)


class StopSignal:
    """SIGTERM and SIGINT as a readable descriptor for the poller.

    Attributes:
        asked: the signal's name once one has come, else empty.
    """

    def __init__(self, poller: zmq.Poller) -> None:
        """Take over both signals. Raises ValueError outside the main thread."""
        self.asked = ""
        with ExitStack() as undo:
            self._reader, self._writer = map(undo.enter_context, socket.socketpair())
            self._reader.setblocking(False)
            self._writer.setblocking(False)
            self._before = {s: signal.signal(s, self._handle) for s in (signal.SIGTERM, signal.SIGINT)}
            self._fd_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            poller.register(self._reader.fileno(), zmq.POLLIN)
            self._poller = poller
            undo.pop_all()

    def close(self) -> None:
        """Give the signals back."""
        signal.set_wakeup_fd(self._fd_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._poller.unregister(self._reader.fileno())
        self._reader.close()
        self._writer.close()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.asked = signal.Signals(number).name

    def drain(self, ready: dict[object, int]) -> None:
        """Read what woke the poller, if it was this, so that it can sleep again."""
        if self._reader.fileno() not in ready:
            return
        try:
            while self._reader.recv(64):
                pass
        except BlockingIOError:
            pass
