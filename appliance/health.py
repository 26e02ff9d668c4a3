"""The daemon's condition, with everything it must write down about it: audit entries and alerts."""

from __future__ import annotations

import sys

from appliance.messages import Drift, State
from appliance.notify import notify
from appliance.state import Condition
from appliance.store import Store, StoreError
from calibration.cli_support import one_line


class Health:
    """Keeper of the condition.

    Attributes:
        condition: now.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.condition = Condition()

    def enter(self, phase: State) -> None:
        """Go on to the next phase."""
        self._take(self.condition.enter(phase))

    def warn(self, source: str, why: str) -> None:
        """See Condition.warn."""
        self._take(self.condition.warn(source, why))

    def hold(self, source: str, why: str) -> None:
        """See Condition.hold."""
        self._take(self.condition.hold(source, why))

    def clear(self, source: str) -> None:
        """See Condition.clear; nothing happens where the source has raised nothing."""
        if source in self.condition.warnings or source in self.condition.holds:
            self._take(self.condition.clear(source))

    def fail(self, why: str) -> None:
        """Latch a fault, with an alert."""
        if not self.condition.fault:
            self._take(self.condition.fail(why))
            self.alert("FAULT", why)

    def alert(self, kind: str, message: str) -> None:
        """Something that an operator has to acknowledge."""
        print(f"{kind}: {one_line(message)}", file=sys.stderr)
        try:
            self._store.alert(kind, message)
        except StoreError as error:
            self._without_database(error)

    def audit(self, action: str, new: str = "", old: str = "") -> None:
        """Something that must stay on record."""
        try:
            self._store.audit("daemon", action, old, new)
        except StoreError as error:
            self._without_database(error)

    def drifted(self, comparison: Drift) -> None:
        """One comparison of the drift monitor: an alert and a warning when drift begins, nothing while it lasts."""
        text = f"divergence {comparison.kl:.4f} nats, limit {comparison.limit:.4f}, last {comparison.parts} parts"
        if not comparison.drifting:
            self.clear("drift")
        elif "drift" not in self.condition.warnings:
            self.alert("DRIFT", f"the predictions no longer look like the bundle's validation parts: {text}")
            self.warn("drift", f"predictions drift: {text}")

    def _take(self, condition: Condition) -> None:
        before, self.condition = self.condition, condition
        if before.state is not condition.state:
            self.audit(f"state {condition.state.value}", condition.reason, before.state.value)
            notify(f"STATUS={condition.state.value} {condition.reason}"[:200])

    def _without_database(self, error: StoreError) -> None:
        """Not on record, so at least nothing may pass until the database takes rows again."""
        print(f"database: {error}", file=sys.stderr)
        self.condition = self.condition.hold("database", str(error))
