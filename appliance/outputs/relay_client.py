"""The appliance's side of the relay's socket."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from appliance.judge import PassToken
from appliance.outputs.protocol import LinkLostError, OutputError

ANSWER_MAX = 4096


class RelayClient:
    """One connection; also for whoever asks the relay about the gate."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        """Connect to the socket. Raises OSError."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._file = self._socket.makefile("rb")

    def ask(self, op: str, **values: Any) -> dict[str, Any]:
        """One request and its answer. Raises LinkLostError, OutputError."""
        try:
            self._socket.sendall(json.dumps({"op": op, **values}).encode() + b"\n")
            line = self._file.readline(ANSWER_MAX)
        except TimeoutError:
            raise OutputError(f"no answer to {op} in time") from None
        except OSError as error:
            raise LinkLostError(f"connection lost: {error.strerror or error}") from None
        if not line.endswith(b"\n"):
            raise LinkLostError("connection closed")
        try:
            answer = json.loads(line)
        except ValueError:
            raise OutputError(f"an answer that is none: {line[:60]!r}") from None
        if not isinstance(answer, dict) or "error" in answer:
            raise OutputError(f"refused {op}: {str(answer)[:200]}")
        return answer

    def close(self) -> None:
        """Drop the connection."""
        self._file.close()
        self._socket.close()


class RelayDevice:
    """See Device."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        """`path` of the relay's socket; a connection or an answer takes at most `timeout_s`."""
        self._path, self._timeout_s = path, timeout_s
        self._client: RelayClient | None = None
        self._epoch = 0

    def open(self) -> None:
        """See Device.open."""
        try:
            self._client = RelayClient(self._path, self._timeout_s)
        except OSError as error:
            raise LinkLostError(f"{self._path}: {error.strerror or error}; start `appliance relay`") from None
        self._epoch = int(self._client.ask("hello").get("epoch", 0))

    def beat(self, count: int, ready: bool) -> None:
        """See Device.beat."""
        answer = self._ask("beat", epoch=self._epoch, count=count, ready=ready)
        if answer.get("taken") is not True or answer.get("count") != count:
            raise LinkLostError("another master speaks to the relay")

    def let_pass(self, token: PassToken) -> bool:
        """See Device.let_pass. The answer names the part: an answer to something else is a read-back that differs."""
        what = {"camera": token.camera, "tag": token.tag}
        answer = self._ask("pass", epoch=self._epoch, deadline_ns=token.deadline_ns, **what)
        if {key: answer.get(key) for key in what} != what:
            raise OutputError(f"read-back: told to pass {what}, the relay says {str(answer)[:200]}")
        accepted = answer.get("answer") == "accepted"
        if accepted and answer.get("energised") is not True:
            raise OutputError("read-back: the relay accepted a PASS and is not energised")
        return accepted

    def close(self) -> None:
        """See Device.close."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _ask(self, op: str, **values: Any) -> dict[str, Any]:
        if self._client is None:
            raise LinkLostError("not connected")
        return self._client.ask(op, **values)
