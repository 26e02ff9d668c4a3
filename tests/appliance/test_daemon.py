"""The daemon as real processes, end to end."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from appliance.audit import verify_chain
from appliance.client import acknowledge, fetch_status
from appliance.config import load_station
from appliance.messages import State
from calibration.errors import InputError
from deploy.install import Device
from deploy.record import read_state
from deploy.slots import SlotState
from tests.appliance.stations import Daemon, alive, appliance, make_station, rows, run_json
from tests.support.tiny import tiny_bundle, tiny_contents, write_parts


def test_two_thousand_frames_give_two_thousand_rows(tmp_path: Path) -> None:
    """2,000 replayed frames: 2,000 rows, counts equal in summary, database and status; PASS only with a row."""
    config = make_station(tmp_path, 100, "loop = true\ncount = 2000")
    summary = run_json(config)
    assert summary["counts"]["triggers"] == summary["rows"] == 2000
    assert summary["counts"]["not_inspected"] == 0
    (count, passes, serials), *_ = rows(
        config, "SELECT count(*), sum(verdict = 'PASS'), count(DISTINCT serial) FROM verdict"
    )
    assert count == serials == 2000
    assert passes == summary["passed"] == summary["counts"]["ok"]
    status = fetch_status(load_station(config))
    assert status.state is State.STOPPED
    assert status.counts.model_dump() == summary["total"] == summary["counts"]
    assert sum(parts for (parts,) in rows(config, "SELECT parts FROM histogram")) == 2000
    assert sum(status.histogram) == 2000
    assert rows(config, "PRAGMA integrity_check") == [("ok",)]
    with closing(sqlite3.connect(tmp_path / "data" / "station.db")) as connection:
        assert verify_chain(connection) == []


def test_the_same_frames_twice_give_identical_scores(tmp_path: Path) -> None:
    """Replaying the same frames gives bit-identical logits and verdicts, whatever the batches were."""
    config = make_station(tmp_path, 40)
    run_json(config)
    config.write_text(config.read_text().replace('"L1"', '"L2"') + "[batch]\nsize = 3\n")
    run_json(config)
    columns = "frame, logits, defect_probability, verdict, reason, crc"
    query = f"SELECT {columns} FROM verdict WHERE lot = '{{}}' ORDER BY trigger"  # noqa: S608
    first, second = rows(config, query.format("L1")), rows(config, query.format("L2"))
    assert len(first) == 40
    assert first == second
    assert rows(config, "SELECT seq, serial FROM verdict ORDER BY seq") == [(i, str(i)) for i in range(1, 81)]


def test_verdicts_are_those_of_the_labels(tmp_path: Path) -> None:
    """Good parts pass and scratched ones do not."""
    config = make_station(tmp_path, 40)
    run_json(config)
    for frame, verdict in rows(config, "SELECT frame, verdict FROM verdict"):
        assert ("ok" in frame) == (verdict == "PASS"), frame


def test_sigterm_ends_within_two_seconds_and_leaves_nothing(tmp_path: Path) -> None:
    """SIGTERM in the middle of parts: exit 0 within 2 s, every trigger a row, all children gone, memory freed."""
    config = make_station(tmp_path, 20, "loop = true\nfps = 200.0")
    with Daemon(config) as daemon:
        status = daemon.until(lambda s: s.counts.triggers > 50)
        assert status.state is State.RUN
        assert status.cameras == {"top": "running"}
        workers = daemon.workers()
        assert set(workers) == {"camera", "engine"}
        started = time.monotonic()
        summary = daemon.stop(signal.SIGTERM)
        assert time.monotonic() - started < 2.0
    assert summary["ended_by"] == "SIGTERM"
    assert summary["rows"] == summary["counts"]["triggers"] == len(rows(config))
    triggers = [trigger for (trigger,) in rows(config, "SELECT trigger FROM verdict ORDER BY seq")]
    assert sorted(triggers) == list(range(len(triggers)))
    assert not any(alive(pid) for pid in workers.values())


def test_sigint_and_max_seconds_end_it_too(tmp_path: Path) -> None:
    """Ctrl-C and --max-seconds are clean ends."""
    config = make_station(tmp_path, 5, "loop = true\nfps = 50.0")
    with Daemon(config) as daemon:
        daemon.until(lambda s: s.counts.triggers > 3)
        assert daemon.stop(signal.SIGINT)["ended_by"] == "SIGINT"
    summary = run_json(config, "--max-seconds", 0.3)
    assert summary["ended_by"] == "max-seconds"
    assert 5 <= summary["counts"]["triggers"] <= 40


def test_a_killed_engine_is_replaced_and_nothing_is_lost(tmp_path: Path) -> None:
    """kill -9 of the engine: an alert, a new engine proven on the goldens, each trigger exactly one row."""
    config = make_station(tmp_path, 20, "loop = true\nfps = 200.0")
    with Daemon(config) as daemon:
        daemon.until(lambda s: s.counts.triggers > 20)
        before = daemon.workers()["engine"]
        os.kill(before, signal.SIGKILL)
        status = daemon.until(lambda s: any(alert.kind == "ENGINE" for alert in s.alerts))
        after = daemon.until(lambda s: s.state is State.RUN and s.counts.ok > status.counts.ok + 50)
        assert daemon.workers()["engine"] != before
        number = after.alerts[0].id
        acknowledge(daemon.station, number, "anna")
        assert all(alert.id != number for alert in fetch_status(daemon.station).alerts)
        with pytest.raises(InputError, match="not open"):
            acknowledge(daemon.station, number, "anna")
        summary = daemon.stop(signal.SIGTERM)
    assert summary["rows"] == summary["counts"]["triggers"]
    assert rows(config, "SELECT acknowledged_by FROM alert WHERE kind = 'ENGINE'") == [("anna",)]
    assert ("anna", f"acknowledge alert {number}") in rows(config, "SELECT actor, action FROM audit")


def test_a_stopped_engine_counts_as_hung(tmp_path: Path) -> None:
    """An engine that does not answer is killed; its parts are REJECT(ENGINE), later parts are judged again."""
    config = make_station(tmp_path, 20, "loop = true\nfps = 100.0", "[engine]\ntimeout_s = 0.3")
    with Daemon(config) as daemon:
        daemon.until(lambda s: s.counts.triggers > 20)
        os.kill(daemon.workers()["engine"], signal.SIGSTOP)
        status = daemon.until(lambda s: s.rejects_by_reason.get("ENGINE", 0) > 0)
        daemon.until(lambda s: s.state is State.RUN and s.counts.ok > status.counts.ok + 50)
        summary = daemon.stop(signal.SIGTERM)
    assert set(summary["rejects_by_reason"]) <= {"DEFECT", "UNSURE", "ENGINE", "LATE", "OVERFLOW", "HOLD"}
    assert summary["rows"] == summary["counts"]["triggers"] == len(rows(config))


def test_a_killed_camera_goes_on_where_it_was(tmp_path: Path) -> None:
    """kill -9 of the camera process: a replay of 300 frames still gives exactly one row for each."""
    config = make_station(tmp_path, 20, "loop = true\nfps = 150.0\ncount = 300")
    with Daemon(config) as daemon:
        daemon.until(lambda s: s.counts.triggers > 30)
        os.kill(daemon.workers()["camera"], signal.SIGKILL)
        out, err = daemon.process.communicate(timeout=30)
        assert daemon.process.returncode == 0, err
    assert json.loads(out)["rows"] == 300
    assert [t for (t,) in rows(config, "SELECT trigger FROM verdict ORDER BY trigger")] == list(range(300))
    assert "CAMERA" in {kind for (kind,) in rows(config, "SELECT kind FROM alert")}


def test_the_workers_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    """kill -9 of the supervisor takes its workers along; the next start finds the station free and its rows whole."""
    config = make_station(tmp_path, 20, "loop = true\nfps = 200.0")
    with Daemon(config) as daemon:
        daemon.until(lambda s: s.counts.triggers > 50)
        workers = daemon.workers()
        daemon.process.kill()
        daemon.process.wait()
        deadline = time.monotonic() + 3
        while any(alive(pid) for pid in workers.values()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    before = len(rows(config))
    summary = run_json(config, "--max-seconds", 0.5)
    assert len(rows(config)) == before + summary["rows"]
    assert rows(config, "PRAGMA integrity_check") == [("ok",)]


def test_bad_images_are_named_counted_and_survived(tmp_path: Path) -> None:
    """An unreadable file, a wrong size and a black frame are three rejects with their reasons; the rest is judged."""
    config = make_station(tmp_path, 6)
    frames = tmp_path / "frames"
    (frames / "a-broken.png").write_bytes(b"no image")
    cv2.imwrite(str(frames / "b-small.png"), np.full((32, 32), 99, np.uint8))
    cv2.imwrite(str(frames / "c-black.png"), np.zeros((64, 96), np.uint8))
    summary = run_json(config)
    assert summary["counts"]["triggers"] == 9
    assert summary["counts"]["not_inspected"] == 3
    found = {
        frame: (verdict, reason, detail)
        for frame, verdict, reason, detail in rows(
            config, "SELECT frame, verdict, reason, detail FROM verdict WHERE decision IS NULL"
        )
    }
    assert found["a-broken.png"][:2] == ("REJECT", "DECODE")
    assert "a-broken.png" in found["a-broken.png"][2]
    assert found["b-small.png"][:2] == ("REJECT", "FORMAT")
    assert "32x32" in found["b-small.png"][2]
    assert found["c-black.png"][:2] == ("REJECT", "BAD_IMAGE")


def test_parts_that_come_too_fast_are_rejected_not_queued(tmp_path: Path) -> None:
    """A line faster than the deadline allows gets rejects, exactly one row each, and no PASS after its deadline."""
    config = make_station(tmp_path, 10, "loop = true\nfps = 500.0\ncount = 300", "[timing]\ndeadline_ms = 1.0")
    summary = run_json(config)
    assert summary["rows"] == 300
    assert summary["passed"] == summary["counts"]["ok"]
    assert summary["rejects_by_reason"]["LATE"] > 100


def test_a_raw_source_and_two_cameras(tmp_path: Path) -> None:
    """Two cameras, one of undecoded frames: every part carries its camera's name and its own count."""
    config = make_station(tmp_path, 8)
    frames = np.stack([cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) for p in write_parts(tmp_path / "more", 6)])
    np.save(tmp_path / "frames.npy", frames)
    config.write_text(config.read_text() + '[camera.side]\nsource = "raw"\npath = "frames.npy"\n')
    assert run_json(config)["counts"]["triggers"] == 14
    found = rows(config, "SELECT camera, trigger FROM verdict ORDER BY camera DESC, trigger")
    assert found == [("top", i) for i in range(8)] + [("side", i) for i in range(6)]


