"""What screens and commands use to watch and serve a station: live from its daemon, else from its database."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import zmq
from pydantic import ValidationError

from appliance import history
from appliance.config import Station
from appliance.lock import station_lock
from appliance.messages import Reply, Request, State, Status
from appliance.paths import StationPaths
from calibration.errors import InputError

if TYPE_CHECKING:
    from appliance.store import Store


class StationSilentError(InputError):
    """A daemon runs on the station but does not answer in time."""


def fetch_status(station: Station, timeout: float = 1.0) -> Status:
    """The station's state now. Never blocks longer than `timeout` seconds, and never delays the daemon.

    Without a daemon the counts, rejects and alerts come from the database, with state STOPPED; a daemon that is
    there but silent shows as FAULT, since nobody can say that it still judges.
    """
    paths = StationPaths.of(station.station.data)
    if not _listening(paths):
        return _from_database(station, State.STOPPED, "no daemon is running")
    try:
        reply = _ask(paths, Request(op="status"), timeout)
    except StationSilentError as error:
        return _from_database(station, State.FAULT, str(error))
    if reply.status is None:
        return _from_database(station, State.FAULT, reply.error or "the daemon sent no status")
    return reply.status


def acknowledge(station: Station, alert: int, operator: str, timeout: float = 2.0) -> None:
    """Mark an alert as seen by `operator`; recorded with the name in the audit.

    Raises:
        InputError: no such open alert, no name, or a daemon that does not answer (StationSilentError).
    """
    request = Request(op="acknowledge", alert=alert, operator=operator)
    _carry_out(station, request, lambda store: store.acknowledge(alert, operator), timeout)


def review(station: Station, row: int, decision: str, operator: str, timeout: float = 2.0) -> None:
    """Record a person's verdict, OK or DEFECT, on a row.

    Raises:
        InputError: no such row, no name, another decision, or a daemon that does not answer (StationSilentError).
    """
    request = Request(op="review", row=row, decision=decision, operator=operator)
    _carry_out(station, request, lambda store: store.review(row, decision, operator), timeout)


Act = Literal["hold", "resume", "reset", "accept"]


def act(station: Station, op: Act, operator: str, why: str, timeout: float = 2.0) -> Status:
    """What an operator asks of the running daemon; its status afterwards.

    Raises:
        InputError: no daemon runs, it refuses, or it does not answer (StationSilentError).
    """
    paths = StationPaths.of(station.station.data)
    if not _listening(paths):
        raise InputError(f"{station.station.name}: no daemon is running; start it with `appliance run`")
    reply = _ask(paths, Request(op=op, operator=operator, why=why), timeout)
    if reply.error or reply.status is None:
        raise InputError(reply.error or "the daemon sent no status")
    return reply.status


def trigger_camera(station: Station, camera: str, serial: str, lot: str, timeout: float = 2.0) -> Status:
    """Say that a part is in front of a camera; the running daemon's status.

    Raises:
        InputError: no daemon runs, it refuses, or it does not answer (StationSilentError).
    """
    paths = StationPaths.of(station.station.data)
    if not _listening(paths):
        raise InputError(f"{station.station.name}: no daemon is running; start it with `appliance run`")
    reply = _ask(paths, Request(op="trigger", camera=camera, serial=serial, lot=lot), timeout)
    if reply.error or reply.status is None:
        raise InputError(reply.error or "the daemon sent no status")
    return reply.status


def _carry_out(station: Station, request: Request, directly: Callable[[Store], None], timeout: float) -> None:
    """By the daemon, which alone writes while it runs; else with the database itself."""
    paths = StationPaths.of(station.station.data)
    if _listening(paths):
        reply = _ask(paths, request, timeout)
        if reply.error:
            raise InputError(reply.error)
        return
    from appliance.store import Store, StoreError

    if not paths.database.exists():
        raise InputError(f"{paths.database}: no such database; start the station with `appliance run`")
    with station_lock(paths.lock):
        store = Store(paths.database)
        try:
            directly(store)
        except StoreError as error:
            raise InputError(f"{error}; nothing was recorded; make room on its disk and try again") from None
        finally:
            store.close()


def _listening(paths: StationPaths) -> bool:
    """Whether a process has the control socket open: the kernel answers, even where the process hangs."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.2)
        try:
            probe.connect(str(paths.control))
        except OSError:
            return False
    return True


def _ask(paths: StationPaths, request: Request, timeout: float) -> Reply:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    with context.socket(zmq.DEALER) as channel:
        channel.setsockopt(zmq.LINGER, 0)
        channel.setsockopt(zmq.MAXMSGSIZE, 4 * 2**20)
        channel.connect(f"ipc://{paths.control}")
        channel.send(request.model_dump_json().encode())
        if not channel.poll(int(timeout * 1000)):
            raise StationSilentError(f"the daemon does not answer within {timeout:g} s")
        data = channel.recv()
    try:
        return Reply.model_validate(json.loads(data), strict=False)
    except (ValueError, ValidationError) as error:
        raise StationSilentError(f"the daemon's answer is not understood: {str(error).splitlines()[0]}") from None


def _from_database(station: Station, state: State, why: str) -> Status:
    paths = StationPaths.of(station.station.data)
    name = station.station.name
    if not paths.database.exists():
        return Status(station=name, state=state, state_reason=f"{why}; it has never run")
    try:
        with history.open_readonly(paths.database) as connection:
            parts = history.tally(connection)
            return Status(
                station=name,
                state=state,
                state_reason=why,
                bundle_sha256=history.last_bundle(connection),
                counts=history.counts(parts),
                rejects_by_reason=history.rejects_by_reason(parts),
                histogram=history.histogram(connection),
                alerts=history.open_alerts(connection),
                rejects=history.recent_rejects(connection),
            )
    except InputError as error:
        return Status(station=name, state=state, state_reason=f"{why}; {error}")
