"""Faults of the engine, each on a running line."""

from __future__ import annotations

import pytest

from appliance.workers import RESTARTS
from tests.faults.conftest import Asked
from tests.faults.simulator.world import EngineOrder, Word


@pytest.mark.parametrize(
    ("order", "reason"), [(EngineOrder.NAN, "ENGINE"), (EngineOrder.INFINITE, "ENGINE"), (EngineOrder.SLOW, "LATE")]
)
def test_scores_that_are_none_or_late_never_pass(asked: Asked, order: EngineOrder, reason: str) -> None:
    """Faults 14, 20: NaN, infinite and late scores reject their parts; the process stays."""
    engine, first = asked.line.worker("engine"), asked.line.world.parts
    asked.line.world.set(Word.ENGINE, order)
    asked.until_rows("SELECT 1 FROM verdict WHERE trigger >= ? AND reason = ?", first - 40, reason)
    asked.line.passes(5)
    assert asked.line.worker("engine") == engine


@pytest.mark.parametrize("order", [EngineOrder.HANG, EngineOrder.ABORT, EngineOrder.KILL, EngineOrder.FEWER])
def test_a_lost_engine_is_replaced_and_its_parts_are_rejected(asked: Asked, order: EngineOrder) -> None:
    """Faults 17, 18, 19: another process is proven on the goldens; meanwhile parts are rejected, none is forgotten."""
    engine, before = asked.line.worker("engine"), asked.alerts("ENGINE")
    asked.line.world.set(Word.ENGINE, order)
    asked.wait(lambda: asked.alerts("ENGINE") > before, "alert")
    asked.line.passes(10)
    assert asked.line.worker("engine") not in (None, engine)


def test_an_engine_lost_again_and_again_is_a_fault(asked: Asked) -> None:
    """Fault 29: after five starts within a minute nothing passes any more, until somebody has looked."""
    fault = "SELECT 1 FROM audit WHERE action = 'state FAULT'"
    for _ in range(RESTARTS + 1):  # those who were lost to the tests before count too, if they were not long ago
        lost = asked.alerts("ENGINE")
        asked.line.world.set(Word.ENGINE, EngineOrder.ABORT)
        asked.wait(lambda lost=lost: asked.alerts("ENGINE") > lost or bool(asked.rows(fault)), "loss")  # type: ignore[misc]
    asked.until_rows(fault)
    accepted, parts = len(asked.line.plc.accepted()), asked.line.world.parts
    asked.wait(lambda: asked.line.world.parts >= parts + 40, "parts")
    assert len(asked.line.plc.accepted()) == accepted
