"""Light and focus of a camera against the bundle's frames, and against the line once a person has accepted it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from appliance.config import DriftSection
from appliance.engine_link import Model
from appliance.messages import Drift, State, Status
from appliance.monitor.drift_watch import Accepted, DriftWatch
from appliance.store import Store
from appliance.wire import LOOKED_AT, FrameNote
from deploy.bundle import open_bundle
from tests.appliance.stations import Daemon, appliance, make_station, rows, run_json
from tests.support.tiny import parts, tiny_bundle

WINDOW = 100
SECTIONS = f"[drift]\nwindow = {WINDOW}\n"


@pytest.fixture
def bright_station(tmp_path: Path) -> Path:
    """A station whose lamp gives a fifth more light than the one that the bundle was made with."""
    frames = tmp_path / "frames"
    frames.mkdir()
    for i, (frame, _) in enumerate(parts(500, seed=4)):
        cv2.imwrite(str(frames / f"{i:04d}.png"), (frame * 1.2).clip(0, 255).astype("uint8"))
    return make_station(tmp_path, 0, "fps = 125.0", SECTIONS)


def _brightness(status: Status) -> Drift:
    return next((each for each in status.light if each.quantity == "brightness"), Drift())


def test_a_brighter_lamp_is_told_and_accepted(bright_station: Path) -> None:
    """The alert says which camera, what has changed and where to look; once the line is accepted the station is in good
    order, the very windows after that are calm, and the next start knows it."""
    with Daemon(bright_station) as daemon:
        status = daemon.until(lambda now: _brightness(now).drifting)
        assert status.state is State.DEGRADED
        assert "brightness top" in status.state_reason
        assert _brightness(status).shift > 0
        (told,) = [
            alert.message for alert in status.alerts if "brightness" in alert.message or "brighter" in alert.message
        ]
        assert told.startswith("the frames of camera top are brighter than the bundle's validation parts")
        assert "look at lamp" in told
        assert "`appliance drift accept`" in told
        done = appliance("drift", "accept", "--operator", "Jana", "--config", bright_station, "--json")
        assert done.returncode == 0, done.stderr
        assert [each["reference"] for each in json.loads(done.stdout)["drift"]] == ["line"] * 3
        status = daemon.until(lambda now: bool(_brightness(now).parts))
        assert _brightness(status).reference == "line"
        assert not _brightness(status).drifting
        assert "brightness top" not in status.state_reason
        daemon.stop(15)
    alerts = len(rows(bright_station, "SELECT id FROM alert WHERE message LIKE '%camera top are%'"))
    run_json(bright_station)
    assert len(rows(bright_station, "SELECT id FROM alert WHERE message LIKE '%camera top are%'")) == alerts
    assert appliance("audit", "verify", "--config", bright_station).returncode == 0


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


def _watch(path: Path, accepted: Accepted) -> DriftWatch:
    return DriftWatch(Model(open_bundle(path), "cpu"), ["one", "two"], DriftSection(window=WINDOW), accepted)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Of a station that has judged nothing yet."""
    made = Store(tmp_path / "station.db")
    yield made
    made.close()


def _see(watch: DriftWatch, camera: str) -> list[Drift]:
    """A camera's frames, a quarter of them measured, until a window is full; all of brightness and sharpness 0.12."""
    found = []
    for i in range(WINDOW):
        looks = (2, 2) if i % LOOKED_AT == 0 else None
        found += watch.see(camera, FrameNote(i, 0, i, 0, 0, "", looks=looks))
    return found


def _accept(watch: DriftWatch, store: Store) -> None:
    references = watch.proposed()
    with store.transaction():
        for entry in watch.entries(references):
            store.append_audit("Jana", *entry)
    watch.accept(references)


def test_each_camera_has_windows_of_its_own(tmp_path: Path, store: Store) -> None:
    """Frames of one camera say nothing of the other."""
    watch = _watch(tiny_bundle(tmp_path / "tiny.lgb"), Accepted(store.connection))
    assert watch.proposed() == {}
    each = WINDOW // LOOKED_AT
    compared = [(found.name, found.parts, found.drifting) for found in _see(watch, "one")]
    assert compared == [("brightness one", each, True), ("sharpness one", each, True)]
    assert [found.parts for found in watch.light] == [each, each, 0, 0]


def test_an_accepted_light_outlives_the_bundle(tmp_path: Path, store: Store) -> None:
    """Predictions are one model's; the light is accepted for all bundles that take the same frames."""
    watch = _watch(tiny_bundle(tmp_path / "a.lgb"), Accepted(store.connection))
    _see(watch, "one")
    for i in range(WINDOW):
        watch.predictions.add(3, i)
    _accept(watch, store)
    assert watch.proposed() == {}
    same, other = (
        _watch(tiny_bundle(tmp_path / "b.lgb", gain=gain), Accepted(store.connection)) for gain in (120.0, 100.0)
    )
    one, two = ["line", "line"], ["bundle", "bundle"]
    assert [found.reference for found in (same.predictions.last, *same.light)] == ["line", *one, *two]
    assert [found.reference for found in (other.predictions.last, *other.light)] == ["bundle", *one, *two]


def test_what_was_accepted_before_stays_for_what_has_no_window_since(tmp_path: Path, store: Store) -> None:
    """A second camera is accepted later; the first keeps its reference, and the audit both acts."""
    bundle = tiny_bundle(tmp_path / "a.lgb")
    for camera in ("one", "two"):
        watch = _watch(bundle, Accepted(store.connection))
        _see(watch, camera)
        _accept(watch, store)
    assert [found.reference for found in _watch(bundle, Accepted(store.connection)).light] == ["line"] * 4
    assert len(store.connection.execute("SELECT id FROM audit").fetchall()) == 2


@pytest.mark.parametrize(
    "new", ["", "[]", '{"brightness one": 3}', '{"brightness one": [1]}', '{"brightness one": [null]}']
)
def test_a_damaged_entry_is_no_reference(tmp_path: Path, store: Store, new: str) -> None:
    """The bundle's own reference stands in."""
    bundle = tiny_bundle(tmp_path / "a.lgb")
    watch = _watch(bundle, Accepted(store.connection))
    _see(watch, "one")
    ((action, _, _),) = watch.entries(watch.proposed())
    with store.transaction():
        store.append_audit("Jana", action, "", new)
    assert _watch(bundle, Accepted(store.connection)).light[0].reference == "bundle"
