"""What the daemon tells of itself: to clients while it runs, to whoever started it at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from appliance.camera_link import CameraLink
from appliance.config import Station
from appliance.health import Health
from appliance.ledger import Ledger
from appliance.messages import Counts, Evidence, Latency, Reply, Request, State, Status
from appliance.monitor.reevaluation import Reevaluator
from appliance.outputs import Output
from appliance.sources.serials import checked_code
from appliance.state import OPERATOR, Hold, Reset, Resume
from appliance.store import Store, StoreError
from appliance.switching import Switcher
from appliance.wire import TRIGGER, pack_json
from calibration.errors import InputError
from calibration.text import one_line


@dataclass(frozen=True)
class Summary:
    """Result of one run.

    Attributes:
        state, state_reason: when the run ended, before STOPPED.
        ended_by: "sources" when all of them ended, a signal's name, "max-seconds", or "database".
        seconds: from the first trigger allowed to the last row durable.
        counts, rejects_by_reason, rows: of this run; rows are those made durable.
        passed: PASS tokens that left: never more than counts.ok.
        total: since the database was made.
    """

    station: str
    bundle: str
    bundle_sha256: str
    engine: str
    state: State
    state_reason: str
    ended_by: str
    seconds: float
    counts: Counts
    rejects_by_reason: dict[str, int]
    rows: int
    passed: int
    total: Counts
    frames_per_second: float
    latency: Latency


@dataclass(frozen=True, eq=False)
class Desk:
    """Looks at everything, and carries out what operators ask for: each of their acts is on record with the name."""

    station: Station
    store: Store
    health: Health
    ledger: Ledger
    posts: Switcher
    output: Output
    cameras: Sequence[CameraLink]
    reevaluator: Reevaluator
    started_ns: int = 0

    def answer(self, request: Request) -> Reply:
        """Carry out a client's request. Raises InputError with what the client did wrong."""
        if request.op in ("acknowledge", "review", "accept"):
            try:
                self._record(request)
            except StoreError as error:
                return Reply(error=f"not recorded: {error}")
        elif request.op == "trigger":
            self._trigger(request)
        elif request.op != "status":
            self._act(request)
        return Reply(status=self.status())

    def _record(self, request: Request) -> None:
        if request.op == "acknowledge":
            if request.alert is None:
                raise InputError("alert: give the number of the alert")
            self.store.acknowledge(request.alert, request.operator)
        elif request.op == "accept":
            self._accept(_name(request))
        else:
            if request.row is None:
                raise InputError("row: give the number of the verdict")
            self.store.review(request.row, request.decision, request.operator)

    def _accept(self, who: str) -> None:
        """From now on drift is measured from the parts of the last windows: the line is well, says a person."""
        post = self.posts.current
        references = post.drift.proposed()
        if not references:
            raise InputError(f"no window of {self.station.drift.window} parts was compared since; wait for one")
        with self.store.transaction():
            for entry in post.drift.entries(references):
                self.store.append_audit(who, *entry)
        post.drift.accept(references)
        self.health.drift_over()

    def _trigger(self, request: Request) -> None:
        """A part is in front of a camera: now, by the clock of this loop."""
        camera = next((one for one in self.cameras if one.name == request.camera), None)
        section = self.station.camera.get(request.camera)
        if camera is None or section is None or getattr(section, "trigger", "") != "software":
            raise InputError(f'camera {request.camera}: not one of this station whose trigger is "software"')
        try:
            serial, lot = (checked_code(text) if text else "" for text in (request.serial, request.lot))
        except ValueError as error:
            raise InputError(str(error)) from None
        if not camera.tell(pack_json(TRIGGER, [time.monotonic_ns(), None, serial, lot])):
            raise InputError(f"camera {request.camera} is not ready: {camera.describe()}; the part was not seen")

    def _act(self, request: Request) -> None:
        """Hold the line, let it go on, or have a fault looked at again."""
        who, why = _name(request), one_line(request.why.strip())
        if request.op == "hold":
            if not why:
                raise InputError("why: say why the line is held; it goes on record")
            self.health.audit_as(who, "hold", why)
            self.health.take(Hold(OPERATOR, f"held by {who}: {why}"))
        elif request.op == "resume":
            if not self.health.take(Resume(who)):
                raise InputError("nothing waits for an operator; a hold whose cause lasts ends with its cause")
        elif not self.health.take(Reset(who)):
            raise InputError("the station is in no fault")

    def status(self) -> Status:
        """Everything now."""
        now_ns = time.monotonic_ns()
        condition, post = self.health.condition, self.posts.current
        return Status(
            station=self.station.station.name,
            state=condition.state,
            state_reason=condition.reason,
            bundle_name=post.name,
            bundle_sha256=post.sha256,
            engine=post.engine.name,
            classes=post.model.rule.classes,
            uptime_s=(now_ns - self.started_ns) / 1e9,
            counts=self.ledger.counts(),
            rejects_by_reason=self.ledger.rejects_by_reason(),
            rate=self.ledger.statistics.rate(now_ns),
            latency=self.ledger.statistics.latency(),
            histogram=tuple(post.line.histogram),
            drift=post.drift.predictions.last,
            light=post.drift.light,
            cached=post.cache.hits,
            cameras={camera.name: camera.describe() for camera in self.cameras},
            evidence=self._evidence(),
            reevaluation=self.reevaluator.last,
            alerts=self.store.open_alerts(),
            rejects=self.ledger.rejects(),
        )

    def _evidence(self) -> Evidence:
        """Of all cameras."""
        each = [camera.evidence for camera in self.cameras]
        trouble = next((one.trouble for one in each if one.trouble), "")
        return Evidence(
            written=sum(one.written for one in each), dropped=sum(one.dropped for one in each), trouble=trouble
        )

    def summary(self, seconds: float, ended_by: str) -> Summary:
        """The run, after its last row is durable."""
        counts, rejects = self.ledger.run_counts()
        condition, post = self.health.condition, self.posts.current
        return Summary(
            station=self.station.station.name,
            bundle=post.name,
            bundle_sha256=post.sha256,
            engine=post.engine.name,
            state=condition.state,
            state_reason=condition.reason,
            ended_by=ended_by,
            seconds=seconds,
            counts=counts,
            rejects_by_reason=rejects,
            rows=self.ledger.rows,
            passed=self.output.passed,
            total=self.ledger.counts(),
            frames_per_second=counts.triggers / seconds,
            latency=self.ledger.statistics.latency(),
        )


def _name(request: Request) -> str:
    """Of who asks. Raises InputError where there is none."""
    who = request.operator.strip()
    if not who:
        raise InputError("operator: give the name of who acts; it goes on record")
    return who
