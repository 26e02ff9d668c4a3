"""Re-evaluation: is the model still what its bundle states? People's judgement of parts drawn at random says so."""

from __future__ import annotations

import math
import sqlite3
import time
from datetime import datetime, timedelta, timezone

from appliance.config import ReevaluationSection
from appliance.health import Health
from appliance.messages import Judged, Rate, Reevaluation
from appliance.state import REEVALUATION
from appliance.store import Store
from appliance.switching import Switcher
from calibration.decision import Decision
from calibration.stratified import Floats, Stratum, is_beyond, line_rates
from calibration.values import Interval
from deploy.bundle import Bundle


class Reevaluator:
    """Looks at what people have said: once when a bundle begins to judge, and then every few hours.

    Attributes:
        last: what was found then.
    """

    def __init__(self, section: ReevaluationSection, store: Store, health: Health, posts: Switcher) -> None:
        self._section, self._store, self._health, self._posts = section, store, health, posts
        self._due_ns = 0
        self.last: Reevaluation | None = None

    def tick(self, now_ns: int) -> None:
        """A few times a second while the station runs; mostly nothing is due. Some ten milliseconds when it is."""
        model = self._posts.current.model
        is_known = self.last is not None and self.last.bundle == model.bundle.sha256
        if not self._section.every_hours or (is_known and now_ns < self._due_ns):
            return
        self._due_ns = now_ns + int(self._section.every_hours * 3600e9)
        try:
            found = reevaluate(self._store.connection, model.bundle, model.variant, self._section, time.time())
        except sqlite3.Error:
            return  # rows cannot be written then either, and that holds the line
        if found.judged and found != self.last:
            self._health.audit("re-evaluation", found.text)
        self.last = found
        if not (found.escape.beyond or found.overkill.beyond):
            self._health.clear(REEVALUATION)
        elif REEVALUATION not in self._health.condition.warnings:
            self._health.alert("REEVALUATION", f"worse on the line than the bundle states: {found.text}")
            self._health.warn(REEVALUATION, found.text)


def reevaluate(
    connection: sqlite3.Connection, bundle: Bundle, variant: str, section: ReevaluationSection, now: float
) -> Reevaluation:
    """What a bundle does on the line, at `now`, seconds since 1970. `variant`: the one that judges, "cpu" or "trt".

    Raises:
        sqlite3.Error: the database cannot be read.
    """
    since = (datetime.fromtimestamp(now, timezone.utc) - timedelta(days=section.days - 1)).date().isoformat()
    found = _strata(connection, bundle.sha256, since)
    rejected = [found[Decision.UNSURE], found[Decision.DEFECT]]
    rates = line_rates(found[Decision.OK], rejected)
    prefix, metrics = "" if variant == "cpu" else f"{variant}.", bundle.manifest.metrics
    bound = bundle.variant(variant).escape_bound
    stated = {name: metrics[prefix + name].high for name in ("escape", "overkill") if prefix + name in metrics}
    if bound is not None:
        stated["escape"] = bound.alpha

    def rate(name: str, interval: Interval, expected: float, draws: Floats) -> Rate:
        limit = stated.get(name)
        beyond = limit is not None and is_beyond(interval, draws, limit, section.false_alarm)
        value, own = (None if math.isnan(x) else x for x in (interval.value, expected))
        return Rate(value=value, low=interval.low, high=interval.high, expected=own, stated=limit, beyond=beyond)

    return Reevaluation(
        bundle=bundle.sha256,
        since=since,
        decisions={d.value: Judged(parts=s.parts, judged=s.judged, defects=s.defects) for d, s in found.items()},
        escape=rate("escape", rates.escape, rates.expected_escape, rates.escape_draws),
        overkill=rate("overkill", rates.overkill, rates.expected_overkill, rates.overkill_draws),
    )


def _strata(connection: sqlite3.Connection, bundle: str, since: str) -> dict[Decision, Stratum]:
    """By decision: the parts that a bundle judged from the day `since` (ISO, UTC) on, and what people said of those
    that were drawn, or UNSURE. Of several judgements of a part the last one counts."""
    counted = "SELECT decision, sum(parts), sum(expected) FROM stratum WHERE bundle = ? AND day >= ? GROUP BY decision"
    parts = {decision: (n, expected) for decision, n, expected in connection.execute(counted, (bundle, since))}
    said = (
        "SELECT verdict.decision, count(*), sum(review.decision = 'DEFECT') FROM review JOIN verdict USING (seq) "
        "WHERE review.id IN (SELECT max(id) FROM review GROUP BY seq) AND bundle = ? AND verdict.utc >= ? "
        "AND reason IN ('', 'DEFECT', 'UNSURE') AND (reason = 'UNSURE' OR seq IN (SELECT seq FROM sample)) "
        "GROUP BY verdict.decision"
    )
    judged = {decision: (n, defects) for decision, n, defects in connection.execute(said, (bundle, since))}
    found = {}
    for decision in Decision:
        n, expected = parts.get(decision.value, (0, 0.0))
        by_people, defects = judged.get(decision.value, (0, 0))
        n = max(n, by_people)  # a database that somebody has worked on must not stop the line
        found[decision] = Stratum(n, min(max(expected, 0.0), float(n)), by_people, defects)
    return found
