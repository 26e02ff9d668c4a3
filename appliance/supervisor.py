"""The supervisor: one loop around the poller that keeps workers alive and parts moving.

It owns the database and all child processes, and waits for nothing but its poller and the disk. Whatever happens to a
worker, every trigger that the supervisor has heard of ends in exactly one row.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import zmq

from appliance.batcher import Batcher, Part
from appliance.camera_link import CameraLink
from appliance.channels import ControlChannel, StopSignal, WorkerChannel
from appliance.config import Station
from appliance.counting import CountNote
from appliance.crew import evidence_quotas, make_crew
from appliance.desk import Desk, Summary
from appliance.engine_link import EngineLink, EnginePhase, Model
from appliance.evidence import CLASSES, EvidenceChoice
from appliance.health import Health
from appliance.ledger import Ledger
from appliance.line import Line
from appliance.messages import Counts, Reason, State
from appliance.monitor.drift import DriftMonitor
from appliance.notify import notify
from appliance.outputs import open_output
from appliance.paths import StationPaths
from appliance.sizing import fitting_batch, window
from appliance.store import Store
from appliance.upkeep import Upkeep
from appliance.wire import FrameNote, MissNote, WireError

TICK_NS = 200_000_000
STOP_NS = 800_000_000
"""After a request to stop, parts under way may still be judged for so long."""

SETTLE_NS = 200_000_000
"""How long the last commit may be tried again."""

END_S = 0.7
"""How long workers may take to end by themselves."""

QUEUED_MAX = 10_000
"""Rows that may wait for a database that does not take them; beyond it the daemon gives up."""

Progress = Callable[[Counts], None]


class Supervisor:
    """One run of the daemon with one bundle. Construct it, `prove` it, `run` it; `close` it in any case."""

    def __init__(self, station: Station, model: Model, store: Store) -> None:
        """Make sockets and shared memory. Raises InputError."""
        self._station, self._model, self._store = station, model, store
        self._health = Health(store)
        self._health.enter(State.VERIFY)
        self._next_tick_ns = 0
        self._stop_at_ns: int | None = None
        self._ended_by = ""
        baseline = model.bundle.variant(model.variant).baseline.counts
        self._upkeep = Upkeep(station, store, self._health)
        self._output = open_output(station.output, list(station.camera), StationPaths.of(station.station.data))
        self._ledger = Ledger(store, station.station.lot, model.bundle.sha256, self._output)
        drift = DriftMonitor(baseline, station.drift.window, station.drift.false_alarm)
        self._line = Line(model.rule, self._ledger, drift, self._release, self._health.drifted)
        self._evidence = EvidenceChoice(evidence_quotas(station), station.evidence.passed_share)
        self._batcher = Batcher(station.batch.size, int(station.batch.wait_ms * 1e6))
        self._deadline_ns = int(station.timing.deadline_ms * 1e6)
        paths = StationPaths.of(station.station.data)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poller = zmq.Poller()
        self._workers = WorkerChannel(self._context, paths.workers, self._poller)
        self._control = ControlChannel(self._context, paths.control, self._poller)
        crew = make_crew(station, model, self._workers)
        self._ring, self._cameras, self._engine = crew.ring, crew.cameras, crew.engine
        self._by_name = {camera.name: camera for camera in self._cameras}
        self._desk = Desk(
            station,
            model,
            store,
            self._health,
            self._ledger,
            self._line,
            self._output,
            self._cameras,
            self._engine,
            time.monotonic_ns(),
        )
        self._signal = StopSignal(self._poller)

    def prove(self) -> str:
        """Start all processes and hold the engine against the goldens; "" or what is wrong with it."""
        self._health.enter(State.SELFTEST)
        self._engine.start(time.monotonic_ns())
        for camera in self._cameras:
            camera.resume(*self._store.where_left(camera.name))
            camera.start()
        self._line.drift.prepare()  # while the workers load
        while self._engine.phase is not EnginePhase.SERVING and not self._signal.asked:
            self._turn()
            if self._engine.phase is EnginePhase.REFUSED or self._health.condition.fault:
                return self._engine.trouble or self._health.condition.fault
        self._fit()
        self._health.enter(State.READY)
        return ""

    def _fit(self) -> None:
        """Make batches as small as this machine's measured speed demands, so that waiting alone makes no part late."""
        cameras = self._station.camera.values()
        unpaced = sum(camera.fps <= 0 for camera in cameras)
        engine = self._engine
        size = fitting_batch(engine.size, engine.part_ns, self._deadline_ns, unpaced, engine.lanes)
        if size < self._batcher.size:
            self._health.audit("batch size", str(size), str(self._batcher.size))
            self._batcher.size = size
        for link, camera in zip(self._cameras, cameras, strict=True):
            if camera.fps <= 0:
                link.limit(window(camera.fps, size, engine.lanes))
        if 3 * self._engine.part_ns > self._deadline_ns:
            slow = f"{self._engine.part_ns / 1e6:.0f} ms a part, deadline {self._deadline_ns / 1e6:.0f} ms"
            self._health.warn("speed", f"this machine may be too slow for the line: {slow}")

    def run(self, max_seconds: float | None = None, progress: Progress | None = None) -> Summary:
        """Judge until all sources have ended, a signal comes, or `max_seconds` have passed."""
        begin_ns = time.monotonic_ns()
        self._health.audit("start", f"bundle {self._model.bundle.sha256}, {self._engine.name}")
        self._health.enter(State.RUN)
        notify(f"READY=1\nSTATUS=judging with {self._model.bundle.manifest.name}")
        gc.freeze()  # what the start has made stays: no collection in the middle of parts looks at it again
        for camera in self._cameras:
            camera.open()
        end_ns = None if max_seconds is None else begin_ns + int(max_seconds * 1e9)
        shown_ns = begin_ns
        while not self._finished():
            now_ns = self._turn()
            if progress is not None and now_ns >= shown_ns + TICK_NS:
                shown_ns = now_ns
                progress(self._ledger.run_counts()[0])
            if self._signal.asked or (end_ns is not None and now_ns >= end_ns):
                self._begin_stop(self._signal.asked or "max-seconds", now_ns)
        self._settle()
        if progress is not None:
            progress(self._ledger.run_counts()[0])
        return self._desk.summary((time.monotonic_ns() - begin_ns) / 1e9, self._ended_by or "sources")

    def close(self) -> None:
        """End all processes and give everything back."""
        notify("STOPPING=1")
        self._engine.stop()
        self._output.close()
        for camera in self._cameras:
            camera.flush()
            camera.stop()
        until = time.monotonic() + END_S
        for camera in self._cameras:
            camera.close(max(0.0, until - time.monotonic()))
        self._engine.close(max(0.0, until - time.monotonic()))
        self._signal.close()
        self._workers.close()
        self._control.close()
        self._context.term()
        self._ring.close()

    def _turn(self) -> int:
        """Wait for something to happen, at most until the next thing is due; deal with it. Returns the time."""
        timeout_ms = max(0, -(-(self._wake_ns() - time.monotonic_ns()) // 1_000_000))
        ready = dict(self._poller.poll(timeout_ms))
        now_ns = time.monotonic_ns()
        if ready:
            for owner, data in self._workers.receive():
                self._message(owner, data, now_ns)
            self._workers.report_ends(ready, now_ns)
            self._control.serve(ready, self._desk.answer)
            self._signal.drain(ready)
        self._feed(now_ns)
        due_ns = self._ledger.due_ns()
        if due_ns is not None and now_ns >= due_ns:
            self._commit(now_ns)
        if now_ns >= self._next_tick_ns:
            self._next_tick_ns = now_ns + TICK_NS
            self._tick(now_ns)
        return now_ns

    def _wake_ns(self) -> int:
        times = [self._next_tick_ns, self._ledger.due_ns(), self._batcher.due_ns() if self._engine.waits else None]
        return min(t for t in times if t is not None)

    def _message(self, owner: object, data: bytes, now_ns: int) -> None:
        """One message of a worker. A worker that breaks the protocol is killed: it could write anywhere."""
        try:
            if isinstance(owner, CameraLink):
                before = owner.count
                note = owner.message(data)
                if isinstance(note, FrameNote):
                    self._frame(owner, note, now_ns)
                elif isinstance(note, CountNote):
                    self._counts(owner, before, note, now_ns)
                elif note is not None:
                    self._line.missed(owner.name, note, now_ns)
            elif isinstance(owner, EngineLink):
                scored = owner.message(data)
                if scored is not None and self._health.condition.rejects_all:
                    self._line.reject(scored[0], Reason.HOLD, self._health.condition.reason, now_ns)
                elif scored is not None:
                    self._line.judge(*scored, now_ns)
        except WireError as error:
            if isinstance(owner, CameraLink):
                owner.break_off(str(error))
            else:
                self._lose_engine(str(error), now_ns)

    def _counts(self, camera: CameraLink, before: CountNote | None, now: CountNote, now_ns: int) -> None:
        """The line counts its parts: those that it counted before this start, and that have no row, get it now."""
        if before is None or before.offset != now.offset:
            old = f"{before.trigger} {before.offset}" if before else ""
            self._health.audit(f"count {camera.name}", f"{now.trigger} {now.offset}", old)
            if before is not None:
                self._health.alert("COUNT", f"camera {camera.name}: the line began another count of its parts")
        text = "the station went down before its verdict was recorded"
        for trigger in camera.take_unfinished():
            self._line.missed(camera.name, MissNote(trigger, now_ns, Reason.STOPPED, "", text), now_ns)

    def _frame(self, camera: CameraLink, note: FrameNote, now_ns: int) -> None:
        part = Part(
            camera=camera.name,
            trigger=note.trigger,
            frame=note.name,
            slot=note.slot,
            crc=note.crc,
            triggered_ns=note.triggered_ns,
            ready_ns=note.ready_ns,
            deadline_ns=note.triggered_ns + self._deadline_ns,
            serial=note.serial,
            lot=note.lot,
            tag=note.tag,
        )
        self._batcher.add(part)

    def _feed(self, now_ns: int) -> None:
        """Give the engine what is due, reject what it can no longer judge in time, hand free slots back."""
        if self._health.condition.rejects_all:
            self._line.reject(self._batcher.take_all(), Reason.HOLD, self._health.condition.reason, now_ns)
        expired = self._batcher.take_expired(now_ns)
        if expired:
            down = self._engine.phase is not EnginePhase.SERVING
            self._line.reject(expired, Reason.ENGINE if down else Reason.LATE, self._engine.trouble, now_ns)
        while self._engine.has_room and (parts := self._batcher.take(now_ns, self._engine.waits)):
            self._engine.send(parts, now_ns)
        for camera in self._cameras:
            camera.flush()

    def _release(self, part: Part, seq: int, reason: Reason) -> None:
        kind = self._evidence.wanted(reason)
        self._by_name[part.camera].release(part.slot, seq, None if kind is None else CLASSES.index(kind))

    def _commit(self, now_ns: int) -> None:
        """Group commit; while the database takes no rows, nothing passes."""
        if self._ledger.commit(now_ns):
            if "database" in self._health.condition.holds:
                self._health.alert("DATABASE", f"took no rows for a while: {self._health.condition.holds['database']}")
            self._health.clear("database")
        elif self._ledger.lost or self._ledger.queued > QUEUED_MAX:
            self._health.fail(f"database: {self._ledger.failure}")
            self._begin_stop("database", now_ns)
        else:
            self._health.hold("database", self._ledger.failure)

    def _tick(self, now_ns: int) -> None:
        """What is looked after a few times a second. systemd hears of it only while parts do not stand still: a hung
        engine is killed above, a hung loop does not come here."""
        self._ledger.follow_clock()
        engine = self._engine
        if engine.hangs(now_ns):
            self._lose_engine("the engine did not answer in time", now_ns)
        elif engine.phase is EnginePhase.DOWN and engine.worker is not None:
            self._lose_engine(engine.trouble, now_ns)
        elif engine.phase is EnginePhase.REFUSED:
            self._health.fail(f"engine: {engine.trouble}")
        elif engine.phase is EnginePhase.SERVING:
            self._health.clear("engine")
        for camera in self._cameras:
            trouble = camera.check(now_ns)
            if trouble:
                self._health.alert("CAMERA", trouble)
            if camera.looping:
                self._health.fail(f"camera {camera.name}: {camera.trouble}; restarted too often")
        self._follow_output(now_ns)
        self._upkeep.tick(now_ns)
        notify("WATCHDOG=1")

    def _follow_output(self, now_ns: int) -> None:
        """The line hears that this loop is alive; what the output says of itself."""
        fault, hold = self._output.beat(not self._health.condition.fault, now_ns)
        self._ledger.follow_output(now_ns)
        if fault:
            self._health.fail(fault)
        elif not hold:
            self._health.clear("output")
        elif hold != (before := self._health.condition.holds.get("output", "")):
            if not before and self._health.condition.phase is State.RUN:
                self._health.alert("OUTPUT", hold)
            self._health.hold("output", hold)

    def _lose_engine(self, why: str, now_ns: int) -> None:
        """Kill the engine, reject what was with it, start another."""
        self._line.reject(self._engine.lose(why), Reason.ENGINE, why, now_ns)
        self._engine.start(now_ns)
        if self._engine.looping:
            self._health.fail(f"engine: {why}; restarted too often")
            return
        self._health.warn("engine", f"{why}; restarting")
        self._health.alert("ENGINE", f"{why}; restarted")

    def _begin_stop(self, why: str, now_ns: int) -> None:
        if self._stop_at_ns is not None:
            return
        self._ended_by = why
        self._stop_at_ns = now_ns + STOP_NS
        for camera in self._cameras:
            camera.stop()

    def _finished(self) -> bool:
        """Whether nothing is under way any more, or the time to end it is over."""
        if self._stop_at_ns is not None and time.monotonic_ns() >= self._stop_at_ns:
            return True
        return all(camera.ended for camera in self._cameras) and not len(self._batcher) and self._engine.idle

    def _settle(self) -> None:
        """The last rows: what could not be judged any more is STOPPED, and everything is committed."""
        for camera in self._cameras:
            if not camera.ended:
                camera.break_off("did not stop in time")
        for owner, data in self._workers.receive():
            self._message(owner, data, time.monotonic_ns())
        parts = self._batcher.take_all()
        if not self._engine.idle:
            parts += self._engine.lose("the station stopped")
        now_ns = time.monotonic_ns()
        self._line.reject(parts, Reason.STOPPED, f"the station stopped: {self._ended_by}", now_ns)
        until_ns = now_ns + SETTLE_NS
        while time.monotonic_ns() < until_ns:
            if self._ledger.commit(time.monotonic_ns()) and self._ledger.follow_output(time.monotonic_ns()):
                break
            time.sleep(0.02)
        self._output.close()
        self._ledger.follow_output(time.monotonic_ns())
        self._ledger.commit(time.monotonic_ns())
        if self._ledger.queued:
            self._health.fail(f"{self._ledger.queued} rows could not be written: {self._ledger.failure}")
        self._health.audit("stop", self._ended_by or "sources")
