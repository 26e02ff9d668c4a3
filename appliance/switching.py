"""Which bundle judges: changing to another one between two parts, its trial, and the way back.

The slots of the device root say which bundle is to judge. One that is new is made ready beside the one that judges: a
thread opens it, its own engine proves it on the goldens. Then every camera is told, and from its next trigger on its
frames are for the new bundle; those under way stay with the old one. On trial, the old bundle's engine stays warm.
"""

from __future__ import annotations

from collections.abc import Sequence

from appliance.camera_link import CameraLink
from appliance.config import Station
from appliance.device_watch import DeviceWatch
from appliance.engine_link import EnginePhase
from appliance.health import Health
from appliance.ledger import Ledger
from appliance.messages import Reason
from appliance.post import Post
from appliance.probation import Probation
from appliance.state import CHALLENGE, HARD_DRIFT, REEVALUATION, Reset, Switching
from appliance.streaks import Streaks
from appliance.warming import Build, Warming
from deploy.slots import Slot, SlotState

SPAN = 2**20
"""Slots of one post are numbered from a multiple of it on: no two posts of one time share a number."""

JOIN_S = 5.0
NO_BUNDLE = "no slot holds a bundle that may judge"
TRIAL = "trial"
"""Source of the hold while a bundle has failed its trial and the one before is not ready yet."""


