"""A person's verdict on a doubtful part: recorded beside the machine's, with a name."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from appliance.cli import main
from appliance.client import review
from appliance.config import load_station
from appliance.messages import State
from appliance.store import Store
from calibration.errors import InputError
from tests.appliance.stations import Daemon, make_station, rows, run_json
from tests.support.tiny import tiny_bundle

UNSURE = {"ok_below": 1e-9, "defect_above": 1 - 1e-9}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A station whose bundle is unsure of nearly everything, after one run with evidence."""
    bundle = tiny_bundle(tmp_path / "unsure.lgb", **UNSURE)
    sections = "[evidence]\nunsure_mib = 5\nper_second = 1000.0"
    found = make_station(tmp_path, 4, "fps = 100.0", sections, bundle=bundle)
    run_json(found)
    return found


def test_cases_are_listed_until_somebody_has_judged_them(config: Path) -> None:
    """Newest first, with their picture; the machine's verdict stays, and the audit has name, old and new value."""
    words = ["--config", str(config)]
    before = rows(config, "SELECT * FROM verdict ORDER BY seq")
    cases = json.loads(CliRunner().invoke(main, ["review", "list", *words, "--json"]).stdout)
    unsure = [seq for (seq,) in rows(config, "SELECT seq FROM verdict WHERE reason = 'UNSURE' ORDER BY seq DESC")]
    assert [case["seq"] for case in cases] == unsure != []
    assert all(Path(case["evidence"]).is_file() for case in cases)
    judged = CliRunner().invoke(main, ["review", "judge", str(unsure[0]), "DEFECT", "--operator", "Jana", *words])
    assert judged.exit_code == 0, judged.output
    assert rows(config, "SELECT seq, operator, decision FROM review") == [(unsure[0], "Jana", "DEFECT")]
    assert rows(config, "SELECT * FROM verdict ORDER BY seq") == before
    acts = rows(config, "SELECT actor, action, old, new FROM audit ORDER BY id DESC LIMIT 1")
    assert acts == [("Jana", f"review of row {unsure[0]}", "UNSURE", "DEFECT")]
    shown = CliRunner().invoke(main, ["review", "list", *words]).stdout
    assert len(shown.splitlines()) == max(1, len(unsure) - 1)


def test_a_running_daemon_records_reviews(config: Path) -> None:
    """It alone writes while it runs; mistakes come back as errors."""
    path = config.parent / "station.toml"
    path.write_text(path.read_text().replace("fps = 100.0", "fps = 20.0\nloop = true"))
    with Daemon(config) as daemon:
        status = daemon.until(lambda s: s.state is State.RUN and s.counts.unsure > 8)
        row = status.rejects[-1].seq  # the newest may not be durable yet
        review(load_station(config), row, "OK", "Jana")
        with pytest.raises(InputError, match="no such verdict"):
            review(load_station(config), 10**9, "OK", "Jana")
    assert rows(config, "SELECT seq, operator, decision FROM review") == [(row, "Jana", "OK")]


def test_a_review_needs_a_row_a_name_and_a_decision(tmp_path: Path) -> None:
    """Each refused with what is wrong; nothing is recorded."""
    store = Store(tmp_path / "station.db")
    store.connection.execute("INSERT INTO verdict (seq, camera, verdict, reason, bundle) VALUES (1, '', '', '', '')")
    for seq, decision, operator, message in (
        (2, "OK", "Jana", "no such verdict"),
        (1, "OK", " ", "name of the person"),
        (1, "UNSURE", "Jana", "OK or DEFECT"),
    ):
        with pytest.raises(InputError, match=message):
            store.review(seq, decision, operator)
    assert store.connection.execute("SELECT * FROM review").fetchall() == []
    store.review(1, "OK", "half a character \udc80")
    assert store.connection.execute("SELECT operator FROM review").fetchone() == ("half a character ?",)
    store.close()


def test_judged_parts_leave_as_a_folder_for_the_trainer(config: Path, tmp_path: Path) -> None:
    """The very frames, by the last word of a person, with their groups; a part without a picture is named."""
    station, words = load_station(config), ["--config", str(config), "--json"]
    seqs = [seq for (seq,) in rows(config, "SELECT seq FROM verdict WHERE reason = 'UNSURE' ORDER BY seq")]
    for seq in seqs:
        review(station, seq, "DEFECT", "Jana")
    review(station, seqs[0], "OK", "Ada")
    gone = next((tmp_path / "data" / "evidence").rglob(f"{seqs[1]}.png"))
    gone.unlink()
    result = CliRunner().invoke(main, ["review", "export", "--out", str(tmp_path / "judged"), *words])
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    assert made["written"] == {"OK": 1, "DEFECT": len(seqs) - 2}
    assert list(made["missing"]) == [str(seqs[1])]
    assert f"row {seqs[1]}: no frame was kept" in result.stderr
    frame, serial = next(
        rest for seq, *rest in rows(config, "SELECT seq, frame, serial FROM verdict") if seq == seqs[0]
    )
    exported = cv2.imread(str(tmp_path / "judged" / "OK" / f"test-{seqs[0]}.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(exported, cv2.imread(str(tmp_path / "frames" / frame), cv2.IMREAD_UNCHANGED))
    groups = (tmp_path / "judged" / "groups.csv").read_text().splitlines()
    assert groups[:2] == ["path,group", f"OK/test-{seqs[0]}.png,test-{serial}"]
    told = (tmp_path / "judged" / "parts.csv").read_text().splitlines()[1].split(",")
    assert told[6:9] == ["OK", "Ada", "UNSURE"]
    again = CliRunner().invoke(main, ["review", "export", "--out", str(tmp_path / "judged"), *words])
    assert again.exit_code == 2
    assert "is not an empty folder" in again.stderr
