"""A station whose device root holds no bundle that may judge: FAULT, nothing is judged, and it is still there.

It answers its clients, feeds the watchdog and looks at the device root: a push, or an operator's reset, ends the wait,
and the station begins anew, with the proof of whatever is to judge then.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

import zmq

from appliance.channels import ControlChannel, StopSignal
from appliance.config import Station
from appliance.desk import Summary
from appliance.health import Health
from appliance.history import counts, rejects_by_reason
from appliance.messages import Counts, Latency, Reply, Request, State, Status
from appliance.notify import notify
from appliance.paths import StationPaths
from appliance.state import Reset
from appliance.store import Store, StoreError
from calibration.errors import InputError
from deploy.record import DeviceError, read_record

LOOK_MS = 200


class Vigil:
    """The wait itself."""

    def __init__(self, station: Station, store: Store, why: str, failed: str) -> None:
        """Make the control socket; the fault is on record from now on. `failed`: SHA-256 of the active bundle that may
        not judge; "" where none is active. Raises InputError."""
        self._station, self._store, self._root = station, store, station.station.bundle
        self._health = Health(store)
        self._health.enter(State.VERIFY)
        self._health.fail(why)
        self._began = time.monotonic()
        self._failed, self._generation = failed, -1
        self._generation = self._look()[0]
        with ExitStack() as undo:  # see Supervisor
            self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            undo.callback(self._context.destroy, linger=0)
            self._poller = zmq.Poller()
            self._control = ControlChannel(self._context, StationPaths.of(station.station.data).control, self._poller)
            self._signal = StopSignal(self._poller)
            undo.pop_all()

    def wait(self, max_seconds: float | None) -> str:
        """Until there is something new, which is "", or the end: a signal's name or "max-seconds"."""
        notify(f"READY=1\nSTATUS=FAULT {self._health.condition.reason}"[:200])
        while True:
            ready = dict(self._poller.poll(LOOK_MS))
            self._control.serve(ready, self.answer)
            self._signal.drain(ready)
            notify("WATCHDOG=1")
            if self._signal.asked:
                return self._signal.asked
            if max_seconds is not None and time.monotonic() >= self._began + max_seconds:
                return "max-seconds"
            generation, active = self._look()
            if self._health.must_prove or generation != self._generation or active != self._failed:
                self._health.audit("start again", "reset" if self._health.must_prove else "the device root has changed")
                return ""

    def answer(self, request: Request) -> Reply:
        """A client's request. Raises InputError with what the client did wrong."""
        try:
            if request.op == "acknowledge" and request.alert is not None:
                self._store.acknowledge(request.alert, request.operator)
            elif request.op == "reset":
                if not request.operator.strip():
                    raise InputError("operator: give the name of who acts; it goes on record")
                self._health.take(Reset(request.operator.strip()))
            elif request.op != "status":
                raise InputError(f"{request.op}: the station is in a fault: {self._health.condition.reason}")
        except StoreError as error:
            return Reply(error=f"not recorded: {error}")
        return Reply(status=self._status())

    def summary(self, ended_by: str) -> Summary:
        """Of a run that judged nothing."""
        parts = self._store.counted()
        seconds = time.monotonic() - self._began
        condition = self._health.condition
        return Summary(
            station=self._station.station.name,
            bundle="",
            bundle_sha256="",
            engine="",
            state=condition.state,
            state_reason=condition.reason,
            ended_by=ended_by,
            seconds=seconds,
            counts=Counts(),
            rejects_by_reason={},
            rows=0,
            passed=0,
            total=counts(parts),
            frames_per_second=0.0,
            latency=Latency(),
        )

    def close(self) -> None:
        """Give signals and socket back."""
        self._signal.close()
        self._control.close()
        self._context.term()

    def _status(self) -> Status:
        parts = self._store.counted()
        condition = self._health.condition
        return Status(
            station=self._station.station.name,
            state=condition.state,
            state_reason=condition.reason,
            uptime_s=time.monotonic() - self._began,
            counts=counts(parts),
            rejects_by_reason=rejects_by_reason(parts),
            alerts=self._store.open_alerts(),
            rejects=self._store.recent_rejects(50),
        )

    def _look(self) -> tuple[int, str]:
        """Generation of the device root, and which bundle is active; as at first while it cannot be read."""
        try:
            record = read_record(self._root)
        except DeviceError:
            return self._generation, self._failed
        slot = record.slots().active_slot
        return record.generation, slot.sha256 if slot else ""


def keep_vigil(station: Station, store: Store, why: str, failed: str, max_seconds: float | None) -> Summary | None:
    """Wait until the station may begin anew, which is None, or for its end. See Vigil."""
    vigil = Vigil(station, store, why, failed)
    try:
        ended_by = vigil.wait(max_seconds)
        return vigil.summary(ended_by) if ended_by else None
    finally:
        vigil.close()
