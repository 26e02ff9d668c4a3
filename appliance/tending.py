"""What the supervisor looks after a few times a second: engines, cameras, output, disk, and an operator's reset."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.camera_link import CameraLink
from appliance.challenge import Challenger
from appliance.engine_link import EnginePhase
from appliance.health import Health
from appliance.ledger import Ledger
from appliance.messages import State
from appliance.monitor.reevaluation import Reevaluator
from appliance.outputs import Output
from appliance.post import Post
from appliance.switching import Switcher
from appliance.upkeep import Upkeep


class Tending:
    """Whatever may stand still is found here: engines by their time-outs, workers by their ends."""

    def __init__(
        self,
        health: Health,
        posts: Switcher,
        cameras: Sequence[CameraLink],
        output: Output,
        ledger: Ledger,
        upkeep: Upkeep,
        challenger: Challenger,
        reevaluator: Reevaluator,
    ) -> None:
        self._health, self._posts, self._cameras = health, posts, cameras
        self._output, self._ledger, self._upkeep = output, ledger, upkeep
        self._challenger, self._reevaluator = challenger, reevaluator

    def tick(self, now_ns: int, running: bool) -> None:
        """One look at everything; bundles are changed only while the station runs."""
        self._ledger.follow_clock()
        for post in self._posts.posts:
            self._engine(post, now_ns)
        for camera in self._cameras:
            trouble = camera.check(now_ns)
            if trouble:
                self._health.alert("CAMERA", trouble)
            if camera.looping:
                self._health.fail(f"camera {camera.name}: {camera.trouble}; restarted too often")
        self._follow_output(now_ns)
        if running:
            self._posts.tick(now_ns)
            self._prove_again(now_ns)
            self._challenger.tick(now_ns)
            self._reevaluator.tick(now_ns)
        self._upkeep.tick(now_ns)

    def _engine(self, post: Post, now_ns: int) -> None:
        engine = post.engine
        if engine.hangs(now_ns):
            self._posts.lose(post, "the engine did not answer in time", now_ns)
        elif engine.phase is EnginePhase.DOWN and engine.worker is not None:
            self._posts.lose(post, engine.trouble, now_ns)
        elif post is self._posts.current and engine.phase is EnginePhase.REFUSED:
            self._health.fail(f"engine: {engine.trouble}")
        elif post is self._posts.current and engine.phase is EnginePhase.SERVING:
            self._health.clear("engine")

    def _prove_again(self, now_ns: int) -> None:
        """After a reset: through SELFTEST back to RUN, or to the fault that is still there."""
        condition = self._health.condition
        if self._health.must_prove:
            self._health.must_prove = False
            if barred := self._posts.barred():
                self._health.fail(barred)
            else:
                self._posts.revive(now_ns)
        elif condition.state is State.SELFTEST and self._posts.current.engine.phase is EnginePhase.SERVING:
            self._health.enter(State.READY)
            self._health.enter(State.RUN)

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
