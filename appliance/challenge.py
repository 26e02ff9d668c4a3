"""The scheduled challenge: the engine that judges now is asked about frames whose verdicts are known.

Goldens of the bundle lie in the ring beside the parts. One batch of them after the other goes to the running engine,
between the parts' batches, and must come back as recorded; they are no parts, get no rows, and nothing counts them. An
answer that is wrong, or does not come, holds the line until the next one is right and an operator has looked.
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.config import ChallengeSection
from appliance.engine_link import EngineLink, EnginePhase
from appliance.health import Health
from appliance.ledger import Ledger
from appliance.post import Post
from appliance.state import CHALLENGE
from appliance.switching import Switcher

ANSWER_NS = 60 * 10**9
"""Without a right answer for so long after it was due, a challenge is missed."""

AGAIN_NS = 5 * 10**9
"""After a wrong answer the next challenge comes so soon."""

RECORD_NS = 60 * 10**9
"""Right answers go on record together, no more often than this."""


@dataclass
class Schedule:
    """When a challenge is due. Pure: parts are counted and times monotonic, both by whoever asks.

    Attributes:
        every_parts, every_ns: at the latest after so many parts and so much time; 0 = not by this.
        parts, at_ns: of the last right answer, or of the beginning.
        due_ns: since when one is due; None where none is.
    """

    every_parts: int
    every_ns: int
    parts: int
    at_ns: int
    due_ns: int | None = None

    def look(self, parts: int, now_ns: int) -> bool:
        """Whether one is due now."""
        by_parts = self.every_parts and parts >= self.parts + self.every_parts
        by_time = self.every_ns and now_ns >= self.at_ns + self.every_ns
        if self.due_ns is None and (by_parts or by_time):
            self.due_ns = now_ns
        return self.due_ns is not None

    def passed(self, parts: int, now_ns: int) -> None:
        """The answer was right."""
        self.parts, self.at_ns, self.due_ns = parts, now_ns, None

    def missed(self, now_ns: int) -> bool:
        """Whether a right answer has been due for too long."""
        return self.due_ns is not None and now_ns >= self.due_ns + ANSWER_NS


class Challenger:
    """Challenges the bundle that judges now. One that has just taken over was proven on all its goldens."""

    def __init__(self, section: ChallengeSection, health: Health, posts: Switcher, ledger: Ledger, now_ns: int) -> None:
        self._health, self._posts, self._ledger = health, posts, ledger
        self._schedule = Schedule(section.every_parts, int(section.every_minutes * 60e9), ledger.rows, now_ns)
        self._post: Post = posts.current
        self._not_before_ns = 0
        self._unrecorded, self._record_ns = 0, now_ns

    def tick(self, now_ns: int) -> None:
        """A few times a second while the station runs."""
        post, parts = self._posts.current, self._ledger.rows
        if post is not self._post:
            self._post = post
            self._schedule.passed(parts, now_ns)
        answer = post.engine.challenge_answer()
        if answer is not None:
            self._heard(answer, parts, now_ns)
        elif self._schedule.missed(now_ns) and CHALLENGE not in self._health.condition.holds:
            self._fail(f"no answer for {ANSWER_NS / 1e9:g} s")
        if self._schedule.look(parts, now_ns) and now_ns >= self._not_before_ns and _asks(post.engine):
            post.engine.challenge(now_ns)

    def _heard(self, problem: str, parts: int, now_ns: int) -> None:
        if problem:
            self._not_before_ns = now_ns + AGAIN_NS
            self._fail(problem)
            return
        self._schedule.passed(parts, now_ns)
        self._unrecorded += 1
        held = CHALLENGE in self._health.condition.holds
        if held or now_ns >= self._record_ns:
            self._health.audit("challenge passed", f"{self._unrecorded} since the last entry")
            self._unrecorded, self._record_ns = 0, now_ns + RECORD_NS
        self._health.clear(CHALLENGE)

    def _fail(self, why: str) -> None:
        if self._health.condition.holds.get(CHALLENGE, "") != f"challenge missed: {why}":
            self._health.audit("challenge missed", why)
            self._health.alert("CHALLENGE", f"the engine's answer to a known frame: {why}")
            self._health.hold(CHALLENGE, f"challenge missed: {why}")


def _asks(engine: EngineLink) -> bool:
    return engine.phase is EnginePhase.SERVING and not engine.challenged
