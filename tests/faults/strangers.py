"""Clients that misbehave at the daemon's sockets, and an operator at work: none of it may cost a row or make a PASS."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import zmq

from appliance.client import act
from appliance.config import load_station
from appliance.messages import State
from appliance.paths import StationPaths
from calibration.errors import InputError

NONSENSE = (
    b"",
    b"\x00\xff" * 40,
    b"[" * 30_000,
    b'{"op": "status", "op": "reset"}',
    b'{"op": "format the disk"}',
    b'{"op": "reset", "operator": "\\u0000"}',
    b'{"op": "acknowledge", "alert": 1e999}',
    b'{"op": "review", "row": ' + b"9" * 4000 + b"}",
    b'{"op": "trigger", "camera": NaN}',
)
"""Messages of a client that is connected as it should be; each is answered with an error."""

GREETING = b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03"
"""Beginning of what a client of ZeroMQ sends first."""

REQUESTS = 60
ANSWER_MS = 1000
RESUMED_S = 20.0


class Strangers:
    """Clients of one line."""

    def __init__(self, config: Path, random: Random) -> None:
        """`config`: the line's station.toml."""
        self._station = load_station(config)
        self._paths = StationPaths.of(self._station.station.data)
        self._random = random
        self._silent: list[socket.socket] = []

    def garbage(self) -> bool:
        """Bytes that are no message, half of them after a good beginning; whether anybody heard them."""
        random = self._random
        begin = random.choice((b"", GREETING))
        with suppress(OSError), self._connected() as channel:
            channel.sendall(begin + random.randbytes(random.randrange(1, 4000)))
            return True
        return False

    def silent(self) -> bool:
        """Connected, and nothing more, until `leave`; whether there was somebody to connect to."""
        with suppress(OSError):
            self._silent.append(self._connected())
            return True
        return False

    def nonsense(self) -> bool:
        """A whole message without sense; whether it was answered, and with an error."""
        with self._client() as channel:
            if not channel.poll(ANSWER_MS, zmq.POLLOUT):
                return False
            channel.send(self._random.choice(NONSENSE))
            return bool(channel.poll(ANSWER_MS)) and bool(json.loads(channel.recv())["error"])

    def deaf(self) -> bool:
        """Many requests, and gone before their answers; whether there was somebody to ask."""
        with self._client() as channel:
            if not channel.poll(ANSWER_MS, zmq.POLLOUT):
                return False
            for _ in range(REQUESTS):
                channel.send(b'{"op": "status"}')
            return True

    def operator(self) -> bool:
        """Holds the line for a moment and lets it go on, however often that has to be asked for; whether it stood."""
        held = False
        with suppress(InputError):  # it may be at its start, hang or stand still: then it may have heard nonetheless
            held = act(self._station, "hold", "somebody", "campaign", timeout=1.0).state is State.HOLD
        time.sleep(self._random.uniform(0.02, 0.2))
        end, refused, why = time.monotonic() + RESUMED_S, 0, ""
        while time.monotonic() < end and refused < 2:
            try:
                act(self._station, "resume", "somebody", "", timeout=1.0)
                return held
            except InputError as error:
                why = str(error)
                refused += why.startswith("nothing waits")  # it has heard an earlier one, or never of the hold
                time.sleep(0.1)
        if refused < 2:
            raise AssertionError(f"the daemon took no `resume` for {RESUMED_S:g} s: {why}")
        return held

    def leave(self) -> None:
        """The silent ones go."""
        for channel in self._silent:
            channel.close()
        self._silent.clear()

    def _connected(self) -> socket.socket:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        channel.settimeout(0.2)
        try:
            channel.connect(str(self._random.choice((self._paths.control, self._paths.cameras, self._paths.engines))))
        except OSError:
            channel.close()
            raise
        return channel

    @contextmanager
    def _client(self) -> Iterator[zmq.Socket[bytes]]:
        with zmq.Context() as context, context.socket(zmq.DEALER) as channel:
            channel.setsockopt(zmq.LINGER, 20)
            channel.setsockopt(zmq.IMMEDIATE, 1)  # what is sent before there is a connection is not sent
            channel.setsockopt(zmq.SNDTIMEO, ANSWER_MS)
            channel.connect(f"ipc://{self._paths.control}")
            yield channel
