"""Trigger messages: keys, the list of keys, garbage, floods; and what becomes of ids that skip, repeat and go back."""

from __future__ import annotations

import secrets
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zmq.utils import z85

from appliance.camera import CameraLoop
from appliance.counting import PartCount
from appliance.sources.grabber import CameraError, Grabber
from appliance.sources.keys import load_keys, make_client_keys, make_station_keys
from appliance.sources.listener import MESSAGE_MAX, LineClient, TriggerListener
from appliance.sources.live import LiveSource
from appliance.sources.triggers import WAITING_MAX, Trigger, TriggerQueue
from appliance.wire import STOP, FrameNote, MissNote, pack_credit
from calibration.errors import InputError
from calibration.preprocess import Frame
from tests.appliance.test_camera import Bench, notes
from tests.support.fixtures import Context
from tests.support.tiny import part, tiny_spec


class Line:
    """A listener on loopback, with one client on its list."""

    def __init__(self, directory: Path) -> None:
        self.keys_directory = directory / "keys"
        make_station_keys(self.keys_directory)
        make_client_keys(self.keys_directory, "plc")
        self.keys = load_keys(self.keys_directory)
        self.queue = TriggerQueue()
        self.listener = TriggerListener("tcp://127.0.0.1:0", self.keys, self.queue)
        self.secret = (self.keys_directory / "plc.key").read_bytes().strip()
        self._clients: list[LineClient] = []
        self.client = self.connect(self.secret)

    def connect(self, secret: bytes, server: bytes | None = None) -> LineClient:
        """A client with that secret key, closed with the line."""
        key = zmq.curve_public(secret)
        self._clients.append(LineClient(self.listener.endpoint, server or self.keys.public, key, secret))
        return self._clients[-1]

    def close(self) -> None:
        """Close all."""
        for client in self._clients:
            client.close()
        self.listener.close()
        self.queue.close()


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """A line whose client may trigger."""
    made = Line(tmp_path)
    yield made
    made.close()


def test_a_trigger_comes_with_id_serial_lot_and_its_time(line: Line) -> None:
    """In the order sent; the time is that of its arrival."""
    before = time.monotonic_ns()
    assert line.client.trigger(17, "A-17", "L9") == {"id": 17, "taken": True}
    assert line.client.trigger(18) == {"id": 18, "taken": True}
    first, second = line.queue.take(), line.queue.take()
    assert first is not None
    assert second is not None
    assert first[1:] == (17, "A-17", "L9")
    assert second[1:] == (18, "", "")
    assert before < first.at_ns < second.at_ns < time.monotonic_ns()
    assert line.queue.take() is None


def test_strangers_are_not_heard(line: Line) -> None:
    """Twenty keys that are not on the list, and a client that takes another for the station: none gets in, and the one
    on the list is served beside them."""
    others = [line.connect(zmq.curve_keypair()[1]) for _ in range(20)]
    others.append(line.connect(line.secret, zmq.curve_keypair()[0]))
    for other in others:
        with pytest.raises(TimeoutError):
            other.trigger(1, timeout_s=0.03)
    assert line.client.trigger(5) == {"id": 5, "taken": True}
    trigger = line.queue.take()
    assert trigger is not None
    assert trigger.number == 5
    assert line.queue.take() is None
    assert line.listener.strangers >= 20


def test_plain_connections_are_not_heard(line: Line, context: Context) -> None:
    """A socket without CURVE, random bytes and a greeting cut short: nothing comes through, the client is served."""
    plain = context.socket(zmq.DEALER)
    plain.connect(line.listener.endpoint)
    plain.send(b'{"id": 1}')
    host, _, port = line.listener.endpoint.removeprefix("tcp://").partition(":")
    raw = []
    for data in (b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE", secrets.token_bytes(500), b"GET / HTTP/1.1\r\n\r\n", b""):
        raw.append(socket.create_connection((host, int(port)), 2))
        raw[-1].sendall(data)
    assert not plain.poll(100)
    assert line.client.trigger(2) == {"id": 2, "taken": True}
    assert line.queue.take() is not None
    assert line.queue.take() is None
    for one in (plain, *raw):
        one.close()


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"17", b"{}", b"[" * 900, b"\xff\xfe"),
        *(b'{"id": "17"}', b'{"id": -1}', b'{"id": 1.0}', b'{"id": true}', b'{"id": 1e400}', b'{"id": NaN}'),
        *(b'{"id": 1, "serial": "a\\u001b[2J"}', b'{"id": 1, "serial": " a"}'),
        *(b'{"id": 1, "lot": "%s"}' % (b"x" * 65), b'{"id": 1, "op": "x"}', b'{"id": 9223372036854775808}'),
    ],
)
def test_what_is_no_trigger_is_refused(line: Line, data: bytes) -> None:
    """Types, ranges, unknown fields, control characters, depth: an error to the sender, no trigger, a count."""
    assert "error" in line.client.send(data)
    assert line.queue.take() is None
    assert line.listener.refused == 1
    assert line.listener.alive


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes_get_an_answer(line: Line, data: bytes) -> None:
    """Nothing ends the listener."""
    assert "error" in line.client.send(data) or line.queue.take() is not None


def test_too_long_a_message_drops_its_connection(line: Line) -> None:
    """Beyond the limit the library hangs up, and the next connection is served."""
    other = line.connect(line.secret)
    with pytest.raises(TimeoutError):
        other.send(b'{"id": 1, "serial": "' + b"x" * MESSAGE_MAX + b'"}', timeout_s=0.2)
    other.close()
    assert line.client.trigger(2) == {"id": 2, "taken": True}