def test_drift_raises_one_alert_and_degrades(tmp_path: Path) -> None:
    """Nothing but scratched parts: one DRIFT alert for the whole episode, state DEGRADED, verdicts go on."""
    config = make_station(tmp_path, 0, "loop = true\ncount = 300\nfps = 0.0", "[drift]\nwindow = 50")
    write_parts(tmp_path / "frames", 30, every=1)
    summary = run_json(config)
    assert summary["state"] == "DEGRADED"
    assert "drift" in summary["state_reason"]
    assert rows(config, "SELECT count(*) FROM alert WHERE kind = 'DRIFT'") == [(1,)]
    assert summary["counts"]["triggers"] == 300
    assert fetch_status(load_station(config)).alerts[0].kind == "DRIFT"


def test_a_second_daemon_is_refused_and_names_the_first(tmp_path: Path) -> None:
    """A station belongs to one daemon: the second ends with exit code 2 and the pid of the first."""
    config = make_station(tmp_path, 5, "loop = true\nfps = 20.0")
    with Daemon(config) as daemon:
        daemon.until(lambda s: s.state is State.RUN)
        second = appliance("run", "--config", config)
        assert second.returncode == 2
        assert f"pid {daemon.process.pid}" in second.stderr
        assert "Traceback" not in second.stderr
        daemon.stop(signal.SIGTERM)


