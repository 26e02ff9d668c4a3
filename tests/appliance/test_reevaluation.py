"""People judge parts that were drawn at random, and the station says what that means for its model."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from appliance.cli import main
from appliance.client import review
from appliance.config import ReevaluationSection, load_station
from appliance.messages import Reason, State
from appliance.monitor.reevaluation import reevaluate
from appliance.paths import StationPaths
from appliance.retention import Retention
from appliance.rows import VerdictRow
from appliance.store import Store, StoreError
from deploy.bundle import Bundle, open_bundle
from tests.appliance.stations import Daemon, make_station, rows, run_json
from tests.support.tiny import tiny_bundle

ALL = "[evidence]\nsample_mib = 5\nper_second = 1000.0\n[reevaluation]\npassed_share = 1.0\ndefect_share = 1.0\n"
DAY = 1_767_225_600.0
"""2026-01-01, in seconds since 1970."""


def call(config: Path, *words: object) -> Any:
    """The JSON of an `appliance` command."""
    result = CliRunner().invoke(main, [*map(str, words), "--config", str(config), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A station after 40 parts, 8 of them scratched, and a model that is never unsure; they all wait for a person."""
    sure = tiny_bundle(tmp_path / "sure.lgb", ok_below=0.5, defect_above=0.5001)
    found = make_station(tmp_path, 40, "fps = 50.0", ALL, bundle=sure)
    run_json(found)
    return found


def say(config: Path, wrong: int = 0) -> int:
    """A person agrees with the model on every part but for so many that passed; how many passed."""
    passed = [seq for (seq,) in rows(config, "SELECT seq FROM verdict WHERE decision = 'OK' ORDER BY seq")]
    station = load_station(config)
    for seq, decision in rows(config, "SELECT seq, decision FROM verdict"):
        review(station, seq, "DEFECT" if seq in passed[:wrong] else decision, "Jana")
    return len(passed)


def test_parts_drawn_at_random_are_cases_that_do_not_say_what_the_model_said(config: Path) -> None:
    """With their pictures; one that was judged, or whose picture is gone, is no case any more."""
    cases = call(config, "review", "list")
    assert {Path(case["evidence"]).parent.name for case in cases} == {"sample"}
    assert [case["seq"] for case in cases] == list(range(40, 0, -1))
    assert {(case["kind"], case["top_class"], case["defect_probability"]) for case in cases} == {("sample", None, None)}
    review(load_station(config), 40, "OK", "Jana")
    Path(cases[1]["evidence"]).unlink()
    assert [case["seq"] for case in call(config, "review", "list")] == list(range(38, 0, -1))
    for lost in call(config, "review", "list")[:5]:
        Path(lost["evidence"]).unlink()
    assert [case["seq"] for case in call(config, "review", "list", "--last", 3)] == [33, 32, 31]
    assert "sample" in CliRunner().invoke(main, ["review", "list", "--config", str(config)]).stdout


def test_what_people_found_becomes_rates_with_intervals(config: Path) -> None:
    """All parts judged, 4 passes among them defects: 4 of 12 defects escaped, surely more than the 5 % stated."""
    before = call(config, "reevaluate")
    assert before["escape"]["value"] is None
    assert before["escape"]["expected"] < 0.5
    passed = say(config, wrong=4)
    found = call(config, "reevaluate")
    rejected = 40 - passed
    assert found["escape"] == {
        "value": pytest.approx(4 / (4 + rejected)),
        "low": pytest.approx(4 / (4 + rejected)),
        "high": pytest.approx(4 / (4 + rejected)),
        "expected": before["escape"]["expected"],
        "stated": 0.05,
        "beyond": True,
    }
    assert (found["overkill"]["value"], found["overkill"]["beyond"]) == (0.0, False)
    assert found["decisions"]["OK"] == {"parts": passed, "judged": passed, "defects": 4}
    shown = CliRunner().invoke(main, ["reevaluate", "--config", str(config)]).stdout
    assert "WORSE" in shown
    assert f"OK {passed} of {passed}" in shown


def test_a_daemon_tells_when_its_model_is_worse_than_stated(config: Path) -> None:
    """An alert, DEGRADED, an entry in the audit; and nothing of it once people have found otherwise."""
    say(config, wrong=4)
    path = config.parent / "station.toml"
    path.write_text(path.read_text().replace("fps = 50.0", "fps = 20.0\nloop = true"))
    with Daemon(config) as daemon:
        status = daemon.until(lambda s: s.state is State.DEGRADED)
        assert status.reevaluation is not None
        assert status.reevaluation.escape.beyond
        assert [alert.kind for alert in status.alerts] == ["REEVALUATION"]
        assert "stated at most 5.0%" in status.alerts[0].message
    audit = "SELECT new FROM audit WHERE action = 're-evaluation'"
    assert [new for (new,) in rows(config, audit)] == [status.reevaluation.text]
    say(config)
    with Daemon(config) as daemon:
        status = daemon.until(lambda s: s.state is State.RUN and s.reevaluation is not None)
        assert status.reevaluation is not None
        assert (status.reevaluation.escape.value, status.reevaluation.escape.beyond) == (0.0, False)


