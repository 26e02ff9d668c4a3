"""The way of the parts through the supervisor: from what its workers say, to batches, to rows that are durable."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.batcher import Part
from appliance.camera_link import CameraLink
from appliance.config import Station
from appliance.counting import CountNote
from appliance.crew import evidence_quotas
from appliance.engine_link import EngineLink, EnginePhase
from appliance.evidence import CLASSES, EvidenceChoice, EvidenceClass
from appliance.health import Health
from appliance.ledger import Ledger
from appliance.messages import Reason
from appliance.post import Post
from appliance.switching import Switcher
from appliance.wire import FrameNote, MissNote, WireError

QUEUED_MAX = 10_000
"""Rows that may wait for a database that does not take them; beyond it the daemon gives up."""


class Flow:
    """Whatever happens, each part that a camera has told of leaves as exactly one row."""

    def __init__(
        self, station: Station, health: Health, posts: Switcher, cameras: Sequence[CameraLink], ledger: Ledger
    ) -> None:
        self._health, self._posts, self._cameras, self._ledger = health, posts, cameras, ledger
        self._by_name = {camera.name: camera for camera in cameras}
        again = station.reevaluation
        self._evidence = EvidenceChoice(evidence_quotas(station), again.passed_share, again.defect_share)
        self._deadline_ns = int(station.timing.deadline_ms * 1e6)

    def take(self, owner: object, data: bytes, now_ns: int) -> None:
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
                    self._posts.current.line.missed(owner.name, note, now_ns)
            elif isinstance(owner, EngineLink):
                self._scores(owner, data, now_ns)
        except WireError as error:
            if isinstance(owner, CameraLink):
                owner.break_off(str(error))
            else:
                self._posts.lose(self._post_of(owner), str(error), now_ns)

    def _scores(self, engine: EngineLink, data: bytes, now_ns: int) -> None:
        """A judged batch. Raises WireError."""
        scored = engine.message(data)
        if scored is None:
            return
        post, condition = self._post_of(engine), self._health.condition
        if condition.judges:
            post.remember(*scored)
            post.line.judge(*scored, now_ns, self._hold())
        else:
            post.line.reject(scored[0], Reason.HOLD, condition.reason, now_ns)

    def _post_of(self, engine: object) -> Post:
        return next(post for post in self._posts.posts if post.engine is engine)

    def _counts(self, camera: CameraLink, before: CountNote | None, now: CountNote, now_ns: int) -> None:
        """The line counts its parts: those that it counted before this start, and that have no row, get it now."""
        if before is None or before.offset != now.offset:
            old = f"{before.trigger} {before.offset}" if before else ""
            self._health.audit(f"count {camera.name}", f"{now.trigger} {now.offset}", old)
            if before is not None:
                self._health.alert("COUNT", f"camera {camera.name}: the line began another count of its parts")
        text = "the station went down before its verdict was recorded"
        for trigger in camera.take_unfinished():
            note = MissNote(trigger, now_ns, Reason.STOPPED, "", text)
            self._posts.current.line.missed(camera.name, note, now_ns)

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
        post = self._posts.post_of(part.slot)
        known = post.known(part)
        if known is None:
            for comparison in post.drift.see(camera.name, note):
                self._health.drifted(comparison)
        if known is None or not self._health.condition.judges:
            post.batcher.add(part)
        else:
            post.line.judge_again(part, known, now_ns, self._hold())

    def _hold(self) -> str:
        """Why parts that would pass are rejected now; "" where they are not."""
        condition = self._health.condition
        return condition.reason if condition.rejects_all else ""

    def feed(self, now_ns: int) -> None:
        """Give the engines what is due, reject what they can no longer judge in time, hand free slots back."""
        condition = self._health.condition
        for post in self._posts.posts:
            engine, batcher = post.engine, post.batcher
            if not condition.judges:
                post.line.reject(batcher.take_all(), Reason.HOLD, condition.reason, now_ns)
            expired = batcher.take_expired(now_ns)
            if expired:
                down = engine.phase is not EnginePhase.SERVING
                post.line.reject(expired, Reason.ENGINE if down else Reason.LATE, engine.trouble, now_ns)
            while engine.has_room and (parts := batcher.take(now_ns, engine.waits)):
                engine.send(parts, now_ns)
        self._posts.look_at_trial(now_ns)
        for camera in self._cameras:
            camera.flush()

    def release(self, part: Part, seq: int, reason: Reason) -> None:
        kind = self._evidence.wanted(reason)
        if kind is EvidenceClass.SAMPLE:
            self._ledger.draw(seq)
        self._by_name[part.camera].release(part.slot, seq, None if kind is None else CLASSES.index(kind))

    def commit(self, now_ns: int) -> bool:
        """Group commit; while the database takes no rows, nothing passes. False when it never will again."""
        if self._ledger.commit(now_ns):
            if "database" in self._health.condition.holds:
                self._health.alert("DATABASE", f"took no rows for a while: {self._health.condition.holds['database']}")
                self._health.clear("database")
        elif self._ledger.lost or self._ledger.queued > QUEUED_MAX:
            self._health.fail(f"database: {self._ledger.failure}")
            return False
        else:
            self._health.hold("database", self._ledger.failure)
        return True
