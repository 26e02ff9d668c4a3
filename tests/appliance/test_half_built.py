"""What fails while it is built gives back everything it had opened: sockets, contexts, shared memory, threads.

A context of ZeroMQ that is left to the garbage collector waits for ever for its open sockets, in the middle of whatever
runs then; a daemon that goes on with another bundle after a failed start would stand still at some later moment.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import pytest
import zmq

from appliance.camera import run_camera
from appliance.channels import StopSignal
from appliance.config import Station, load_station
from appliance.daemon import fitted
from appliance.engine_link import Model
from appliance.paths import StationPaths, make_directories
from appliance.ring import Ring
from appliance.sources.keys import StationKeys, load_keys, make_client_keys, make_station_keys
from appliance.sources.listener import LineClient, TriggerListener
from appliance.sources.triggers import TriggerQueue
from appliance.store import Store
from appliance.supervisor import Supervisor
from appliance.vigil import Vigil
from calibration.errors import InputError
from calibration.preprocess import GeometryError
from deploy.bundle import Bundle, open_bundle, write_bundle
from tests.appliance.stations import make_station
from tests.support.fixtures import Context
from tests.support.tiny import part, tiny_contents, tiny_spec

GONE_S = 3.0
"""What is closed may be on its way out for so long: the library's own threads see to it."""


def opened() -> Counter[str]:
    """What this process holds open now, by kind, and its threads; memory is the garbage collector's."""
    found = Counter(thread.name for thread in threading.enumerate())
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the listing's own
            found[os.readlink(f"/proc/self/fd/{number}").partition(":")[0]] += 1
    del found["/memfd"]
    return found


@contextmanager
def failing(error: type[Exception], match: str | None = None) -> Iterator[None]:
    """The block raises this and leaves nothing open, though whoever caught the error still holds it."""
    before = opened()
    with pytest.raises(error, match=match) as caught:
        yield
    end = time.monotonic() + GONE_S
    while left := opened() - before:
        assert time.monotonic() < end, (left, caught.value)
        time.sleep(0.01)


def in_thread(make: Callable[[], Any]) -> None:
    """Call it outside the main thread, where no signal can be taken over; raises what it raises."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            make()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    raise raised[0]


class Parts:
    """A station with its store, and what its supervisor is built from."""

    def __init__(self, directory: Path) -> None:
        self.station: Station = load_station(make_station(directory, 2))
        self.paths = StationPaths.of(self.station.station.data)
        make_directories(self.paths)
        self.store = Store(self.paths.database)

    def supervisor(self, bundle: Bundle) -> Supervisor:
        """Built as the daemon builds it."""
        return Supervisor(self.station, bundle, lambda one: (fitted(self.station, one), Model(one, "cpu")), self.store)

    def good(self) -> Supervisor:
        """With the station's own bundle."""
        return self.supervisor(open_bundle(self.station.station.bundle))


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    """Of a station."""
    made = Parts(tmp_path)
    yield made
    made.store.close()


@pytest.mark.parametrize("socket", ["engines", "cameras", "control"])
def test_a_supervisor_whose_socket_cannot_be_bound(parts: Parts, socket: str) -> None:
    """A directory lies in its place."""
    getattr(parts.paths, socket).mkdir()
    with failing(InputError, "local directory"):
        parts.good()


def test_a_supervisor_whose_bundle_has_impossible_goldens(parts: Parts, tmp_path: Path) -> None:
    """Frames that its own preprocessing does not take: the daemon then goes on with another bundle."""
    manifest, members = tiny_contents()
    members["golden/000.png"] = cv2.imencode(".png", part(1, scratched=False)[:20])[1].tobytes()
    write_bundle(tmp_path / "odd.lgb", manifest, members)
    bundle = open_bundle(tmp_path / "odd.lgb")
    with failing(GeometryError):
        parts.supervisor(bundle)


def test_a_supervisor_that_can_take_over_no_signal(tmp_path: Path) -> None:
    """The last thing that can fail, when everything else is there."""

    def make() -> None:
        parts = Parts(tmp_path)
        with closing(parts.store):
            parts.good()

    with failing(ValueError, "main thread"):
        in_thread(make)


def test_a_vigil_whose_socket_cannot_be_bound(parts: Parts) -> None:
    """A directory lies in its place."""
    parts.paths.control.mkdir()
    with failing(InputError, "local directory"):
        Vigil(parts.station, parts.store, "no bundle", "")


def test_a_vigil_that_can_take_over_no_signal(tmp_path: Path) -> None:
    """The last thing that can fail."""

    def make() -> None:
        parts = Parts(tmp_path)
        with closing(parts.store):
            Vigil(parts.station, parts.store, "no bundle", "")

    with failing(ValueError, "main thread"):
        in_thread(make)


def test_signals_that_cannot_be_taken_over() -> None:
    """Its own pair of sockets goes with it."""
    with failing(ValueError, "main thread"):
        in_thread(lambda: StopSignal(zmq.Poller()))


@pytest.fixture
def keys(tmp_path: Path) -> StationKeys:
    """Of a station with one client, "plc"."""
    make_station_keys(tmp_path / "keys")
    make_client_keys(tmp_path / "keys", "plc")
    return load_keys(tmp_path / "keys")


def test_a_listener_whose_address_is_taken(keys: StationKeys) -> None:
    """Another listens there."""
    queue = TriggerQueue()
    listener = TriggerListener("tcp://127.0.0.1:0", keys, queue)
    with failing(InputError, "listen"):
        TriggerListener(listener.endpoint, keys, queue)
    listener.close()
    queue.close()


def test_a_listener_with_a_key_that_is_none(keys: StationKeys) -> None:
    """The library refuses it after both sockets are made."""
    queue = TriggerQueue()
    with failing(zmq.ZMQError):
        TriggerListener("tcp://127.0.0.1:0", StationKeys(keys.public, b"short", keys.clients), queue)
    queue.close()


@pytest.mark.parametrize(("endpoint", "secret"), [("tcp://127.0.0.1:1", b"short"), ("nowhere", None)])
def test_a_line_client_with_a_key_or_an_address_that_is_none(
    keys: StationKeys, endpoint: str, secret: bytes | None
) -> None:
    """Refused with its socket made."""
    public, own = zmq.curve_keypair()
    with failing(zmq.ZMQError):
        LineClient(endpoint, keys.public, public, secret or own)


def test_a_camera_process_that_fails_stops_listening(keys: StationKeys, tmp_path: Path, context: Context) -> None:
    """Its socket to the supervisor is gone; its triggers' socket goes too."""
    ring = Ring.create(1, tiny_spec().shape)
    source = {
        "source": "rtsp",
        "url": "rtsp://127.0.0.1:1/none",
        "trigger": "message",
        "listen": "tcp://127.0.0.1:0",
        "keys": str(tmp_path / "keys"),
    }
    settings = {"ring": ring.descriptor, "slots": 1, "first": 0, "start": 0, "bundle": "", "source": source}
    gone = context.socket(zmq.PAIR)
    gone.close()
    with failing(zmq.ZMQError):
        run_camera({**settings, "preprocess": tiny_spec().to_json()}, gone)
    ring.close()
