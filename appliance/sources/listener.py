"""Trigger messages from the line's side, over ZeroMQ with CURVE: only keys on the list get in.

One JSON object a message, from a DEALER or REQ socket: {"id": 17, "serial": "A-17", "lot": "L1"}, serial and lot
optional. `id` is the line's own count of parts, in steps of one. The answer is {"id": 17, "taken": true} or
{"error": "..."}. A part whose message did not come shows as a gap in the count and gets its reject; an id that comes
again or goes back is a reject too, since nobody knows which part it means.

The listener is a thread of the camera process, which is expendable: the supervisor parses nothing that comes from a
network. Without its list of keys CURVE lets in everybody: list and socket live and die in one thread.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from contextlib import ExitStack
from typing import Any

import zmq
from pydantic import Field, ValidationError, field_validator

from appliance.section import Section
from appliance.sources.keys import StationKeys
from appliance.sources.serials import checked_code
from appliance.sources.triggers import Trigger, TriggerQueue
from calibration.errors import InputError

MESSAGE_MAX = 1024
"""Bytes; the library drops the connection of whoever sends more."""

HANDSHAKE_MS = 2000
ZAP = "inproc://zeromq.zap.01"
POLL_MS = 50
Channel = zmq.Socket[bytes]


class TriggerMessage(Section):
    """What the line's side sends."""

    id: int = Field(ge=0, lt=2**63, strict=True)
    serial: str = ""
    lot: str = ""

    @field_validator("serial", "lot")
    @classmethod
    def _code(cls, text: str) -> str:
        return checked_code(text) if text else text


class TriggerListener:
    """Fills a queue from a socket.

    Attributes:
        endpoint: where it listens, with the port that was chosen where 0 was asked for.
        refused: messages that were none. strangers: connections with a key that is not on the list.
    """

    def __init__(self, endpoint: str, keys: StationKeys, queue: TriggerQueue) -> None:
        """Bind and start. Raises InputError."""
        self._queue, self._clients = queue, keys.clients
        self.refused = self.strangers = 0
        self._stopping = False
        with ExitStack() as undo:  # a context with open sockets, left to the garbage collector, would wait for ever
            self._context: zmq.Context[Channel] = zmq.Context()
            undo.callback(self._context.destroy, linger=0)
            self._zap = self._context.socket(zmq.REP)  # before the other: without it nobody is asked
            self._zap.bind(ZAP)
            self._router = self._bound(endpoint, keys)
            self.endpoint = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
            self._thread = threading.Thread(target=self._run, name="triggers", daemon=True)
            self._thread.start()
            undo.pop_all()

    def _bound(self, endpoint: str, keys: StationKeys) -> Channel:
        router = self._context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.CURVE_SERVER, 1),
            (zmq.CURVE_SECRETKEY, keys.secret),
            (zmq.ZAP_DOMAIN, b"line"),
            (zmq.ZAP_ENFORCE_DOMAIN, 1),
            (zmq.MAXMSGSIZE, MESSAGE_MAX),
            (zmq.HANDSHAKE_IVL, HANDSHAKE_MS),
            (zmq.HEARTBEAT_IVL, 1000),
            (zmq.HEARTBEAT_TIMEOUT, 3000),
            (zmq.RCVHWM, 64),
            (zmq.SNDHWM, 64),
            (zmq.LINGER, 0),
        ):
            router.setsockopt(option, value)
        try:
            router.bind(endpoint)
        except zmq.ZMQError as error:
            raise InputError(f"listen = {endpoint!r}: {error}; choose another address or port") from None
        return router

    @property
    def alive(self) -> bool:
        """Whether it still listens."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End it."""
        self._stopping = True
        self._thread.join(2 * POLL_MS / 1000 + 1)

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._zap, zmq.POLLIN)
        poller.register(self._router, zmq.POLLIN)
        try:
            while not self._stopping:
                ready = dict(poller.poll(POLL_MS))
                if self._zap in ready:
                    self._zap.send_multipart(self._admit(self._zap.recv_multipart()))
                if self._router in ready:
                    self._answer(self._router.recv_multipart(zmq.DONTWAIT), time.monotonic_ns())
        finally:
            self._router.close(linger=0)
            self._zap.close(linger=0)
            self._context.term()

    def _admit(self, request: list[bytes]) -> list[bytes]:
        """Answer of the list of keys (ZeroMQ's RFC 27): 200 for a key on it, 400 for anything else."""
        head = [*request[:2], b"", b""][:2]
        name = self._clients.get(request[6]) if len(request) == 7 and request[5] == b"CURVE" else None
        if name is None:
            self.strangers += 1
            return [b"1.0", head[1], b"400", b"not on the list", b"", b""]
        return [b"1.0", head[1], b"200", b"", name.encode("ascii", "replace"), b""]

    def _answer(self, frames: list[bytes], now_ns: int) -> None:
        *envelope, data = frames
        answer = self._take(data, now_ns)
        with contextlib.suppress(zmq.ZMQError):  # it is gone; what it has triggered stays
            self._router.send_multipart([*envelope, json.dumps(answer).encode("ascii")], zmq.DONTWAIT)

    def _take(self, data: bytes, now_ns: int) -> dict[str, Any]:
        try:
            message = TriggerMessage.model_validate_json(data)
        except (ValidationError, RecursionError) as error:
            self.refused += 1
            why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "too deep"
            return {"error": f"no trigger: {why}"}
        if not self._queue.offer(Trigger(now_ns, message.id, message.serial, message.lot)):
            return {"id": message.id, "error": "too many triggers wait for the camera"}
        return {"id": message.id, "taken": True}


class LineClient:
    """The line's side of a listener: for tests, simulators, and gateways to PLCs that do not speak ZeroMQ."""

    def __init__(self, endpoint: str, server: bytes, public: bytes, secret: bytes) -> None:
        """`server`: the station's public key; all keys in Z85. Raises ZMQError: a key or an address that is none."""
        with ExitStack() as undo:
            self._context: zmq.Context[Channel] = zmq.Context()
            undo.callback(self._context.destroy, linger=0)
            self._socket = self._context.socket(zmq.DEALER)
            self._socket.setsockopt(zmq.CURVE_SERVERKEY, server)
            self._socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
            self._socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
            self._socket.setsockopt(zmq.LINGER, 0)
            self._socket.connect(endpoint)
            undo.pop_all()

    def trigger(self, number: int, serial: str = "", lot: str = "", timeout_s: float = 2.0) -> dict[str, Any]:
        """Say that a part is there; the listener's answer. Raises TimeoutError."""
        return self.send(json.dumps({"id": number, "serial": serial, "lot": lot}).encode("ascii"), timeout_s)

    def send(self, data: bytes, timeout_s: float = 2.0) -> dict[str, Any]:
        """Any message; the answer. Raises TimeoutError."""
        wait_ms = int(timeout_s * 1000)  # one that was turned away has nobody to send to
        try:
            if not self._socket.poll(wait_ms, zmq.POLLOUT):
                raise zmq.Again
            self._socket.send(data, zmq.DONTWAIT)
        except zmq.Again:  # also where it was turned away between the two
            raise TimeoutError(f"no connection within {timeout_s:g} s") from None
        if not self._socket.poll(wait_ms):
            raise TimeoutError(f"no answer within {timeout_s:g} s")
        answer: dict[str, Any] = json.loads(self._socket.recv())
        return answer

    def close(self) -> None:
        """Close it."""
        self._context.destroy(linger=0)
