"""Drift of the predictions, and what is put on record of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from appliance.health import Health
from appliance.messages import Drift, Quantity, State
from appliance.monitor.drift import DriftMonitor
from appliance.store import Store

BASELINE = [70, 10, 2, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 5, 20]


def test_drift_is_silent_on_the_baseline_itself() -> None:
    """Parts drawn from the baseline: about as many alarms as allowed (none expected in 60 windows at 0.1 %)."""
    monitor = DriftMonitor(BASELINE, 100, 0.001)
    rng = np.random.default_rng(3)
    shares = np.array(BASELINE) / sum(BASELINE)
    found = [monitor.add(int(bin_), i) for i, bin_ in enumerate(rng.choice(20, 6000, p=shares))]
    compared = [result for result in found if result is not None]
    assert len(compared) == 60
    assert sum(result.drifting for result in compared) <= 1
    assert monitor.last == compared[-1]


def test_drift_is_seen_in_the_first_window() -> None:
    """All parts in doubtful bins: the first comparison alarms."""
    monitor = DriftMonitor(BASELINE, 50, 0.001)
    results = [monitor.add(10, i) for i in range(50)]
    assert results[:49] == [None] * 49
    last = results[-1]
    assert last is not None
    assert last.drifting
    assert last.kl > last.limit


def test_the_same_parts_again_are_no_news() -> None:
    """A replay that circles over 40 good parts never alarms, over 40 doubtful ones it does, over too few it cannot."""
    rng = np.random.default_rng(1)
    bins = rng.choice(20, 40, p=np.array(BASELINE) / sum(BASELINE))
    monitor = DriftMonitor(BASELINE, 500, 0.001)
    compared = [monitor.add(int(bins[i % 40]), i % 40) for i in range(2000)]
    assert [result.parts for result in compared if result is not None] == [40] * 4
    assert not monitor.last.drifting
    monitor = DriftMonitor(BASELINE, 500, 0.001)
    assert [monitor.add(10, i % 40) for i in range(500)][-1] == monitor.last
    assert monitor.last.drifting
    monitor = DriftMonitor(BASELINE, 500, 0.001)
    assert [monitor.add(10, i % 10) for i in range(500)] == [None] * 500


def test_after_the_line_was_accepted_it_is_the_reference() -> None:
    """What alarmed against the bundle is calm, and what was calm before alarms."""
    monitor = DriftMonitor(BASELINE, 100, 0.001)
    line, rng = [0] * 9 + [60, 40] + [0] * 9, np.random.default_rng(5)
    assert monitor.whole == ()

    def window(shares: list[int]) -> Drift:
        bins = rng.choice(20, 100, p=np.array(shares) / sum(shares))
        return next(found for i, bin_ in enumerate(bins) if (found := monitor.add(int(bin_), i)))

    first = window(line)
    assert first.drifting
    assert first.shift > 0.1
    assert sum(monitor.whole) == 100
    monitor.accept(monitor.whole)
    assert (monitor.last.parts, monitor.last.reference) == (0, "line")
    assert not window(line).drifting
    back = window(BASELINE)
    assert back.drifting
    assert back.shift < -0.1


def test_one_alert_per_episode_of_drift(tmp_path: Path) -> None:
    """Drift that lasts is one alert; drift that ends and begins again is two."""
    store = Store(tmp_path / "station.db")
    health = Health(store)
    for phase in (State.VERIFY, State.SELFTEST, State.READY, State.RUN):
        health.enter(phase)
    drifting, calm = Drift(parts=50, kl=1.0, limit=0.1, drifting=True), Drift(parts=50, kl=0.0, limit=0.1)
    for comparison, state in ((drifting, State.DEGRADED), (drifting, State.DEGRADED), (calm, State.RUN)):
        health.drifted(comparison)
        assert health.condition.state is state
    assert len(store.open_alerts()) == 1
    health.drifted(drifting)
    assert len(store.open_alerts()) == 2
    health.fail("broken")
    health.fail("again")
    assert health.condition.state is State.FAULT
    assert [alert.kind for alert in store.open_alerts()] == ["FAULT", "DRIFT", "DRIFT"]
    store.close()


@pytest.mark.parametrize(
    ("quantity", "shift", "told"),
    [
        ("predictions", 0.1, "the predictions no longer look like the bundle's validation parts"),
        ("brightness", 0.1, "the frames of camera top are brighter than the bundle's"),
        ("brightness", -0.1, "the frames of camera top are darker than the bundle's"),
        ("sharpness", 0.1, "the frames of camera top are sharper than the bundle's"),
        ("sharpness", -0.1, "the frames of camera top are less sharp than the bundle's"),
        ("sharpness", 0.01, "the sharpness of camera top is spread otherwise than that of the bundle's"),
    ],
)
def test_an_alert_says_what_has_changed(tmp_path: Path, quantity: Quantity, shift: float, told: str) -> None:
    """And only drift of the predictions can hold the line, however far it goes."""
    store = Store(tmp_path / "station.db")
    health = Health(store, hold_nats=2.0)
    for phase in (State.VERIFY, State.SELFTEST, State.READY, State.RUN):
        health.enter(phase)
    camera = "" if quantity == "predictions" else "top"
    health.drifted(Drift(quantity=quantity, camera=camera, parts=50, kl=3.0, limit=0.1, shift=shift, drifting=True))
    assert store.open_alerts()[0].message.startswith(told)
    assert health.condition.state is (State.DEGRADED if camera else State.HOLD)
    health.drift_over()
    assert not health.condition.warnings
    store.close()


def test_without_a_database_nothing_may_pass(tmp_path: Path) -> None:
    """An alert that cannot be written holds the station."""
    store = Store(tmp_path / "station.db")
    health = Health(store)
    for phase in (State.VERIFY, State.SELFTEST, State.READY, State.RUN):
        health.enter(phase)
    store.close()
    health.alert("X", "cannot be written")
    assert health.condition.state is State.HOLD
    health.audit("nor this")
    assert health.condition.rejects_all
