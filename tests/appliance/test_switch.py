"""Changing bundles while parts go on: real daemons, real device roots, real failures."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import cv2
import numpy as np

from appliance.messages import State
from deploy.bundle import write_bundle
from deploy.install import Device
from deploy.record import read_history, read_state
from deploy.slots import TRIES, Slot, SlotState
from tests.appliance.stations import Daemon, appliance, make_station, rows, run_json
from tests.support.tiny import FRAME_HEIGHT, FRAME_WIDTH, tiny_bundle, tiny_contents, write_parts

PACED = "loop = true\nfps = 60.0"
SHORT = "[trial]\nframes = 30\nseconds = 0.3"


def push(root: Path, bundle: Path) -> str:
    """On trial in the device root, as `deploy push` leaves it; its hash."""
    device = Device(root, who="push", wait_s=5.0)
    device.stage(bundle)
    slot = device.activate().active_slot
    assert slot is not None
    return slot.sha256


def slot_of(root: Path, sha256: str) -> Slot:
    """The slot that holds a bundle."""
    slots = read_state(root)
    name = slots.find(sha256)
    assert name is not None
    return slots[name]


def wrong_goldens(path: Path) -> Path:
    """A bundle whose goldens expect another model."""
    manifest, members = tiny_contents(name="wrong")
    expected = json.loads(members["golden/expected.json"])
    for golden in expected:
        golden["logits"]["cpu"].reverse()
    members["golden/expected.json"] = json.dumps(expected).encode()
    write_bundle(path, manifest, members)
    return path


def dazzle(path: Path) -> None:
    """A part so bright that a dazzled model has no score for it."""
    bright = np.random.default_rng(3).normal(215, 4, (FRAME_HEIGHT, FRAME_WIDTH)).clip(0, 254).astype(np.uint8)
    cv2.imwrite(str(path), bright)


def judged_once(config: Path) -> list[tuple[int, str, str]]:
    """Trigger, bundle and reason of all rows in order of the triggers, of which each must have one."""
    found = rows(config, "SELECT trigger, bundle, reason FROM verdict ORDER BY trigger")
    assert [trigger for trigger, _, _ in found] == list(range(len(found)))
    return found


def test_a_pushed_bundle_takes_over_between_two_parts(tmp_path: Path) -> None:
    """Another input size and all: no trigger is lost or late, none is judged by a bundle that it was not preprocessed
    for, and a bundle that fails its goldens after that never judges."""
    root = tmp_path / "root"
    first = push(root, tiny_bundle(tmp_path / "first.lgb", name="first"))
    config = make_station(tmp_path, 20, PACED, SHORT, bundle=root)
    with Daemon(config) as daemon:
        daemon.until(lambda s: s.state is State.RUN and s.counts.triggers > 20)
        assert slot_of(root, first).state is SlotState.CONFIRMED
        second = push(root, tiny_bundle(tmp_path / "second.lgb", name="second", height=40))
        daemon.until(lambda s: s.bundle_name == "second")
        daemon.until(lambda s: s.state is State.RUN)
        assert slot_of(root, second).state is SlotState.CONFIRMED
        wrong = push(root, wrong_goldens(tmp_path / "wrong.lgb"))
        seen = daemon.until(lambda s: any(alert.kind == "BUNDLE" for alert in s.alerts))
        daemon.until(lambda s: s.state is State.RUN and s.counts.ok > seen.counts.ok + 20)
        daemon.stop(signal.SIGTERM)
    found = judged_once(config)
    assert {reason for _, _, reason in found} <= {"", "DEFECT", "UNSURE", "STOPPED"}
    bundles = [bundle for _, bundle, _ in found]
    change = bundles.index(second)
    assert change > 20
    assert bundles == [first] * change + [second] * (len(bundles) - change)
    assert slot_of(root, wrong).state is SlotState.REJECTED
    assert "goldens" in slot_of(root, wrong).reason
    states = [action for (action,) in rows(config, "SELECT action FROM audit WHERE action LIKE 'state %' ORDER BY id")]
    assert "state SWITCH" in states
    assert set(states[states.index("state RUN") :]) <= {"state RUN", "state SWITCH", "state STOPPED", "state DEGRADED"}


def test_a_trial_that_fails_on_a_frame_of_the_line_goes_back_by_itself(tmp_path: Path) -> None:
    """The goldens pass, part 50 or so does not: that part is rejected, the bundle before judges the next ones, and the
    reason is on record. The same bundle is not tried again, until it is pushed again."""
    root = tmp_path / "root"
    first = push(root, tiny_bundle(tmp_path / "first.lgb", name="first"))
    config = make_station(tmp_path, 60, PACED, "[trial]\nframes = 1000\nseconds = 60", bundle=root)
    dazzle(tmp_path / "frames" / "part-00050-ok-bright.png")
    with Daemon(config) as daemon:
        daemon.until(lambda s: s.state is State.RUN and s.counts.triggers > 5)
        second = push(root, tiny_bundle(tmp_path / "second.lgb", name="second", dazzled=True))
        # the frame may come first of all, and the trial be over between two looks: its alert stays
        back = daemon.until(lambda s: s.bundle_name == "first" and bool(s.alerts))
        after = daemon.until(lambda s: s.state is State.RUN and s.counts.ok > back.counts.ok + 90)
        assert after.bundle_name == "first"
        assert [alert.kind for alert in after.alerts] == ["BUNDLE"]
        daemon.stop(signal.SIGTERM)
    assert slot_of(root, first).state is SlotState.CONFIRMED
    assert slot_of(root, second).state is SlotState.REJECTED
    assert "engine failed on part" in slot_of(root, second).reason
    found = judged_once(config)
    (first_bad, *more) = [trigger for trigger, _, reason in found if reason == "ENGINE"]
    assert all(trigger < first_bad + 10 for trigger in more)
    assert found[first_bad][1] == second
    assert {bundle for trigger, bundle, _ in found if trigger > first_bad + 10} == {first}
    assert {reason for _, _, reason in found} <= {"", "DEFECT", "UNSURE", "ENGINE", "STOPPED"}


def test_a_trial_that_fails_after_a_restart_waits_for_the_bundle_before(tmp_path: Path) -> None:
    """Nothing is warm then: nothing passes until the confirmed bundle has passed its goldens, and every part has its
    row."""
    root = tmp_path / "root"
    first = push(root, tiny_bundle(tmp_path / "first.lgb", name="first"))
    Device(root).confirm(first)
    second = push(root, tiny_bundle(tmp_path / "second.lgb", name="second", dazzled=True))
    config = make_station(tmp_path, 20, PACED, "[trial]\nframes = 1000", bundle=root)
    dazzle(tmp_path / "frames" / "part-00010-ok-bright.png")
    with Daemon(config) as daemon:
        daemon.until(lambda s: s.bundle_name == "first" and s.state is State.RUN and s.counts.ok > 30)
        summary = daemon.stop(signal.SIGTERM)
    assert summary["bundle"] == "first"
    assert slot_of(root, second).state is SlotState.REJECTED
    found = judged_once(config)
    broken = next(trigger for trigger, _, reason in found if reason == "ENGINE")
    assert not any(bundle == second and reason == "" for trigger, bundle, reason in found if trigger > broken + 10)
    assert ("state HOLD",) in rows(config, "SELECT action FROM audit")


def test_a_bundle_that_kills_the_daemon_is_left_after_some_attempts(tmp_path: Path) -> None:
    """A daemon that dies in the trial tries again, but not for ever; one that is stopped in good order may go on."""
    root = tmp_path / "root"
    first = push(root, tiny_bundle(tmp_path / "first.lgb", name="first"))
    config = make_station(tmp_path, 3, "", "[trial]\nframes = 1000", bundle=root)
    assert run_json(config)["bundle"] == "first"
    second = push(root, tiny_bundle(tmp_path / "second.lgb", name="second"))
    assert run_json(config)["bundle"] == "second"
    assert (slot_of(root, second).state, slot_of(root, second).attempts) == (SlotState.TRIAL, 0)
    for _ in range(TRIES):
        Device(root).attempt(second)  # what each start says first
    assert run_json(config)["bundle"] == "first"
    assert slot_of(root, second).state is SlotState.REJECTED
    assert "died" in slot_of(root, second).reason
    assert slot_of(root, first).state is SlotState.CONFIRMED
    assert "pause" in [line.what for line in read_history(root)]


def test_no_good_slot_is_a_fault_that_answers_and_takes_a_push(tmp_path: Path) -> None:
    """Nothing is judged; a reset without a repair leads back into the fault; a push of a good bundle ends it."""
    root = tmp_path / "root"
    push(root, wrong_goldens(tmp_path / "wrong.lgb"))
    config = make_station(tmp_path, 10, PACED, bundle=root)
    with Daemon(config) as daemon:
        fault = daemon.until(lambda s: s.state is State.FAULT and bool(s.uptime_s))
        assert "no slot holds a bundle that may judge" in fault.state_reason
        refused = appliance("hold", "--config", config, "--operator", "anna", "--why", "x")
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        reset = appliance("reset", "--config", config, "--operator", "anna", "--json")
        assert reset.returncode == 0, reset.stderr
        daemon.until(lambda s: s.state is State.FAULT and 0 < s.uptime_s < 5)
        good = push(root, tiny_bundle(tmp_path / "good.lgb", name="good"))
        daemon.until(lambda s: s.state is State.RUN and s.counts.ok > 5)
        assert slot_of(root, good).state is SlotState.CONFIRMED
        daemon.stop(signal.SIGTERM)
    assert ("anna", "reset") in rows(config, "SELECT actor, action FROM audit")
    judged_once(config)


def test_a_rollback_is_followed_while_parts_go_on(tmp_path: Path) -> None:
    """`deploy rollback` during a trial: the bundle before is still warm and judges again at once."""
    root = tmp_path / "root"
    first = push(root, tiny_bundle(tmp_path / "first.lgb", name="first"))
    config = make_station(tmp_path, 20, PACED, "[trial]\nframes = 1000", bundle=root)
    with Daemon(config) as daemon:
        daemon.until(lambda s: s.state is State.RUN)
        push(root, tiny_bundle(tmp_path / "second.lgb", name="second"))
        daemon.until(lambda s: s.bundle_name == "second")
        began = time.monotonic()
        Device(root, wait_s=5.0).rollback("operator: too many rejects")
        daemon.until(lambda s: s.bundle_name == "first" and s.state is State.RUN)
        assert time.monotonic() - began < 10
        daemon.stop(signal.SIGTERM)
    assert {reason for _, _, reason in judged_once(config)} <= {"", "DEFECT", "UNSURE", "STOPPED"}
    assert slot_of(root, first).state is SlotState.CONFIRMED


def test_an_operator_holds_the_line_and_lets_it_go_on(tmp_path: Path) -> None:
    """While held nothing passes and everything is judged and recorded; both acts carry the name."""
    config = make_station(tmp_path, 0, PACED)
    write_parts(tmp_path / "frames", 10, every=100)
    with Daemon(config) as daemon:
        daemon.until(lambda s: s.state is State.RUN and s.counts.ok > 5)
        done = appliance("hold", "--config", config, "--operator", "anna", "--why", "cleaning the lens", "--json")
        assert json.loads(done.stdout)["state"] == "HOLD", done.stderr
        held = daemon.until(lambda s: s.rejects_by_reason.get("HOLD", 0) > 5)
        assert "cleaning the lens" in held.state_reason
        idle = appliance("reset", "--config", config, "--operator", "anna")
        assert (idle.returncode, "no fault" in idle.stderr) == (2, True)
        now = daemon.until(lambda s: s.rejects_by_reason["HOLD"] > held.rejects_by_reason["HOLD"] + 10)
        assert now.counts.ok == held.counts.ok
        done = appliance("resume", "--config", config, "--operator", "bert", "--json")
        assert json.loads(done.stdout)["state"] == "RUN", done.stderr
        daemon.until(lambda s: s.counts.ok > now.counts.ok + 5)
        daemon.stop(signal.SIGTERM)
    acts = rows(config, "SELECT actor, action FROM audit WHERE actor IN ('anna', 'bert')")
    assert acts == [("anna", "hold"), ("bert", "resume")]
    decisions = rows(config, "SELECT DISTINCT decision FROM verdict WHERE reason = 'HOLD'")
    assert ("OK",) in decisions
    assert appliance("resume", "--config", config, "--operator", "bert").returncode == 2
