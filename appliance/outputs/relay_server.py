"""The relay behind a Unix socket: one line of JSON asked, one answered. `appliance relay` runs it."""

from __future__ import annotations

import json
import os
import socketserver
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from appliance.outputs.relay import Order, Relay
from appliance.section import Section
from calibration.errors import InputError

LINE_MAX = 512
"""Bytes of a request."""

CLIENTS_MAX = 16
IDLE_S = 60.0


class Ask(Section):
    """A request. hello: a new master; beat, pass: its words; gate: a part is there; state: for people and tests."""

    op: str = Field(pattern="^(hello|beat|pass|gate|state)$")
    epoch: int = Field(default=0, ge=0)
    count: int = Field(default=0, ge=0)
    ready: bool = False
    camera: str = Field(default="", max_length=64)
    tag: int = Field(default=0, ge=0, lt=2**64)
    deadline_ns: int = Field(default=0, ge=0, lt=2**63)


_ASK = TypeAdapter(Ask)


class RelayServer(socketserver.ThreadingUnixStreamServer):
    """Serves one relay; use it in a `with` block and call serve_forever.

    Attributes:
        relay: hold `lock` while looking at it.
    """

    daemon_threads = True
    request_queue_size = CLIENTS_MAX

    def __init__(self, path: Path, relay: Relay, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """Bind a socket of mode 0600 at `path`. Raises InputError."""
        self.relay, self.lock, self._clock = relay, threading.Lock(), clock
        self._clients = threading.BoundedSemaphore(CLIENTS_MAX)
        mask = os.umask(0o177)
        try:
            path.unlink(missing_ok=True)
            super().__init__(str(path), _Handler)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}; set station.data to a local directory") from None
        finally:
            os.umask(mask)

    def answer(self, data: bytes) -> dict[str, Any]:
        """The answer to one request; `error` where it is none."""
        try:
            ask = _ASK.validate_json(data)
        except ValidationError as error:
            return {"error": error.errors()[0]["msg"]}
        with self.lock:
            return self._carry_out(ask)

    def _carry_out(self, ask: Ask) -> dict[str, Any]:
        now_ns, relay = self._clock(), self.relay
        if ask.op == "hello":
            return {"epoch": relay.connect()}
        if ask.op == "beat":
            return {"taken": relay.beat(ask.epoch, ask.count, ask.ready, now_ns), "count": ask.count}
        if ask.op == "pass":
            answer = relay.let_pass(Order(ask.epoch, ask.camera, ask.tag, ask.deadline_ns), now_ns)
            return {"answer": answer.value, "camera": ask.camera, "tag": ask.tag, "energised": relay.energised(now_ns)}
        if ask.op == "gate":
            return {"pass": relay.gate(ask.camera, ask.tag, now_ns)}
        return {"energised": relay.energised(now_ns), "epoch": relay.epoch, "counts": dict(relay.counts)}

    def client(self) -> threading.BoundedSemaphore:
        """One place among the clients that may be connected at a time."""
        return self._clients


class _Handler(socketserver.StreamRequestHandler):
    timeout = IDLE_S

    def handle(self) -> None:
        """Answer lines until the client goes, is silent for too long, or sends one that is none."""
        server = self.server
        assert isinstance(server, RelayServer)  # noqa: S101  no other makes this handler
        if not server.client().acquire(blocking=False):
            return
        try:
            while (line := self.rfile.readline(LINE_MAX + 1)).endswith(b"\n"):
                self.wfile.write(json.dumps(server.answer(line)).encode() + b"\n")
        except OSError:
            pass  # the client is gone; the heartbeat tells the rest
        finally:
            server.client().release()
