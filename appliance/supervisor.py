"""The supervisor: one loop around the poller that keeps workers alive and parts moving.

It owns the database and all child processes, and waits for nothing but its poller and the disk. Whatever happens to a
worker, every trigger that the supervisor has heard of ends in exactly one row.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

import zmq

from appliance.challenge import Challenger
from appliance.channels import ControlChannel, StopSignal, WorkerChannel
from appliance.config import Station
from appliance.crew import make_cameras
from appliance.desk import Desk, Summary
from appliance.device_watch import DeviceWatch
from appliance.engine_link import EnginePhase, Model
from appliance.flow import Flow
from appliance.health import Health
from appliance.ledger import Ledger
from appliance.memory import give_back
from appliance.messages import Counts, Reason, State
from appliance.monitor.drift_watch import Accepted
from appliance.monitor.reevaluation import Reevaluator
from appliance.notify import notify
from appliance.outputs import open_output
from appliance.paths import StationPaths
from appliance.post import Ears, Post
from appliance.store import Store
from appliance.switching import Switcher
from appliance.tending import Tending
from appliance.upkeep import Upkeep
from deploy.bundle import Bundle

TICK_NS = 200_000_000
STOP_NS = 800_000_000
"""After a request to stop, parts under way may still be judged for so long."""

SETTLE_NS = 200_000_000
"""How long the last commit may be tried again."""

REST_NS = 100_000_000
"""While the engine has all it needs the loop rests at most so long, and a 25th of the deadline: verdicts wait."""

END_S = 0.7
"""How long workers may take to end by themselves."""

Progress = Callable[[Counts], None]

Open = Callable[[Bundle], tuple[Station, Model]]
"""The station as a bundle needs it, and the bundle as its engine does. Raises what is wrong with the bundle here."""


class Supervisor:
    """One run of the daemon, begun with one bundle. Construct it, `prove` it, `run` it; `close` it in any case."""

    def __init__(self, station: Station, bundle: Bundle, open_bundle: Open, store: Store) -> None:
        """Make sockets and shared memory; whatever is raised, all of it is given back.

        Raises:
            InputError: anything that is missing here. GeometryError: the goldens are not what their bundle takes.
        """
        self._open = open_bundle
        station, model = open_bundle(bundle)
        self._station, self._store = station, store
        self._accepted = Accepted(store.connection)
        self._health = Health(store, station.drift.hold_nats)
        self._health.enter(State.VERIFY)
        self._next_tick_ns = 0
        self._stop_at_ns: int | None = None
        self._ended_by = ""
        self._running = False
        paths = StationPaths.of(station.station.data)
        self._output = open_output(station.output, list(station.camera), paths)
        self._ledger = Ledger(store, station.station.lot, bundle.sha256, self._output)
        self._deadline_ns = int(station.timing.deadline_ms * 1e6)
        self._rest_ns = min(REST_NS, self._deadline_ns // 25)
        with ExitStack() as undo:  # a context with open sockets, left to the garbage collector, would wait for ever
            self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            undo.callback(self._context.destroy, linger=0)
            self._poller = zmq.Poller()
            self._from_engines = WorkerChannel(self._context, paths.engines, self._poller)
            self._from_cameras = WorkerChannel(self._context, paths.cameras, self._poller)
            self._control = ControlChannel(self._context, paths.control, self._poller)
            watch = DeviceWatch(station.station.bundle, station.station.name)
            post = self._post(station, model, 0)
            undo.callback(post.close, 0.0)
            self._cameras = make_cameras(station, post, self._from_cameras)
            self._posts = Switcher(station, post, self._cameras, watch, self._health, self._ledger, self._build)
            self._flow = Flow(station, self._health, self._posts, self._cameras, self._ledger)
            upkeep = Upkeep(station, store, self._health)
            challenger = Challenger(station.challenge, self._health, self._posts, self._ledger, time.monotonic_ns())
            reevaluator = Reevaluator(station.reevaluation, store, self._health, self._posts)
            self._tending = Tending(
                self._health, self._posts, self._cameras, self._output, self._ledger, upkeep, challenger, reevaluator
            )
            self._desk = Desk(
                station,
                store,
                self._health,
                self._ledger,
                self._posts,
                self._output,
                self._cameras,
                reevaluator,
                time.monotonic_ns(),
            )
            self._signal = StopSignal(self._poller)
            undo.pop_all()

    def _post(self, station: Station, model: Model, first: int) -> Post:
        ears = Ears(
            lambda *told: self._flow.release(*told), lambda *told: self._posts.seen(*told), self._health.drifted
        )
        return Post(station, model, self._from_engines, self._ledger, ears, first, self._accepted)

    def _build(self, bundle: Bundle, first: int) -> Post:
        return self._post(*self._open(bundle), first)

    def prove(self) -> str:
        """Start all processes and hold the engine against the goldens; "" or what is wrong with it."""
        self._health.enter(State.SELFTEST)
        post = self._posts.current
        post.engine.start(time.monotonic_ns(), alone=True)
        for camera in self._cameras:
            camera.resume(*self._store.where_left(camera.name))
            camera.start()
        post.drift.prepare()  # while the workers load
        while post.engine.phase is not EnginePhase.SERVING and not self._signal.asked:
            self._turn()
            if post.engine.phase is EnginePhase.REFUSED or self._health.condition.fault:
                return post.engine.trouble or self._health.condition.fault
        self._fit(post)
        self._health.enter(State.READY)
        return ""

    def _fit(self, post: Post) -> None:
        before = post.batcher.size
        usable = post.fit(self._deadline_ns)
        for camera in self._cameras:
            camera.limit(len(usable[camera.name]))
        if post.batcher.size < before:
            self._health.audit("batch size", str(post.batcher.size), str(before))
        if 3 * post.engine.part_ns > self._deadline_ns:
            slow = f"{post.engine.part_ns / 1e6:.0f} ms a part, deadline {self._deadline_ns / 1e6:.0f} ms"
            self._health.warn("speed", f"this machine may be too slow for the line: {slow}")

    def run(self, max_seconds: float | None = None, progress: Progress | None = None) -> Summary:
        """Judge until all sources have ended, a signal comes, or `max_seconds` have passed."""
        begin_ns = time.monotonic_ns()
        post = self._posts.current
        self._health.audit("start", f"bundle {post.sha256}, {post.engine.name}")
        self._health.enter(State.RUN)
        self._posts.begin(begin_ns)
        self._running = True
        notify(f"READY=1\nSTATUS=judging with {post.name}")
        give_back()
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
        self._running = False
        self._settle()
        self._posts.end()
        if progress is not None:
            progress(self._ledger.run_counts()[0])
        return self._desk.summary((time.monotonic_ns() - begin_ns) / 1e9, self._ended_by or "sources")

    def close(self) -> None:
        """End all processes and give everything back."""
        notify("STOPPING=1")
        for post in self._posts.posts:
            post.engine.stop()
        self._output.close()
        for camera in self._cameras:
            camera.flush()
            camera.stop()
        until = time.monotonic() + END_S
        for camera in self._cameras:
            camera.close(max(0.0, until - time.monotonic()))
        for post in self._posts.posts:
            post.close(max(0.0, until - time.monotonic()))
        self._signal.close()
        self._from_engines.close()
        self._from_cameras.close()
        self._control.close()
        self._context.term()

    def _turn(self) -> int:
        """Wait for something to happen, at most until the next thing is due; deal with it. Returns the time."""
        ready = dict(self._poller.poll(self._rest_ms()))
        now_ns = time.monotonic_ns()
        self._receive(now_ns)
        if ready:
            self._from_engines.report_ends(ready, now_ns)
            self._from_cameras.report_ends(ready, now_ns)
            self._control.serve(ready, self._desk.answer)
            self._signal.drain(ready)
        self._flow.feed(now_ns)
        due_ns = self._ledger.due_ns()
        if due_ns is not None and now_ns >= due_ns and not self._flow.commit(now_ns):
            self._begin_stop("database", now_ns)
        if now_ns >= self._next_tick_ns:
            self._next_tick_ns = now_ns + TICK_NS
            self._tick(now_ns)
        return now_ns

    def _rest_ms(self) -> int:
        """How long to wait for something to happen. While the engine has all it needs, workers' messages are no reason
        to wake: what makes them dear is the waking, so they are dealt with together a little later."""
        now_ns = time.monotonic_ns()
        until_ns = self._wake_ns() - now_ns
        rest_ms = min(self._posts.current.engine.rest_ns, self._rest_ns) // 1_000_000
        for channel in (self._from_engines, self._from_cameras):
            channel.wake(not rest_ms)
        until_ms = max(0, -(-until_ns // 1_000_000))
        return min(until_ms, rest_ms) if rest_ms else until_ms

    def _receive(self, now_ns: int) -> None:
        for channel in (self._from_engines, self._from_cameras):
            for owner, data in channel.receive():
                self._flow.take(owner, data, now_ns)

    def _wake_ns(self) -> int:
        waiting = (post.batcher.due_ns() for post in self._posts.posts if post.engine.waits)
        times = (self._next_tick_ns, self._ledger.wake_ns(), *waiting)
        return min(t for t in times if t is not None)

    def _tick(self, now_ns: int) -> None:
        """systemd hears of it only while parts do not stand still: a hung engine is killed here, a hung loop does not
        come here."""
        self._tending.tick(now_ns, self._running)
        notify("WATCHDOG=1")

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
        return all(camera.ended for camera in self._cameras) and all(post.idle for post in self._posts.posts)

    def _settle(self) -> None:
        """The last rows: what could not be judged any more is STOPPED, and everything is committed."""
        for camera in self._cameras:
            if not camera.ended:
                camera.break_off("did not stop in time")
        now_ns = time.monotonic_ns()
        self._receive(now_ns)
        for post in [each for each in self._posts.posts if not each.idle]:
            parts = post.take_back("the station stopped")
            post.line.reject(parts, Reason.STOPPED, f"the station stopped: {self._ended_by}", now_ns)
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
