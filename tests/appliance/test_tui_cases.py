"""The list of parts that wait for a person, under its keys."""

from __future__ import annotations

from pathlib import Path

from appliance.config import load_station
from appliance.messages import Case
from appliance.tui.app import LineguardApp
from appliance.tui.dialogs import OperatorDialog
from appliance.tui.station import StationSource
from tests.appliance.stations import make_station, rows, run_json
from tests.appliance.tui_data import FixedSource, app_on, screen_text, settled, shows, status
from tests.support.tiny import tiny_bundle


def case(seq: int, kind: str = "unsure", evidence: str | None = None) -> Case:
    """One that waits."""
    is_sample = kind == "sample"
    values = {
        "seq": seq,
        "utc": f"2026-11-23T12:{seq % 60:02d}:00Z",
        "serial": f"C{seq}",
        "lot": "L7",
        "camera": "top",
        "frame": "f.png",
        "kind": kind,
        "top_class": None if is_sample else "crack",
        "defect_probability": None if is_sample else 0.4127,
        "evidence": f"/data/evidence/{seq}.png" if evidence is None else evidence,
    }
    return Case.model_validate(values)


def waiting(*cases: Case) -> FixedSource:
    """A source with these."""
    source = FixedSource(status())
    source.waiting = cases
    return source


async def test_a_part_is_judged_with_three_keys() -> None:
    """Select, say what it is, Enter; it leaves the list, and the next one is selected."""
    source = waiting(case(30), case(20), case(10, "sample"))
    app = app_on(source, operator="Jana")
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("c")
        await shows(pilot, "Parts that wait for you: 3")
        assert "/data/evidence/30.png" in screen_text(app)
        await pilot.press("down", "d", "enter")
        await shows(pilot, "row 20: DEFECT, recorded")
        await shows(pilot, "Parts that wait for you: 2")
        assert "/data/evidence/10.png" in screen_text(app)
        await pilot.press("g", "enter")
        await shows(pilot, "row 10: GOOD, recorded")
        assert source.judged == [(20, "DEFECT", "Jana"), (10, "OK", "Jana")]


async def test_nothing_is_recorded_without_enter() -> None:
    """Another key, or Esc, takes back what was said; a second Esc leaves."""
    source = waiting(case(30), case(20))
    app = app_on(source, operator="Jana")
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("c")
        await shows(pilot, "Parts that wait for you: 2")
        await pilot.press("enter", "d", "down", "enter", "g", "escape", "enter")
        assert "Parts that wait for you: 2" in screen_text(app)
        await pilot.press("escape")
        await shows(pilot, "Last rejects")
        assert "Parts that wait for you" not in screen_text(app)
    assert source.judged == []


async def test_what_the_model_said_of_a_part_drawn_at_random_is_not_shown() -> None:
    """Whoever judges shall not be swayed; of an UNSURE part the probability helps."""
    app = app_on(waiting(case(30, "sample"), case(20, evidence="")), operator="Jana")
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("c")
        await shows(pilot, "Parts that wait for you: 2")
        await pilot.press("down")
        await shows(pilot, "none was kept; look at the part itself")
        drawn, unsure = (next(line for line in screen_text(app).splitlines() if f"C{n} " in line) for n in (30, 20))
        assert "drawn at random" in drawn
        assert "0.413" in unsure or "0.41" in unsure


async def test_the_first_judgement_asks_for_the_name() -> None:
    """It is known afterwards, to the screen below too."""
    source = waiting(case(30), case(20))
    app = app_on(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("c")
        await shows(pilot, "Parts that wait for you: 2")
        await pilot.press("g", "enter")
        assert isinstance(app.screen, OperatorDialog)
        await pilot.press(*"Ute", "enter")
        await shows(pilot, "row 30: GOOD, recorded")
        await pilot.press("escape")
        assert source.judged == [(30, "OK", "Ute")]
        assert app.view.operator == "Ute"


async def test_a_judgement_that_is_not_recorded_says_so() -> None:
    """Refused, or without an answer: the part stays in the list."""
    source = waiting(case(30))
    app = app_on(source, operator="Jana", poll_s=60)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("c")
        await shows(pilot, "Parts that wait for you: 1")
        source.trouble = "the daemon does not answer"
        await pilot.press("g", "enter")
        await shows(pilot, "row 30: see whether it stays open: the daemon does not answer")
        source.trouble, source.refusal = "", "the disk is full"
        await pilot.press("g", "enter")
        await shows(pilot, "the disk is full")
        assert source.judged == []


async def test_an_empty_list_and_a_long_one() -> None:
    """Nothing to do is said; a long list follows the selection."""
    source = waiting()
    app = app_on(source, operator="Jana")
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("c")
        await shows(pilot, "no part waits for a person")
        await pilot.press("g", "enter", "escape")
        source.waiting = tuple(case(seq) for seq in range(60, 0, -1))
        await pilot.press("c")
        await shows(pilot, "Parts that wait for you: 60")
        await pilot.press(*["down"] * 30)
        await shows(pilot, "/data/evidence/30.png")
        assert "C30 " in screen_text(app)
    assert source.judged == []


async def test_a_real_station_lists_and_records(tmp_path: Path) -> None:
    """Its database, its pictures; no daemon needs to run."""
    bundle = tiny_bundle(tmp_path / "unsure.lgb", ok_below=1e-9, defect_above=1 - 1e-9)
    sections = "[evidence]\nunsure_mib = 5\nper_second = 1000.0"
    config = make_station(tmp_path, 3, "fps = 50.0", sections, bundle=bundle)
    run_json(config)
    unsure = [seq for (seq,) in rows(config, "SELECT seq FROM verdict WHERE reason = 'UNSURE' ORDER BY seq DESC")]
    app = LineguardApp(StationSource(load_station(config)), "Jana")
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("c")
        await shows(pilot, f"Parts that wait for you: {len(unsure)}")
        await pilot.press("d", "enter")
        await shows(pilot, f"row {unsure[0]}: DEFECT, recorded")
    assert rows(config, "SELECT seq, operator, decision FROM review") == [(unsure[0], "Jana", "DEFECT")]