class Switcher:
    """The posts of one daemon.

    Attributes:
        current: judges.
        fallback: judged before, and stays warm while `current` is on trial.
        candidate: is being proven.
        retired: still have parts under way.
        probation: of `current`; None where it is not on trial.
    """

    def __init__(
        self,
        station: Station,
        post: Post,
        cameras: Sequence[CameraLink],
        watch: DeviceWatch,
        health: Health,
        ledger: Ledger,
        build: Build,
    ) -> None:
        self._station, self._cameras, self._watch, self._build = station, cameras, watch, build
        self._health, self._ledger = health, ledger
        self._deadline_ns = int(station.timing.deadline_ms * 1e6)
        self._streaks = Streaks(station.hold.rejects_in_row)
        self._refused: set[str] = set()
        self._generation = 0
        self._warming: Warming | None = None
        self._orphans: list[Warming] = []
        self.current = post
        self.fallback: Post | None = None
        self.candidate: Post | None = None
        self.retired: list[Post] = []
        self.probation: Probation | None = None

    @property
    def posts(self) -> list[Post]:
        """All that have memory and an engine."""
        return [post for post in (self.current, self.fallback, self.candidate, *self.retired) if post is not None]

    def post_of(self, slot: int) -> Post:
        """The post in whose memory a slot lies. Raises LookupError."""
        if slot in self.current.ring:
            return self.current
        for post in self.posts:
            if slot in post.ring:
                return post
        raise LookupError(f"slot {slot} is nobody's")

    def seen(self, bundle: str, camera: str, reason: Reason) -> None:
        """One part's own reason. What the bundle before still has under way says nothing of the line now."""
        if bundle != self.current.sha256:
            return
        if self.probation is not None:
            self.probation.see(reason)
        for event in self._streaks.see(camera, reason):
            self._health.take(event)

    def begin(self, now_ns: int) -> None:
        """The first bundle judges from now on, on trial or not. One that nothing could be gone back from is confirmed
        by its goldens alone."""
        slots, wanted = self._watch.slots, self._watch.wanted
        if slots is None or wanted is None or wanted.sha256 != self.current.sha256:
            return
        if wanted.state is SlotState.TRIAL and slots.last_confirmed is None:
            self._watch.confirm(wanted.sha256)
        elif wanted.state is SlotState.TRIAL:
            self.probation = Probation.of(self._station.trial, now_ns)

    def end(self) -> None:
        """The daemon stops in good order: that is nothing against a bundle on trial."""
        wanted = self._watch.wanted
        if self._warming is not None:
            self._abandon()
        for orphan in self._orphans:
            orphan.join(JOIN_S)
        self._retire()
        if wanted is not None and wanted.state is SlotState.TRIAL and wanted.sha256 not in self._refused:
            self._watch.pause(wanted.sha256)

    def tick(self, now_ns: int) -> None:
        """Follow the device root, one step of a switch, the trial."""
        self._watch.look()
        if self._watch.trouble:
            self._health.warn("device root", self._watch.trouble)
        else:
            self._health.clear("device root")
        self._follow(now_ns)
        self.look_at_trial(now_ns)
        self._retire()
        self._health.take(Switching(self._describe(now_ns)))

    def look_at_trial(self, now_ns: int) -> None:
        """End the trial where it has failed or was stood."""
        trial, holds = self.probation, self._health.condition.holds
        if trial is None:
            return
        for source, why in holds.items():
            if source in (HARD_DRIFT, CHALLENGE) or source.startswith("rejects "):
                trial.fail(f"it made the line stop: {why}")
        if trial.failure:
            self._fail_trial(trial, now_ns)
        elif trial.stood(now_ns):
            self.probation = None
            self._watch.confirm(self.current.sha256)
            self._health.audit("trial stood", self.current.sha256)
            self._drop_fallback()

    def lose(self, post: Post, why: str, now_ns: int) -> None:
        """An engine is dead, hung or breaks the protocol: its parts are rejected, and it is started again where that
        is all there is to do."""
        post.line.reject(post.engine.lose(why), Reason.ENGINE, why, now_ns)
        if post is self.candidate:
            self._refuse(post.sha256, post.name, f"its engine failed while it was made ready: {why}")
        elif post is self.current and self.probation is not None:
            self.probation.fail(f"its engine failed: {why}")
            self.look_at_trial(now_ns)
        elif post in self.retired:
            post.line.reject(post.batcher.take_all(), Reason.ENGINE, why, now_ns)
        elif post is not self.current or TRIAL not in self._health.condition.holds:
            self._restart(post, why, now_ns)

    def barred(self) -> str:
        """Why the current bundle may not judge, though it is all there is; empty where it may."""
        wanted = self._watch.wanted
        if not self._watch.watches or (wanted is not None and wanted.sha256 == self.current.sha256):
            return ""
        return f"{NO_BUNDLE}; push one"

    def revive(self, now_ns: int) -> None:
        """An operator's reset: prove the current bundle and start the cameras as if nothing had failed."""
        post = self.current
        post.line.reject(post.take_back("reset by an operator"), Reason.HOLD, "reset by an operator", now_ns)
        post.engine.revive(now_ns)
        for camera in self._cameras:
            camera.revive()

    def _restart(self, post: Post, why: str, now_ns: int) -> None:
        post.engine.start(now_ns, alone=post is self.current)
        if post is not self.current:
            if post.engine.looping:
                self._drop_fallback()
        elif post.engine.looping:
            self._health.fail(f"engine: {why}; restarted too often")
        else:
            self._health.warn("engine", f"{why}; restarting")
            self._health.alert("ENGINE", f"{why}; restarted")

    def _follow(self, now_ns: int) -> None:
        """One step towards the bundle that the slots want."""
        wanted = self._watch.wanted
        if not self._watch.watches:
            return
        self._refused &= {wanted.sha256} if wanted else set()
        if self._warming is not None and (wanted is None or wanted.sha256 != self._warming.sha256):
            self._abandon()
        if wanted is None:
            self._health.fail(f"{NO_BUNDLE}; push one")
        elif wanted.sha256 == self.current.sha256 or wanted.sha256 in self._refused:
            return
        elif self.fallback is not None and self.fallback.sha256 == wanted.sha256:
            if self.fallback.engine.phase is EnginePhase.SERVING:
                self._swap(self.fallback, wanted, now_ns)
        elif self._warming is None:
            self._generation += 1
            self._warming = Warming(self._station, wanted, self._build, self._generation * SPAN % 2**32)
            self._health.audit("bundle wanted", wanted.sha256, self.current.sha256)
        elif not self._warming.is_alive():
            self._prove(self._warming, wanted, now_ns)

    def _prove(self, warming: Warming, wanted: Slot, now_ns: int) -> None:
        """The engine of a bundle that is open: start it, wait for its proof, change over."""
        post = warming.post
        if warming.again:
            self._warming = None
        elif post is None:
            self._refuse(wanted.sha256, wanted.name, warming.problem)
        elif self.candidate is None:
            self.candidate = post
            post.engine.pace_like(self.current.engine)
            post.engine.start(now_ns, alone=False)
        elif post.engine.phase is EnginePhase.REFUSED:
            self._refuse(wanted.sha256, wanted.name, f"its goldens do not pass: {post.engine.trouble}")
        elif post.engine.phase is EnginePhase.SERVING:
            self._swap(post, wanted, now_ns)

    def _swap(self, post: Post, wanted: Slot, now_ns: int) -> None:
        """From their next trigger on all cameras' frames are for this post."""
        before, self.current = self.current, post
        if self.fallback is not None and self.fallback is not post:
            self.retired.append(self.fallback)
        self.fallback = before if wanted.state is SlotState.TRIAL else None
        if self.fallback is None:
            self.retired.append(before)
        self.candidate = self._warming = None
        usable = post.fit(self._deadline_ns)
        for camera in self._cameras:
            camera.switch(post.settings(), usable[camera.name], post.ring)
        self._ledger.bundle = post.sha256
        self._streaks = Streaks(self._station.hold.rejects_in_row)
        of_the_bundle = ("drift", HARD_DRIFT, CHALLENGE, REEVALUATION, TRIAL, "speed", "engine")
        drifts = [source for source in self._health.condition.warnings if source.startswith("drift ")]
        for source in (*of_the_bundle, *drifts, *_of_parts(self._health)):
            self._health.clear(source)
        self._health.audit("bundle", post.sha256, before.sha256)
        self.probation = Probation.of(self._station.trial, now_ns) if wanted.state is SlotState.TRIAL else None
        if self._health.condition.fault.startswith(NO_BUNDLE):
            self._health.take(Reset("deploy push"))
            self._health.must_prove = False  # it has just passed its goldens

    def _fail_trial(self, trial: Probation, now_ns: int) -> None:
        """Back to the bundle before: at once where it is still warm, else as soon as it is again."""
        failed, self.probation = self.current, None
        why = f"{trial.failure} ({trial.describe(now_ns)} of its trial)"
        self._refused.add(failed.sha256)
        self._watch.reject(failed.sha256, why)
        self._health.alert("BUNDLE", f"bundle {failed.name} failed its trial and was rejected: {why}")
        back = self.fallback
        if back is not None and back.engine.phase is EnginePhase.SERVING:
            self._swap(back, Slot(SlotState.CONFIRMED, back.sha256, back.name), now_ns)
        else:
            self._drop_fallback()
            self._health.hold(TRIAL, f"bundle {failed.name} failed its trial; the one before is made ready: {why}")
        failed.line.reject(failed.take_back(why), Reason.ENGINE, f"bundle rejected: {why}", now_ns)

    def _refuse(self, sha256: str, name: str, why: str) -> None:
        """The bundle never judged here, and does not."""
        wanted = self._watch.wanted
        self._abandon()
        self._refused.add(sha256)
        self._health.alert("BUNDLE", f"bundle {name} was rejected: {why}")
        if wanted is not None and wanted.state is SlotState.TRIAL:
            self._watch.reject(sha256, why)
        else:
            self._health.fail(f"{NO_BUNDLE}: {why}; push one")

    def _drop_fallback(self) -> None:
        self.retired += [] if self.fallback is None else [self.fallback]
        self.fallback = None

    def _abandon(self) -> None:
        """What was being made ready is not wanted any more."""
        if self.candidate is not None:
            self.retired.append(self.candidate)
        elif self._warming is not None:
            self._orphans.append(self._warming)
        self.candidate = self._warming = None

    def _retire(self) -> None:
        """Give up posts whose last part has left, once no camera can be at a frame for them."""
        for orphan in [each for each in self._orphans if not each.is_alive()]:
            self._orphans.remove(orphan)
            if orphan.post is not None:
                self.retired.append(orphan.post)
        if any(camera.switching for camera in self._cameras):
            return
        for post in [each for each in self.retired if each.idle]:
            self.retired.remove(post)
            post.close(0.0)

    def _describe(self, now_ns: int) -> str:
        if self.probation is not None:
            return f"bundle {self.current.name} is on trial: {self.probation.describe(now_ns)}"
        return "" if self._warming is None else f"bundle {self._warming.sha256[:12]} is made ready"


def _of_parts(health: Health) -> list[str]:
    """Holds that the last parts have raised: the next ones are another bundle's."""
    return [source for source in health.condition.holds if source.startswith(("rejects ", "frozen "))]