def test_a_database_locked_by_another_process_is_refused(tmp_path: Path) -> None:
    """Somebody holds the database: exit code 2, and a message that says so."""
    config = make_station(tmp_path, 5)
    run_json(config)
    with closing(sqlite3.connect(tmp_path / "data" / "station.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        done = appliance("run", "--config", config)
    assert done.returncode == 2
    assert "locked by another process" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("lot =", "lott ="), "unknown key station.lott"),
        (("tiny.lgb", "none.lgb"), "none.lgb"),
        (('path = "frames"', 'path = "nowhere"'), "camera.top"),
        (('path = "frames"', 'path = "data"'), "no image in it"),
        (('source = "folder"', 'source = "webcam"'), "camera.top"),
    ],
)
def test_unusable_configuration_is_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    """Whatever is wrong in station.toml: exit code 2 and one line that names it."""
    config = make_station(tmp_path, 2)
    (tmp_path / "data").mkdir()
    config.write_text(config.read_text().replace(*change))
    done = appliance("run", "--config", config)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_a_flipped_byte_in_the_bundle_is_refused(tmp_path: Path) -> None:
    """A damaged bundle never judges."""
    config = make_station(tmp_path, 2)
    data = bytearray((tmp_path / "tiny.lgb").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "tiny.lgb").write_bytes(data)
    done = appliance("run", "--config", config)
    assert done.returncode == 2
    assert "damaged" in done.stderr


