"""Light and focus of a camera against the bundle's frames, and against the line once a person has accepted it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from appliance.config import DriftSection
from appliance.engine_link import Model
from appliance.messages import Drift, State, Status
from appliance.monitor.drift_watch import DriftWatch, accepted_before
from appliance.store import Store
from appliance.wire import LOOKED_AT, FrameNote
from deploy.bundle import open_bundle
from tests.appliance.stations import Daemon, appliance, make_station, rows, run_json
from tests.support.tiny import parts, tiny_bundle

WINDOW = 100
SECTIONS = f"[drift]\nwindow = {WINDOW}\n"


@pytest.fixture
def dark_station(tmp_path: Path) -> Path:
    """A station whose lamp gives three quarters of the light that the bundle was made with."""
    frames = tmp_path / "frames"
    frames.mkdir()
    for i, (frame, _) in enumerate(parts(500, seed=4)):
        cv2.imwrite(str(frames / f"{i:04d}.png"), (frame * 0.75).astype("uint8"))
    return make_station(tmp_path, 0, "fps = 125.0", SECTIONS)


def _brightness(status: Status) -> Drift:
    return next((each for each in status.light if each.quantity == "brightness"), Drift())


def test_a_darker_lamp_is_told_and_accepted(dark_station: Path) -> None:
    """The alert says which camera, what has changed and where to look; once the line is accepted the station is in good
    order, the very windows after that are calm, and the next start knows it."""
    with Daemon(dark_station) as daemon:
        status = daemon.until(lambda now: _brightness(now).drifting)
        assert status.state is State.DEGRADED
        assert _brightness(status).shift < 0
        (told,) = [
            alert.message for alert in status.alerts if "brightness" in alert.message or "darker" in alert.message
        ]
        assert told.startswith("the frames of camera top are darker than the bundle's validation parts")
        assert "look at lamp" in told
        assert "`appliance drift accept`" in told
        done = appliance("drift", "accept", "--operator", "Jana", "--config", dark_station, "--json")
        assert done.returncode == 0, done.stderr
        assert [each["reference"] for each in json.loads(done.stdout)["drift"]] == ["line"] * 3
        status = daemon.until(lambda now: bool(_brightness(now).parts))
        assert _brightness(status).reference == "line"
        assert not _brightness(status).drifting
        assert "drift brightness top" not in status.state_reason
        daemon.stop(15)
    alerts = len(rows(dark_station, "SELECT id FROM alert WHERE message LIKE '%camera top are%'"))
    run_json(dark_station)
    assert len(rows(dark_station, "SELECT id FROM alert WHERE message LIKE '%camera top are%'")) == alerts
    assert appliance("audit", "verify", "--config", dark_station).returncode == 0


def test_nothing_is_accepted_before_a_window_is_full(tmp_path: Path) -> None:
    """There would be nothing to measure from: a message, exit code 2, nothing in the audit."""
    config = make_station(tmp_path, 200, "fps = 10.0", SECTIONS)
    with Daemon(config) as daemon:
        daemon.until(lambda now: now.state is State.RUN)
        done = appliance("drift", "accept", "--operator", "Jana", "--config", config)
        assert done.returncode == 2
        assert f"no window of {WINDOW} parts" in done.stderr
        daemon.stop(15)
    assert not rows(config, "SELECT id FROM audit WHERE action LIKE 'drift reference%'")


def _watch(path: Path, accepted: dict[str, tuple[int, ...]]) -> tuple[DriftWatch, Model]:
    model = Model(open_bundle(path), "cpu")
    return DriftWatch(model, ["one", "two"], DriftSection(window=80), accepted), model


def _audited(path: Path, *entries: tuple[str, str, str]) -> Path:
    """A station's database with these entries in its audit."""
    store = Store(path)
    with store.transaction():
        for entry in entries:
            store.append_audit("Jana", *entry)
    store.close()
    return path


def test_each_camera_has_windows_of_its_own(tmp_path: Path) -> None:
    """One in four frames is looked at; frames of one camera say nothing of the other."""
    watch, _ = _watch(tiny_bundle(tmp_path / "tiny.lgb"), {})
    compared = []
    for i in range(80):
        looks = (2, 2) if i % LOOKED_AT == 0 else None
        compared += watch.see("one", FrameNote(i, 0, i, 0, 0, "", looks=looks))
    assert [(each.name, each.parts, each.drifting) for each in compared] == [
        ("brightness one", 20, True),
        ("sharpness one", 20, True),
    ]
    assert [each.parts for each in watch.light] == [20, 20, 0, 0]


def test_an_accepted_light_outlives_the_bundle(tmp_path: Path) -> None:
    """Predictions are one model's; the light is accepted for all bundles that take the same frames."""
    watch, model = _watch(tiny_bundle(tmp_path / "a.lgb"), {})
    row = (0, 0, 30, 4, *[0] * 16)
    database = _audited(tmp_path / "station.db", *watch.entries({"predictions": row, "brightness one": row}))
    assert accepted_before(database, model) == {"predictions": row, "brightness one": row}
    _, other = _watch(tiny_bundle(tmp_path / "b.lgb", gain=100.0), {})
    assert accepted_before(database, other) == {"brightness one": row}


def test_what_was_accepted_last_counts(tmp_path: Path) -> None:
    """The audit keeps both, with who and when."""
    watch, model = _watch(tiny_bundle(tmp_path / "a.lgb"), {})
    first, second = (3,) * 20, (4,) * 20
    entries = [entry for row in (first, second) for entry in watch.entries({"predictions": row})]
    assert accepted_before(_audited(tmp_path / "station.db", *entries), model) == {"predictions": second}


@pytest.mark.parametrize("new", ["", "[]", '{"predictions": 3}', '{"predictions": [1, 2]}', '{"predictions": [null]}'])
def test_a_damaged_entry_is_no_reference(tmp_path: Path, new: str) -> None:
    """The bundle's own reference stands in."""
    watch, model = _watch(tiny_bundle(tmp_path / "a.lgb"), {})
    action = watch.entries({"predictions": (1,) * 20})[0][0]
    assert accepted_before(_audited(tmp_path / "station.db", (action, "", new)), model) == {}
    assert accepted_before(tmp_path / "none.db", model) == {}
