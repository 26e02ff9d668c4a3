"""What a bundle on trial has to stand before it is confirmed. Pure: no clock."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.config import TrialSection
from appliance.words import JUDGED, Reason


@dataclass
class Probation:
    """Until it has judged so many parts, and for so long, any failure of a bundle's own ends its trial.

    Attributes:
        frames, seconds, late_share: see config.TrialSection; more late parts than that share of `frames` is a failure.
        began_ns: monotonic.
        judged, late: parts so far.
        failure: why the trial has failed; empty while it has not.
    """

    frames: int
    seconds: float
    late_share: float
    began_ns: int
    judged: int = 0
    late: int = 0
    failure: str = ""

    @classmethod
    def of(cls, section: TrialSection, now_ns: int) -> Probation:
        """One that begins now."""
        return cls(section.frames, section.seconds, section.late_share, now_ns)

    def see(self, reason: Reason) -> None:
        """One of its parts, with its own reason. Parts that never reached the engine say nothing of the bundle."""
        if reason in JUDGED:
            self.judged += 1
        elif reason is Reason.LATE:
            self.judged += 1
            self.late += 1
            if self.late > self.late_share * self.frames:
                self.fail(f"{self.late} of {self.judged} parts were too late")
        elif reason is Reason.ENGINE:
            self.fail(f"its engine failed on part {self.judged + 1}")

    def fail(self, why: str) -> None:
        """Something of its own went wrong; the first reason stays."""
        self.failure = self.failure or why

    def stood(self, now_ns: int) -> bool:
        """Whether the trial is over and nothing has failed."""
        return not self.failure and self.judged >= self.frames and now_ns >= self.began_ns + self.seconds * 1e9

    def describe(self, now_ns: int) -> str:
        """For people: how far it is."""
        seconds = min(self.seconds, (now_ns - self.began_ns) / 1e9)
        return f"{min(self.judged, self.frames)} of {self.frames} parts, {seconds:.0f} of {self.seconds:.0f} s"
