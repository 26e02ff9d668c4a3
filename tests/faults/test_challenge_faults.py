"""An engine that has gone bad without a sound: only the challenge can find it, since its scores look like any."""

from __future__ import annotations

from pathlib import Path

from appliance.client import act
from appliance.config import load_station
from tests.faults.simulator.line import Line
from tests.faults.simulator.settings import Settings
from tests.faults.simulator.world import Word


def test_an_engine_whose_scores_are_swapped_holds_the_line(tmp_path: Path) -> None:
    """Good parts look bad to it and bad ones good. The next challenge holds the line; then nothing passes, until the
    engine is right again and an operator has looked."""
    settings = Settings(str(tmp_path), fps=80.0, deadline_ms=600.0, rates={})
    with Line(tmp_path, settings, "[challenge]\nevery_parts = 40") as line:
        line.start()
        line.passes(20)
        line.world.set(Word.SWAPPED, 1)
        line.until_rows("SELECT 1 FROM audit WHERE action = 'challenge missed'")
        (why,) = line.until_rows("SELECT new FROM audit WHERE action = 'state HOLD' ORDER BY id DESC LIMIT 1")[0]
        assert "decided" in why
        line.run_parts(5)
        accepted = len(line.plc.accepted())
        line.run_parts(60)
        assert len(line.plc.accepted()) == accepted
        line.world.set(Word.SWAPPED, 0)
        line.until_rows("SELECT 1 FROM audit WHERE action = 'challenge passed' AND id > (SELECT max(id) FROM audit "
                        "WHERE action = 'challenge missed')")  # fmt: skip
        line.run_parts(60)
        assert len(line.plc.accepted()) == accepted
        act(load_station(line.config), "resume", "anna", "", timeout=10.0)
        line.passes(5)
