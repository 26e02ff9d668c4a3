"""The commands, and the daemon seen through them."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from appliance.cli import main
from appliance.client import fetch_status
from appliance.config import load_station
from appliance.daemon import run_station
from appliance.doctor import Mark, examine
from appliance.messages import State
from tests.appliance.stations import ROOT, Daemon, appliance, make_station, rows


@pytest.mark.parametrize("command", ["run", "status", "verdicts", "tui", "doctor"])
def test_help_shows_an_example(command: str) -> None:
    """Every command explains itself with something that can be pasted."""
    shown = CliRunner().invoke(main, [command, "--help"])
    assert shown.exit_code == 0
    assert f"appliance {command}" in shown.output


def test_doctor_finds_what_is_needed_here() -> None:
    """This machine can run the appliance; whatever is absent has a remedy."""
    shown = CliRunner().invoke(main, ["doctor", "--json"])
    assert shown.exit_code == 0
    findings = {finding["name"]: finding for finding in json.loads(shown.stdout)["findings"]}
    assert {"python", "cores", "onnxruntime", "openvino", "v4l2 devices", "sqlite"} <= set(findings)
    assert findings["onnxruntime"]["mark"] == "ok"
    assert all(finding["remedy"] for finding in findings.values() if finding["mark"] != "ok")
    assert "onnxruntime" in CliRunner().invoke(main, ["doctor"]).stdout


@pytest.mark.parametrize(
    ("said", "mark"),
    [("NVIDIA H200, 9.0", Mark.ABSENT), ("NVIDIA L4, 8.9", Mark.OK), ("later, 13.0", Mark.OK), ("", None), ("?", None)],
)
def test_doctor_says_whether_tensorrt_rtx_runs_on_the_gpu(
    said: str, mark: Mark | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what the driver's own tool says of the first GPU; nothing where it says nothing."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho '{said}'\necho 'another, 7.5'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = {finding.name: finding for finding in examine()}
    finding = found.get("tensorrt_rtx on this GPU")
    assert (finding.mark if finding else None) is mark
    if finding and mark is Mark.ABSENT:
        assert "compute capability 9.0" in finding.found
        assert "onnxruntime-cuda" in finding.remedy


def test_doctor_looks_at_a_station(tmp_path: Path) -> None:
    """With a station: its bundle, sources, disk; a damaged bundle is missing, with exit code 1, and left alone."""
    config = make_station(tmp_path, 2)
    assert CliRunner().invoke(main, ["doctor", "--config", str(config)]).exit_code == 0
    found = {finding.name: finding for finding in examine(load_station(config))}
    assert found["bundle"].found.startswith("tiny")
    assert found["data directory"].mark is Mark.OK
    (tmp_path / "tiny.lgb").write_bytes(b"nothing")
    shown = CliRunner().invoke(main, ["doctor", "--config", str(config)])
    assert shown.exit_code == 1
    assert "not a Lineguard bundle" in shown.stdout


def test_status_of_a_stopped_station(tmp_path: Path) -> None:
    """Status without a daemon, as a table and as JSON; an unknown config is exit code 2."""
    config = make_station(tmp_path, 2)
    shown = CliRunner().invoke(main, ["status", "--config", str(config), "--json"])
    assert shown.exit_code == 0
    assert json.loads(shown.stdout)["state"] == "STOPPED"
    assert "never run" in CliRunner().invoke(main, ["status", "--config", str(config)]).stdout
    assert CliRunner().invoke(main, ["verdicts", "--config", str(config)]).exit_code == 2
    missing = CliRunner().invoke(main, ["status", "--config", str(tmp_path / "none.toml")])
    assert missing.exit_code == 2
    assert missing.stderr.startswith("error: ")


def test_run_in_this_process_shows_progress_and_counts(tmp_path: Path) -> None:
    """`appliance run`: a table at the end; progress is reported while it runs, the last time with all parts."""
    config = make_station(tmp_path, 10)
    shown = CliRunner().invoke(main, ["run", "--config", str(config)])
    assert shown.exit_code == 0, shown.output
    assert "NOT INSPECTED" in shown.stdout
    seen = []
    summary = run_station(load_station(config), progress=lambda counts: seen.append(counts.triggers))
    assert seen[-1] == summary.counts.triggers == 10
    assert summary.total.triggers == 20
    shown = CliRunner().invoke(main, ["verdicts", "--config", str(config), "--last", "10", "--json"])
    found = json.loads(shown.stdout)
    assert [row["seq"] for row in found] == list(range(11, 21))
    # batches that are judged side by side end in any order, and so do their rows
    verdicts = {row["frame"]: row["verdict"] for row in found}
    assert len(verdicts) == 10
    assert verdicts["part-00000-ok.png"] == "PASS"
    lines = CliRunner().invoke(main, ["verdicts", "--config", str(config)]).stdout.splitlines()
    assert len(lines) == 20
    scratched = [line for line in lines if "part-00004-" in line]
    assert len(scratched) == 2
    assert all("DEFECT" in line for line in scratched)


def test_a_stop_before_the_first_part_is_clean(tmp_path: Path) -> None:
    """SIGTERM while the engine is being proven: nothing is judged, exit 0, no process left."""
    config = make_station(tmp_path, 10, "loop = true\nfps = 1.0")
    with Daemon(config) as daemon:
        deadline = time.monotonic() + 15
        while not daemon.workers():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        summary = daemon.stop(signal.SIGTERM)
    assert summary["ended_by"] == "SIGTERM"
    assert summary["counts"]["triggers"] <= 1


def test_a_locked_database_holds_the_line_and_lets_go(tmp_path: Path) -> None:
    """While another process holds the database: HOLD, nothing passes; afterwards RUN again, one row per trigger."""
    config = make_station(tmp_path, 20, "loop = true\nfps = 100.0")
    with Daemon(config) as daemon:
        daemon.until(lambda s: s.counts.triggers > 20)
        with closing(sqlite3.connect(tmp_path / "data" / "station.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            held = daemon.until(lambda s: s.state is State.HOLD and s.rejects_by_reason.get("HOLD", 0) > 10)
            assert "database" in held.state_reason
            other.execute("ROLLBACK")
        daemon.until(lambda s: s.state is State.RUN and s.counts.ok > held.counts.ok + 20)
        summary = daemon.stop(signal.SIGTERM)
    assert summary["rows"] == summary["counts"]["triggers"] == len(rows(config))
    assert summary["rejects_by_reason"]["LOG"] > 0
    assert summary["passed"] == summary["counts"]["ok"]


def test_rows_that_cannot_be_written_are_a_fault(tmp_path: Path) -> None:
    """SIGTERM while another process holds the database: the end comes in time, with exit code 1; nothing passed."""
    config = make_station(tmp_path, 20, "loop = true\nfps = 100.0")
    with Daemon(config) as daemon:
        daemon.until(lambda s: s.counts.triggers > 20)
        with closing(sqlite3.connect(tmp_path / "data" / "station.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            daemon.until(lambda s: s.state is State.HOLD)
            started = time.monotonic()
            daemon.process.send_signal(signal.SIGTERM)
            out, err = daemon.process.communicate(timeout=10)
            assert time.monotonic() - started < 4.0
    assert daemon.process.returncode == 1
    assert "could not be written" in err
    summary = json.loads(out)
    assert summary["state"] == "FAULT"
    assert summary["rows"] == len(rows(config)) < summary["counts"]["triggers"]
    assert summary["passed"] == rows(config, "SELECT count(*) FROM verdict WHERE verdict = 'PASS'")[0][0]


def test_a_daemon_that_stands_still_shows_as_fault(tmp_path: Path) -> None:
    """SIGSTOP of the daemon: status says FAULT in time, with the counts of the database."""
    config = make_station(tmp_path, 20, "loop = true\nfps = 100.0")
    with Daemon(config) as daemon:
        daemon.until(lambda s: s.counts.triggers > 20)
        os.kill(daemon.process.pid, signal.SIGSTOP)
        started = time.monotonic()
        status = fetch_status(daemon.station, timeout=0.3)
        assert time.monotonic() - started < 1.0
        assert status.state is State.FAULT
        assert status.counts.triggers == rows(config, "SELECT count(*) FROM verdict")[0][0] > 0
        os.kill(daemon.process.pid, signal.SIGCONT)
        daemon.until(lambda s: s.state is State.RUN)
        daemon.stop(signal.SIGTERM)


def test_an_engine_that_keeps_dying_is_a_fault(tmp_path: Path) -> None:
    """A restart loop: FAULT latched, every part rejected and on record, the daemon still answers; an operator's reset
    proves the engine anew."""
    config = make_station(tmp_path, 20, "loop = true\nfps = 100.0")
    with Daemon(config) as daemon:
        daemon.until(lambda s: s.state is State.RUN and s.counts.triggers > 5)
        killed: set[int] = set()
        deadline = time.monotonic() + 20
        while fetch_status(daemon.station).state is not State.FAULT:
            assert time.monotonic() < deadline
            pid = daemon.workers().get("engine")
            if pid is not None and pid not in killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            time.sleep(0.02)
        fault = daemon.until(lambda s: s.rejects_by_reason.get("HOLD", 0) > 5)
        assert "restarted too often" in fault.state_reason
        assert "FAULT" in {alert.kind for alert in fault.alerts}
        before = len(rows(config, "SELECT id FROM audit"))
        assert appliance("reset", "--config", config, "--operator", "anna").returncode == 0
        daemon.until(lambda s: s.state is State.RUN and s.counts.ok > fault.counts.ok + 5)
        assert (
            "state SELFTEST" in [action for (action,) in rows(config, "SELECT action FROM audit ORDER BY id")][before:]
        )
        summary = daemon.stop(signal.SIGTERM)
    assert summary["rows"] == summary["counts"]["triggers"] == len(rows(config))


def test_the_benchmark_runs(tmp_path: Path) -> None:
    """benchmarks/throughput.py gives its ratios for a folder of images and a bundle."""
    make_station(tmp_path, 8)
    done = subprocess.run(
        [
            *(sys.executable, "benchmarks/throughput.py", "--bundle", tmp_path / "tiny.lgb"),
            *("--frames", tmp_path / "frames", "--engine", "onnxruntime", "--rounds", "1", "--seconds", "1", "--json"),
        ],
        cwd=ROOT,
        capture_output=True,
        timeout=180,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    figures = result["engines"]["onnxruntime"]
    assert all(figures[name]["median"] > 0 for name in ("cpu_ratio", "wall_ratio", "p99_batches", "memory_mib"))
    assert result["measurements"]["onnxruntime"]["daemon"][0]["images"] > 0