def test_the_queue_is_bounded(line: Line) -> None:
    """What does not fit is refused to whoever sent it."""
    answers = [line.client.trigger(i) for i in range(WAITING_MAX + 2)]
    assert all(answer.get("taken") for answer in answers[:WAITING_MAX])
    assert all("too many" in answer["error"] for answer in answers[WAITING_MAX:])


def test_a_camera_whose_triggers_are_not_heard_does_not_live(line: Line) -> None:
    """The list of keys and the socket die together, and with them the sign of life of the camera's process."""
    source = LiveSource(Grabber(Sensor()), 0.0, 10**9)
    source.watch(line.listener)
    assert not source.hangs
    line.listener.close()
    assert source.hangs
    with pytest.raises(TimeoutError):
        line.client.trigger(1, timeout_s=0.1)
    source.close()


def test_an_address_that_is_taken(line: Line) -> None:
    """Said with the address."""
    with pytest.raises(InputError, match="listen"):
        TriggerListener(line.listener.endpoint, line.keys, TriggerQueue())


def test_keys_are_made_once_and_kept_secret(tmp_path: Path) -> None:
    """Mode 0600; never replaced; a client's public key is on the list."""
    directory = tmp_path / "keys"
    assert [path.name for path in make_station_keys(directory)] == ["station.key", "station.pub"]
    before = (directory / "station.key").read_bytes()
    assert make_station_keys(directory) == []
    with pytest.raises(InputError, match="nobody may trigger"):
        load_keys(directory)
    make_client_keys(directory, "plc-1")
    with pytest.raises(InputError, match="there is one already"):
        make_client_keys(directory, "plc-1")
    assert (directory / "station.key").read_bytes() == before
    for name in ("station.key", "plc-1.key"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600
    keys = load_keys(directory)
    assert keys.clients == {z85.decode((directory / "clients" / "plc-1.pub").read_text().strip()): "plc-1"}
    assert keys.public.decode() == (directory / "station.pub").read_text().strip()


@pytest.mark.parametrize("name", ["", "../x", "a/b", "station", "ü", "x" * 70, ".hidden"])
def test_names_of_clients(tmp_path: Path, name: str) -> None:
    """No paths, and not the station's own."""
    with pytest.raises(InputError, match="no name"):
        make_client_keys(tmp_path, name)


@pytest.mark.parametrize(
    ("file", "mode", "content", "text"),
    [
        ("station.key", 0o644, None, "chmod 600"),
        ("station.key", 0o600, "x" * 40 + "y", "Z85"),
        ("station.key", 0o600, "\x7f" * 40, "Z85"),
        ("clients/plc.pub", 0o644, "short", "Z85"),
        ("clients/plc.pub", 0o644, "ü", "public key"),
    ],
)
def test_unusable_keys_are_refused(tmp_path: Path, file: str, mode: int, content: str | None, text: str) -> None:
    """Readable by others, or damaged: the file and the remedy."""
    make_station_keys(tmp_path)
    make_client_keys(tmp_path, "plc")
    path = tmp_path / file
    if content is not None:
        path.write_text(content, encoding="utf-8")
    path.chmod(mode)
    with pytest.raises(InputError, match=text):
        load_keys(tmp_path)


class Sensor:
    """A driver that gives another picture every few milliseconds."""

    def __init__(self) -> None:
        self._number = 0

    def open(self) -> None:
        """See Driver.open."""

    def read(self) -> Frame:
        """See Driver.read."""
        time.sleep(0.005)
        self._number += 1
        if self._number > 2000:
            raise CameraError("worn out")
        return part(self._number, False)

    def close(self) -> None:
        """See Driver.close."""


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([5, 6, 7], [(5, ""), (6, ""), (7, "")]),
        ([5, 8], [(5, ""), (6, "NO_FRAME"), (7, "NO_FRAME"), (8, "")]),
        ([5, 5, 6], [(5, ""), (6, "TRIGGER"), (7, "")]),
        ([5, 6, 2, 3], [(5, ""), (6, ""), (7, "TRIGGER"), (8, "")]),
        ([5, 10**12, 10**12 + 1], [(5, ""), (6, "TRIGGER"), (7, "")]),
    ],
    ids=["in order", "skips", "repeats", "goes back", "leaps"],
)
def test_ids_out_of_order_cost_a_reject_and_shift_nothing(ids: list[int], expected: list[tuple[int, str]]) -> None:
    """A skipped id is a part unseen and has its own reject; one that comes again or goes back is rejected, since nobody
    knows which part it means. A frame carries the id of its own message, whatever came before."""
    bench, queue = Bench(), TriggerQueue()
    source = LiveSource(Grabber(Sensor()), 0.0, 2 * 10**9)
    loop = CameraLoop(bench.there, bench.ring, tiny_spec(), source, PartCount(0), triggers=queue)
    thread = threading.Thread(target=loop.run, daemon=True)
    thread.start()
    bench.here.send(pack_credit(range(8)))
    for number in ids:
        queue.offer(Trigger(time.monotonic_ns(), number, f"S{number}"))
        time.sleep(0.03)
    messages: list[bytes] = []
    deadline = time.monotonic() + 30
    while len(found := notes(messages)) < len(expected):
        assert time.monotonic() < deadline, found
        if bench.here.poll(100):
            messages += bench.here.recv_multipart()
    bench.here.send(STOP)
    thread.join(5)
    source.close()
    assert [(n.trigger, n.reason.value if isinstance(n, MissNote) else "") for n in found] == expected
    frames = [note for note in found if isinstance(note, FrameNote)]
    assert all(note.serial == f"S{note.tag}" and note.tag in ids for note in frames)
    bench.close()
    queue.close()
