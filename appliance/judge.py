"""From scores and time to a verdict. Pure: no clock, no files.

A PASS needs everything: a whole tensor, finite scores, a decision OK, and time left. Whatever is missing is a REJECT
with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from appliance.wire import ScoreNote
from appliance.words import Reason, Verdict
from calibration.decision import Decision, DecisionRule
from calibration.histogram import bin_of

_REASON = {Decision.OK: Reason.NONE, Decision.DEFECT: Reason.DEFECT, Decision.UNSURE: Reason.UNSURE}


@dataclass(frozen=True)
class PassToken:
    """The right to let one part pass, once, until `deadline_ns` (monotonic). Made only for rows that are durable.

    Attributes:
        seq: of the part's row; camera and trigger name the part; crc is the checksum of what was judged.
        bundle: SHA-256 of the bundle that judged.
        tag: what the line calls the part: the id of its trigger message, or else its trigger's number.
    """

    seq: int
    camera: str
    trigger: int
    crc: int
    bundle: str
    deadline_ns: int
    tag: int = 0


@dataclass(frozen=True)
class Judgement:
    """What became of one part.

    decision, defect_probability, bin and logits are None where the model gave no usable answer; bin is that of
    calibration.histogram; logits are float32, little-endian.
    """

    verdict: Verdict
    reason: Reason
    detail: str = ""
    decision: Decision | None = None
    top_class: str = ""
    defect_probability: float | None = None
    bin: int | None = None
    logits: bytes | None = None


def not_inspected(reason: Reason, detail: str = "") -> Judgement:
    """A part rejected without a judgement."""
    return Judgement(Verdict.REJECT, reason, detail)


def judge(rule: DecisionRule, scores: ScoreNote, deadlines_ns: Sequence[int], now_ns: int) -> list[Judgement]:
    """Judge one batch.

    Args:
        rule: the bundle's, with the classes of the logits.
        scores: the engine's answer for n parts.
        deadlines_ns: of the n parts, monotonic; at the deadline it is too late.
        now_ns: monotonic.

    Returns:
        n judgements. A tensor that changed is CHECKSUM, a score that is not finite ENGINE, a judged part that is late
        LATE (with the model's decision beside it).
    """
    probability = rule.defect_probability(scores.logits).tolist()
    top = scores.logits.argmax(axis=1).tolist()
    whole, raw, width = scores.whole.tolist(), scores.logits.astype("<f4").tobytes(), 4 * len(rule.classes)
    judgements = []
    for i, p in enumerate(probability):
        if not whole[i]:
            judgements.append(not_inspected(Reason.CHECKSUM, "the frame changed between camera and engine"))
            continue
        if not math.isfinite(p):
            judgements.append(not_inspected(Reason.ENGINE, "the engine gave scores that are no numbers"))
            continue
        decision = rule.decide_probability(p)
        reason = _REASON[decision] if now_ns < deadlines_ns[i] else Reason.LATE
        verdict = Verdict.PASS if reason is Reason.NONE else Verdict.REJECT
        logits = raw[i * width : (i + 1) * width]
        judgements.append(Judgement(verdict, reason, "", decision, rule.classes[top[i]], p, bin_of(p), logits))
    return judgements
