"""What happens to parts: scores become verdicts, verdicts become rows, and the drift monitor sees the judged ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from appliance.batcher import Part
from appliance.judge import judge, not_inspected
from appliance.ledger import Ledger
from appliance.messages import Drift, Reason
from appliance.monitor.drift import DriftMonitor
from appliance.wire import MissNote, ScoreNote
from calibration.decision import DecisionRule


class Line:
    """The judging half of the supervisor: knows parts and rows, but no process and no socket.

    Attributes:
        histogram: judged parts by bin of defect probability, in this run.
        drift: the monitor.
    """

    def __init__(
        self,
        rule: DecisionRule,
        ledger: Ledger,
        drift: DriftMonitor,
        release: Callable[[Part, int, Reason], None],
        drifted: Callable[[Drift], None],
    ) -> None:
        """`release` is called for each part whose slot may be used again, with the number and reason of its row;
        `drifted` for each comparison."""
        self._rule, self._ledger, self.drift = rule, ledger, drift
        self._release, self._drifted = release, drifted
        self.histogram = [0] * drift.bins

    def judge(self, parts: Sequence[Part], scores: ScoreNote, now_ns: int) -> None:
        """Verdicts of one batch."""
        judgements = judge(self._rule, scores, [part.deadline_ns for part in parts], now_ns)
        times = (scores.started_ns, scores.ended_ns)
        for position, (part, judgement) in enumerate(zip(parts, judgements, strict=True)):
            seq = self._ledger.judged(part, judgement, times, now_ns, (len(parts), position))
            self._release(part, seq, judgement.reason)
            if judgement.bin is None:
                continue
            self.histogram[judgement.bin] += 1
            comparison = self.drift.add(judgement.bin, part.crc)
            if comparison is not None:
                self._drifted(comparison)

    def reject(self, parts: Iterable[Part], reason: Reason, detail: str, now_ns: int) -> None:
        """Parts that have a frame but get no judgement."""
        verdict = not_inspected(reason, detail)
        for part in parts:
            seq = self._ledger.judged(part, verdict, (0, 0), now_ns)
            self._release(part, seq, reason)

    def missed(self, camera: str, note: MissNote, now_ns: int) -> None:
        """A trigger without a usable frame."""
        self._ledger.missed(camera, note, not_inspected(note.reason, note.detail), now_ns)
