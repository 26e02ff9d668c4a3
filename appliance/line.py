"""What happens to parts: scores become verdicts, verdicts become rows, and the drift monitor sees the judged ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from appliance.batcher import Part
from appliance.judge import Judgement, judge, not_inspected
from appliance.ledger import Ledger
from appliance.messages import Drift, Reason, Verdict
from appliance.monitor.drift import DriftMonitor
from appliance.prediction_cache import Known
from appliance.wire import MissNote, ScoreNote
from calibration.decision import DecisionRule

AGAIN = "the very frame was judged before: same scores"
"""Detail of a row whose scores came from the prediction cache."""


class Line:
    """The judging half of the supervisor for one bundle: knows parts and rows, but no process and no socket.

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
        seen: Callable[[str, str, Reason], None],
        bundle: str,
    ) -> None:
        """`release` is called for each part whose slot may be used again, with the number and reason of its row;
        `drifted` for each comparison; `seen` for each part, with bundle, camera and the part's own reason."""
        self._rule, self._ledger, self.drift = rule, ledger, drift
        self._release, self._drifted, self._seen, self._bundle = release, drifted, seen, bundle
        self.histogram = [0] * drift.bins

    def judge(self, parts: Sequence[Part], scores: ScoreNote, now_ns: int, hold: str = "") -> None:
        """Verdicts of one batch. While there is a `hold`, what would pass is rejected for that reason."""
        judgements = judge(self._rule, scores, [part.deadline_ns for part in parts], now_ns)
        times = (scores.started_ns, scores.ended_ns)
        for position, (part, judgement) in enumerate(zip(parts, judgements, strict=True)):
            self._record(part, judgement, times, now_ns, (len(parts), position), hold)
            if judgement.bin is None:
                continue
            comparison = self.drift.add(judgement.bin, part.crc)
            if comparison is not None:
                self._drifted(comparison)

    def judge_again(self, part: Part, known: Known, now_ns: int, hold: str) -> None:
        """Verdict of a part whose very frame was judged before: the drift monitor has seen it then."""
        scores = ScoreNote(0, now_ns, now_ns, np.array([True]), known.logits[None])
        (judgement,) = judge(self._rule, scores, [part.deadline_ns], now_ns)
        judgement = replace(judgement, detail=judgement.detail or AGAIN)
        self._record(part, judgement, (now_ns, now_ns), now_ns, (known.batch, known.position), hold)

    def _record(
        self,
        part: Part,
        judgement: Judgement,
        times: tuple[int, int],
        now_ns: int,
        place: tuple[int, int],
        hold: str,
    ) -> None:
        """The row of one judged part, and everybody who has to hear of it."""
        own = judgement.reason
        if hold and judgement.verdict is Verdict.PASS:
            judgement = replace(judgement, verdict=Verdict.REJECT, reason=Reason.HOLD, detail=hold)
        seq = self._ledger.judged(part, judgement, times, now_ns, place, self._bundle)
        self._release(part, seq, judgement.reason)
        self._seen(self._bundle, part.camera, own)
        if judgement.bin is not None:
            self.histogram[judgement.bin] += 1

    def reject(self, parts: Iterable[Part], reason: Reason, detail: str, now_ns: int) -> None:
        """Parts that have a frame but get no judgement."""
        verdict = not_inspected(reason, detail)
        for part in parts:
            seq = self._ledger.judged(part, verdict, (0, 0), now_ns, bundle=self._bundle)
            self._release(part, seq, reason)
            self._seen(self._bundle, part.camera, reason)

    def missed(self, camera: str, note: MissNote, now_ns: int) -> None:
        """A trigger without a usable frame."""
        self._ledger.missed(camera, note, not_inspected(note.reason, note.detail), now_ns)
        self._seen(self._bundle, camera, note.reason)