def test_a_bundle_whose_goldens_do_not_pass_is_refused(tmp_path: Path) -> None:
    """Goldens recorded from another model: exit code 2, no part is judged."""
    config = make_station(tmp_path, 2, bundle=_wrong_goldens(tmp_path / "wrong.lgb"))
    done = appliance("run", "--config", config)
    assert done.returncode == 2
    assert "goldens do not pass" in done.stderr
    assert rows(config) == []
    assert "bundle refused" in {action for (action,) in rows(config, "SELECT action FROM audit")}


def test_a_bundle_on_trial_is_confirmed_by_its_goldens(tmp_path: Path) -> None:
    """A device root: the pushed bundle is on trial until the daemon has proven it."""
    root = tmp_path / "root"
    device = Device(root)
    device.stage(tiny_bundle(tmp_path / "new.lgb"))
    device.activate()
    run_json(make_station(tmp_path, 3, bundle=root))
    slot = read_state(root).active_slot
    assert slot is not None
    assert slot.state is SlotState.CONFIRMED


def test_a_bad_bundle_on_trial_falls_back(tmp_path: Path) -> None:
    """A bundle on trial that fails its goldens is rejected there, and the confirmed one judges."""
    root = tmp_path / "root"
    device = Device(root)
    device.stage(tiny_bundle(tmp_path / "good.lgb", name="good"))
    device.activate()
    config = make_station(tmp_path, 3, bundle=root)
    run_json(config)
    device.stage(_wrong_goldens(tmp_path / "bad.lgb"))
    device.activate()
    summary = run_json(config)
    assert summary["bundle"] == "good"
    assert summary["counts"]["triggers"] == 3
    slots = read_state(root)
    assert sorted(slot.state.value for slot in (slots.a, slots.b)) == ["confirmed", "rejected"]
    assert "BUNDLE" in {kind for (kind,) in rows(config, "SELECT kind FROM alert")}


def _wrong_goldens(path: Path) -> Path:
    from deploy.bundle import write_bundle

    manifest, members = tiny_contents(name="bad")
    expected = json.loads(members["golden/expected.json"])
    for golden in expected:
        golden["logits"]["cpu"].reverse()
    members["golden/expected.json"] = json.dumps(expected).encode()
    write_bundle(path, manifest, members)
    return path
