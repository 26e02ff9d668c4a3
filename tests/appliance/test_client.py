"""Clients of a station: those that talk nonsense, and what they are told of one that does not answer."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
import zmq

from appliance.channels import ControlChannel
from appliance.client import StationSilentError, acknowledge, fetch_status
from appliance.config import load_station
from appliance.messages import Reply, Request, State, Status
from appliance.paths import StationPaths, make_directories
from appliance.store import Store
from calibration.errors import InputError
from tests.appliance.stations import make_station
from tests.support.fixtures import Context


def test_clients_that_talk_nonsense_get_an_error_and_harm_nobody(tmp_path: Path, context: Context) -> None:
    """Garbage, unknown requests and oversized ones: an error or silence; the next client is served."""
    poller = zmq.Poller()
    control = ControlChannel(context, tmp_path / "control", poller)
    assert stat.S_IMODE((tmp_path / "control").stat().st_mode) == 0o600

    def answer(request: Request) -> Reply:
        if request.op == "acknowledge":
            raise InputError("no such alert")
        return Reply(status=Status(station="s", state=State.RUN))

    replies = []
    for data in (b"\xff\x00", b"{}", b'{"op": "reboot"}', b'{"op": "acknowledge"}', b"", b'{"op": "status"}'):
        with context.socket(zmq.DEALER) as client:
            client.setsockopt(zmq.LINGER, 0)
            client.connect(f"ipc://{tmp_path}/control")
            client.send(data)
            control.serve(dict(poller.poll(2000)), answer)
            assert client.poll(2000)
            replies.append(Reply.model_validate_json(client.recv()))
    assert [bool(reply.error) for reply in replies] == [True, True, True, True, True, False]
    assert replies[3].error == "no such alert"
    control.close()


def test_a_station_that_never_ran_is_stopped(tmp_path: Path) -> None:
    """Status without database or daemon, with a strange database, and an acknowledgement without either."""
    station = load_station(make_station(tmp_path, 1))
    status = fetch_status(station)
    assert (status.state, status.counts.triggers) == (State.STOPPED, 0)
    assert "never run" in status.state_reason
    with pytest.raises(InputError, match="no such database"):
        acknowledge(station, 1, "anna")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "station.db").write_bytes(b"")
    assert "appliance run" in fetch_status(station).state_reason


def test_alerts_of_a_stopped_station_can_be_acknowledged(tmp_path: Path) -> None:
    """Without a daemon the client takes the station for as long as it writes."""
    station = load_station(make_station(tmp_path, 1))
    make_directories(StationPaths.of(station.station.data))
    store = Store(StationPaths.of(station.station.data).database)
    number = store.alert("DRIFT", "x").id
    store.close()
    assert [alert.id for alert in fetch_status(station).alerts] == [number]
    acknowledge(station, number, "anna")
    assert fetch_status(station).alerts == ()


@pytest.mark.parametrize("answer", [None, b"nonsense", b'{"status": null}', b'{"error": "x", "status": null}'])
def test_a_silent_or_confused_daemon_is_a_fault(tmp_path: Path, answer: bytes | None, context: Context) -> None:
    """Somebody listens but says nothing sensible: FAULT, with what the database knows; never a hang."""
    station = load_station(make_station(tmp_path, 1))
    paths = StationPaths.of(station.station.data)
    make_directories(paths)
    router = context.socket(zmq.ROUTER)
    router.bind(f"ipc://{paths.control}")

    def serve() -> None:
        if answer is not None and router.poll(5000):
            identity, _ = router.recv_multipart()
            router.send_multipart((identity, answer))

    thread = threading.Thread(target=serve)
    thread.start()
    status = fetch_status(station, timeout=0.3)
    thread.join()
    assert status.state is State.FAULT
    if answer is None:
        with pytest.raises(StationSilentError, match="does not answer"):
            acknowledge(station, 1, "anna", timeout=0.1)
