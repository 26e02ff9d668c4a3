"""The daemon's condition, with everything it must write down about it: audit entries and alerts."""

from __future__ import annotations

import sys

from appliance.messages import Drift, State
from appliance.notify import notify
from appliance.state import HARD_DRIFT, Alert, Audit, Clear, Condition, Enter, Event, Fail, Hold, Prove, Warn, step
from appliance.store import Store, StoreError
from calibration.text import one_line
from calibration.values import BINS

SAME = 0.5 / BINS
"""Means of two histograms that differ by less than half a bin are told as equal."""


class Health:
    """Keeper of the condition.

    Attributes:
        condition: now.
        must_prove: an operator's reset asks for a new proof of engine and cameras; whoever sees to it takes it back.
    """

    def __init__(self, store: Store, hold_nats: float = float("inf")) -> None:
        """Drift of more than `hold_nats` is hard: it holds the line."""
        self._store, self._hold_nats = store, hold_nats
        self.condition = Condition()
        self.must_prove = False

    def take(self, event: Event) -> bool:
        """Let something happen; whether it changed anything. Raises ValueError, see appliance.state.step."""
        before = self.condition
        self.condition, effects = step(before, event)
        for effect in effects:
            if isinstance(effect, Audit):
                self._audit(effect)
            elif isinstance(effect, Alert):
                self.alert(effect.kind, effect.message)
            elif isinstance(effect, Prove):
                self.must_prove = True
        if before.state is not self.condition.state:
            notify(f"STATUS={self.condition.state.value} {self.condition.reason}"[:200])
        return self.condition != before

    def enter(self, phase: State) -> None:
        """Go on to the next phase."""
        self.take(Enter(phase))

    def warn(self, source: str, why: str) -> None:
        """Verdicts go on, and look at the alerts."""
        self.take(Warn(source, why))

    def hold(self, source: str, why: str) -> None:
        """No part passes until it is cleared."""
        self.take(Hold(source, why))

    def clear(self, source: str) -> None:
        """The cause is gone; nothing happens where the source has raised nothing."""
        self.take(Clear(source))

    def fail(self, why: str) -> None:
        """Latch a fault, with an alert."""
        self.take(Fail(why))

    def alert(self, kind: str, message: str) -> None:
        """Something that an operator has to acknowledge."""
        print(f"{kind}: {one_line(message)}", file=sys.stderr)
        try:
            self._store.alert(kind, message)
        except StoreError as error:
            self._without_database(error)

    def audit(self, action: str, new: str = "", old: str = "") -> None:
        """Something that must stay on record."""
        self._audit(Audit("daemon", action, new, old))

    def audit_as(self, actor: str, action: str, new: str) -> None:
        """What a person did."""
        self._audit(Audit(actor, action, new, ""))

    def drifted(self, comparison: Drift) -> None:
        """One comparison of a drift monitor: an alert and a warning when drift begins, nothing while it lasts; while
        predictions drift hard the line is held, and until an operator has looked."""
        source, (what, remedy) = _drift_source(comparison), _told(comparison)
        text = f"divergence {comparison.kl:.4f} nats, limit {comparison.limit:.4f}, last {comparison.parts} parts"
        if not comparison.drifting:
            self.clear(source)
        elif source not in self.condition.warnings:
            self.alert("DRIFT", f"{what}: {text}; {remedy}")
            self.warn(source, f"{comparison.name} drift: {text}" if comparison.camera else f"predictions drift: {text}")
        if comparison.quantity != "predictions":
            return
        if comparison.drifting and comparison.kl > self._hold_nats:
            self.hold(HARD_DRIFT, f"predictions drift beyond {self._hold_nats:g} nats: {text}")
        else:
            self.clear(HARD_DRIFT)

    def drift_over(self) -> None:
        """A person has looked, and says that the line is well: what drift has raised is over."""
        for source in [*self.condition.warnings, *self.condition.holds]:
            if source in ("drift", HARD_DRIFT) or source.startswith("drift "):
                self.clear(source)

    def _audit(self, entry: Audit) -> None:
        try:
            self._store.audit(entry.actor, entry.action, entry.old, entry.new)
        except StoreError as error:
            self._without_database(error)

    def _without_database(self, error: StoreError) -> None:
        """Not on record, so at least nothing may pass until the database takes rows again."""
        print(f"database: {error}", file=sys.stderr)
        self.condition, _ = step(self.condition, Hold("database", str(error)))


def _drift_source(comparison: Drift) -> str:
    return "drift" if comparison.quantity == "predictions" else f"drift {comparison.name}"


def _told(comparison: Drift) -> tuple[str, str]:
    """What has changed, and what to look at."""
    like = "the bundle's validation parts" if comparison.reference == "bundle" else "the accepted parts"
    accept = "if the line is well, `appliance drift accept`"
    more = comparison.shift > 0
    if comparison.quantity == "predictions":
        return f"the predictions no longer look like {like}", f"look at parts, lot and camera; {accept}"
    if comparison.quantity == "brightness":
        word, where = "brighter" if more else "darker", "lamp, exposure and aperture"
    else:
        word, where = "sharper" if more else "less sharp", "focus, dust on the lens and vibration"
    what = f"the frames of camera {comparison.camera} are {word} than {like}"
    if abs(comparison.shift) < SAME:
        what = f"the {comparison.quantity} of camera {comparison.camera} is spread otherwise than that of {like}"
    return what, f"look at {where}; {accept}"