def test_it_can_be_switched_off(config: Path) -> None:
    """The daemon looks at nothing; the command still does."""
    say(config, wrong=4)
    path = config.parent / "station.toml"
    path.write_text(path.read_text().replace("[reevaluation]\n", "[reevaluation]\nevery_hours = 0\n"))
    with Daemon(config) as daemon:
        status = daemon.until(lambda s: s.state is State.RUN and s.counts.triggers > 45)
    assert (status.reevaluation, status.alerts) == (None, ())
    assert call(config, "reevaluate")["escape"]["beyond"]


def test_a_station_without_a_judged_part_is_told_so(tmp_path: Path) -> None:
    """And one whose bundle has gone; one line, exit code 2."""
    config = make_station(tmp_path, 3, "fps = 50.0", ALL)
    database = StationPaths.of(load_station(config).station.data).database
    database.parent.mkdir()
    Store(database).close()
    assert "no part was judged yet" in refusal(config)
    run_json(config)
    tiny_bundle(tmp_path / "tiny.lgb", name="another")
    assert "lacks the bundle that judged last" in refusal(config)


def refusal(config: Path) -> str:
    """What `appliance reevaluate` says on stderr."""
    result = CliRunner().invoke(main, ["reevaluate", "--config", str(config)], catch_exceptions=False)
    assert (result.exit_code, result.stdout) == (2, "")
    return result.stderr


def row(seq: int, decision: str, bundle: str, day: int = 1) -> VerdictRow:
    """A judged part."""
    reason, verdict = ("", "PASS") if decision == "OK" else (decision, "REJECT")
    utc, p = f"2026-01-{day:02d}T12:00:00.000000Z", 0.1 if decision == "OK" else 0.9
    told = ("top", seq, "f.png", str(seq), "", utc, seq, "boot", decision, verdict, reason, "", "ok", p, b"", 1)
    return VerdictRow(seq, *told, bundle, 0, 0, 0, 0)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Whose parts they are."""
    return open_bundle(tiny_bundle(tmp_path / "tiny.lgb"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty database."""
    return Store(tmp_path / "station.db")


def counted(store: Store, bundle: Bundle, day: int, days: int = 30) -> dict[str, tuple[int, int, int]]:
    """Parts, judged and defects by decision on that day of January."""
    section = ReevaluationSection(days=days)
    found = reevaluate(store.connection, bundle, "cpu", section, DAY + (day - 1) * 86_400)
    return {name: (one.parts, one.judged, one.defects) for name, one in found.decisions.items() if one.parts}


def test_only_parts_drawn_or_unsure_count_by_the_last_word_on_them(store: Store, bundle: Bundle) -> None:
    """A part that somebody picked says nothing of the others; another bundle's parts are its own."""
    for seq, decision in enumerate(("OK", "OK", "OK", "UNSURE", "DEFECT"), 1):
        store.add(row(seq, decision, bundle.sha256), None)
    store.add(row(6, "OK", "another"), None)
    store.draw(1)
    store.draw(6)
    store.commit()
    for seq in (1, 2, 4, 5, 6):
        store.review(seq, "DEFECT", "Jana")
    store.review(1, "OK", "Ada")
    assert counted(store, bundle, 1) == {"OK": (3, 1, 0), "UNSURE": (1, 1, 1), "DEFECT": (1, 0, 0)}
    store.close()


def test_parts_of_earlier_days_do_not_count(store: Store, bundle: Bundle) -> None:
    """Today is one of the days."""
    for day in (1, 2, 3):
        store.add(row(day, "OK", bundle.sha256, day), None)
        store.draw(day)
    store.commit()
    for seq in (1, 2, 3):
        store.review(seq, "OK", "Jana")
    assert counted(store, bundle, 3, days=2) == {"OK": (2, 2, 0)}
    assert counted(store, bundle, 3) == {"OK": (3, 3, 0)}
    store.close()


def test_parts_are_counted_and_drawn_once_though_a_commit_fails(store: Store, bundle: Bundle) -> None:
    """Rows, sums and the sample are written together or not at all; a withheld PASS is no judged part any more."""
    store.add(row(1, "OK", bundle.sha256), None)
    store.add(row(2, "DEFECT", bundle.sha256), None)
    store.draw(1)
    store.draw(2)
    blocker = sqlite3.connect(store.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    store.wait_at_most(0.0)
    with pytest.raises(StoreError):
        store.commit()
    blocker.execute("ROLLBACK")
    blocker.close()
    store.withhold(Reason.LOG)
    store.commit()
    assert counted(store, bundle, 1) == {"DEFECT": (1, 0, 0)}
    assert store.connection.execute("SELECT seq FROM sample ORDER BY seq").fetchall() == [(1,), (2,)]
    store.review(1, "DEFECT", "Jana")
    assert counted(store, bundle, 1) == {"DEFECT": (1, 0, 0)}
    store.close()


def test_counts_outlive_the_rows_and_the_sample_goes_with_them(store: Store, bundle: Bundle) -> None:
    """Rows that a person has judged stay, so what was found does."""
    for seq in range(1, 6):
        store.add(row(seq, "OK", bundle.sha256), None)
        store.draw(seq)
    store.commit()
    store.review(1, "DEFECT", "Jana")
    Retention(store, 1, 0).step(DAY + 100 * 86_400)
    assert store.connection.execute("SELECT seq FROM sample ORDER BY seq").fetchall() == [(1,), (5,)]
    assert counted(store, bundle, 2) == {"OK": (5, 1, 1)}
    store.close()
