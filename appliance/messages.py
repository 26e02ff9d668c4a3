"""What the daemon and the screens that watch it say to each other: JSON of these models, never pickle.

The daemon's own workers speak the packed records of `appliance.wire`, since they speak once a part. Times are
nanoseconds of the machine's monotonic clock (one clock for all processes of one boot) unless the name says `utc`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from appliance.words import JUDGED, Reason, State, Verdict

__all__ = [
    "JUDGED",
    "AlertRow",
    "Case",
    "Counts",
    "Drift",
    "Evidence",
    "Judged",
    "Latency",
    "Rate",
    "Reason",
    "Reevaluation",
    "RejectRow",
    "Reply",
    "Request",
    "State",
    "Status",
    "Strict",
    "Verdict",
]


class Strict(BaseModel):
    """Frozen, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Counts(Strict):
    """Parts since the station's database was made. triggers = ok + defect + unsure + not_inspected, always.

    ok: PASS. defect and unsure: judged and rejected. not_inspected: rejected without a judgement.
    """

    triggers: int = 0
    ok: int = 0
    defect: int = 0
    unsure: int = 0
    not_inspected: int = 0


class Latency(Strict):
    """Milliseconds from trigger to verdict over the last parts (at most 1,000)."""

    p50: float = 0.0
    p99: float = 0.0
    worst: float = 0.0


Quantity = Literal["predictions", "brightness", "sharpness"]


class Drift(Strict):
    """Last comparison of a histogram with its reference; parts is 0 before the first.

    quantity: the predictions are the defect probabilities of all cameras; the others are of one camera's frames.
    reference: what the bundle was made on, or the line as a person has accepted it.
    kl, limit: divergence and what chance explains, in nats. shift: of the mean, where the quantity goes from 0 to 1.
    """

    quantity: Quantity = "predictions"
    camera: str = ""
    reference: Literal["bundle", "line"] = "bundle"
    parts: int = 0
    kl: float = 0.0
    limit: float = 0.0
    shift: float = 0.0
    drifting: bool = False

    @property
    def name(self) -> str:
        """Of what is watched: quantity, and camera where it is one camera's."""
        return f"{self.quantity} {self.camera}".strip()


class Judged(Strict):
    """Parts of one decision: how many, how many of them a person has judged, and how many of these were defects."""

    parts: int
    judged: int
    defects: int


class Rate(Strict):
    """A rate on the line, 0..1: what people found (value None where that was too little; low and high are 95 % limits),
    what the model's own probabilities say, and what its bundle states (None: nothing). beyond: it is worse."""

    value: float | None
    low: float
    high: float
    expected: float | None
    stated: float | None
    beyond: bool


class Reevaluation(Strict):
    """What the bundle that judges does on the line, by people's word on parts drawn at random; since: ISO day, UTC."""

    bundle: str
    since: str
    decisions: dict[str, Judged]
    escape: Rate
    overkill: Rate

    @property
    def judged(self) -> int:
        """Parts that a person has judged."""
        return sum(one.judged for one in self.decisions.values())

    @property
    def text(self) -> str:
        """In one line."""
        told = []
        for name, rate in (("escape rate", self.escape), ("overkill", self.overkill)):
            value = "unknown" if rate.value is None else f"{rate.value:.1%}"
            limit = "" if rate.stated is None else f", stated at most {rate.stated:.1%}"
            told.append(f"{name} {value} [{rate.low:.1%}, {rate.high:.1%}]{limit}")
        return f"{'; '.join(told)}; {self.judged} parts judged by people since {self.since}"


class Evidence(Strict):
    """Frames kept as evidence since the daemon started. dropped: wanted, but not stored in time or for want of room;
    trouble: why the last one was dropped, empty when it was stored."""

    written: int = 0
    dropped: int = 0
    trouble: str = ""


class RejectRow(Strict):
    """One rejected part, for the screen."""

    seq: int
    utc: str
    serial: str
    lot: str = ""
    camera: str
    reason: Reason
    top_class: str
    defect_probability: float | None


class Case(Strict):
    """One part that waits for a person: UNSURE, or drawn at random ("sample"), whose scores are kept back (None).

    evidence: path of its picture; empty where none was kept.
    """

    seq: int
    utc: str
    serial: str
    lot: str
    camera: str
    frame: str
    kind: Literal["unsure", "sample"]
    top_class: str | None
    defect_probability: float | None
    evidence: str = ""


class AlertRow(Strict):
    """One alert; `acknowledged_by` is empty while it is open."""

    id: int
    utc: str
    kind: str
    message: str
    acknowledged_by: str = ""


class Status(Strict):
    """Everything a client may show. Sent as JSON in reply to {"op": "status"}.

    rejects_by_reason: counts by Reason value since the database was made.
    histogram: parts per bin of defect probability over [0, 1], since the daemon started.
    drift: of the predictions. light: brightness and sharpness of each camera.
    cached: parts of the current bundle that got the scores of the very same frame, judged before.
    rate: verdicts per second over the last ten seconds.
    """

    station: str
    state: State
    state_reason: str = ""
    bundle_name: str = ""
    bundle_sha256: str = ""
    engine: str = ""
    classes: tuple[str, ...] = ()
    uptime_s: float = 0.0
    counts: Counts = Counts()
    rejects_by_reason: dict[str, int] = Field(default_factory=dict)
    rate: float = 0.0
    latency: Latency = Latency()
    histogram: tuple[int, ...] = ()
    drift: Drift = Drift()
    light: tuple[Drift, ...] = ()
    cached: int = 0
    cameras: dict[str, str] = Field(default_factory=dict)
    evidence: Evidence = Evidence()
    reevaluation: Reevaluation | None = None
    alerts: tuple[AlertRow, ...] = ()
    rejects: tuple[RejectRow, ...] = ()


class Request(Strict):
    """A client's request on the control socket."""

    op: Literal["status", "acknowledge", "review", "hold", "resume", "reset", "trigger", "accept"]
    camera: str = ""
    serial: str = ""
    lot: str = ""
    alert: int | None = None
    operator: str = ""
    row: int | None = None
    decision: str = ""
    why: str = Field(default="", max_length=200)


class Reply(Strict):
    """The daemon's answer: `error` is empty when the request was carried out."""

    error: str = ""
    status: Status | None = None
