"""The whole product on real solar cells, by its own commands: `make demo`.

Every step is a command a user would type; this file runs them one after the other, shows them, and ends with one
table and build/demo/summary.json. The station it leaves behind opens with `appliance tui`.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.table import Table

from calibration.cli_support import emit, key_values, plain
from calibration.risk import wilson

BIN = Path(sys.executable).parent

STATION = """\
[station]
name = "solar-cells"
data = "station"
bundle = "device"

[camera.el]
source = "folder"
path = "frames"
fps = 0.0

[batch]
size = 8
"""


def run(*command: str | Path, result: bool = True) -> Any:
    """Run one of Lineguard's commands, shown as typed; with `result`, its --json output."""
    words = [str(word) for word in command]
    print("\n$ " + " ".join(words), file=sys.stderr, flush=True)
    program = [str(BIN / words[0]), *words[1:], *(["--json"] if result else [])]
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)
    return json.loads(done.stdout) if result else done.stdout


def replay_test_parts(data: Path, frames: Path) -> dict[str, str]:
    """Lay the test fold out as a camera's folder; returns the label by file name."""
    root = Path(json.loads((data / "dataset.json").read_text())["root"])
    truth = {}
    frames.mkdir(parents=True)
    with (data / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    for i, row in enumerate(rows):
        name = f"{i:05d}-{Path(row['path']).name}"
        shutil.copyfile(root / row["path"], frames / name)
        truth[name] = row["label"]
    return truth


def judged(station: Path, truth: dict[str, str], ok: str) -> dict[str, Any]:
    """Escapes and overkill of the daemon's own verdict rows against the labels."""
    rows = run("appliance", "verdicts", "--config", station, "--last", str(10 * len(truth)))
    passed = {row["frame"]: row["verdict"] == "PASS" for row in rows}
    defects = [passed[name] for name, label in truth.items() if label != ok]
    good = [passed[name] for name, label in truth.items() if label == ok]
    return {
        "verdict_rows": len(rows),
        "escape_rate": wilson(sum(defects), len(defects)),
        "overkill_rate": wilson(len(good) - sum(good), len(good)),
    }


def demo(build: Path, seed: int) -> dict[str, Any]:
    """Run everything; returns the summary."""
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir(parents=True)
    data, folder, bundle, station = build / "data", build / "run", build / "demo.lgb", build / "station.toml"
    start = time.monotonic()
    run("trainer", "import", "elpv", "--out", data, "--seed", str(seed))
    run("trainer", "train", data, "--out", folder, "--recipe", "quick", "--seed", str(seed))
    run("trainer", "export", folder)
    release = run("trainer", "release", folder, "--out", bundle, "--name", "solar-cells")
    keys, device = build / "keys", f"file:{build / 'device'}"
    run("deploy", "keys", "init", keys)
    run("deploy", "enrol", device, "--root", keys / "root.json", "--id", "demo")
    run("deploy", "sign", bundle, "--keys", keys, "--devices", "demo")
    run("deploy", "push", bundle, device)
    truth = replay_test_parts(data, build / "frames")
    station.write_text(STATION)
    summary = run("appliance", "run", "--config", station)
    status = run("appliance", "status", "--config", station)
    int8, parity = release["measured"]["cpu"], release["parity_test"]["cpu"]
    return {
        "seconds": round(time.monotonic() - start, 1),
        "parts": status["counts"],
        **judged(station, truth, json.loads((data / "dataset.json").read_text())["ok_class"]),
        "frames_per_second": summary["frames_per_second"],
        "latency_ms": summary["latency"],
        "accuracy": int8["figures"]["accuracy"],
        "auroc": int8["figures"]["auroc"],
        "escape_at_10_overkill": int8["figures"]["escape_at_10_overkill"],
        "ece_before": int8["figures"]["ece_before"],
        "ece_after": int8["figures"]["ece"],
        "ece_of_a_calibrated_model": int8["ece_floor"],
        "int8_against_fp32": {
            "same_verdicts": parity["agreement"],
            "paired_escapes": parity["paired_escapes"],
            "paired_catches": parity["paired_catches"],
            "fp32_accuracy": release["measured"]["fp32"]["figures"]["accuracy"],
        },
        "report": str(folder / "report.html"),
        "tui": f"{BIN / 'appliance'} tui --config {station}",
    }


def table(summary: dict[str, Any]) -> Table:
    """What a person wants to know of it."""
    parts, int8 = summary["parts"], summary["int8_against_fp32"]
    rows = {
        "parts judged": f"{parts['triggers'] - parts['not_inspected']} of {parts['triggers']}",
        "OK / DEFECT / UNSURE": f"{parts['ok']} / {parts['defect']} / {parts['unsure']}",
        "not inspected": parts["not_inspected"],
        "escape rate": _percent(summary["escape_rate"]),
        "overkill (UNSURE counts as rejected)": _percent(summary["overkill_rate"]),
        "escape at 10 % overkill": _percent(summary["escape_at_10_overkill"]),
        "accuracy": _percent(summary["accuracy"]),
        "ECE before temperature": _number(summary["ece_before"]),
        "ECE after": _number(summary["ece_after"]),
        "  a calibrated model would show": _number(summary["ece_of_a_calibrated_model"]),
        "INT8 against FP32, same verdicts": _percent(int8["same_verdicts"]),
        "  defects only INT8 passes / only FP32": f"{int8['paired_escapes']} / {int8['paired_catches']}",
        "frames per second, whole daemon": f"{summary['frames_per_second']:.0f}",
        "seconds in all": f"{summary['seconds']:.0f}",
    }
    return key_values("Lineguard on ELPV solar cells: the test quarter, judged by the daemon [95 % interval]", rows)


def _percent(interval: Any) -> str:
    value, low, high = _limits(interval)
    return f"{value:.1%} [{low:.1%}, {high:.1%}]"


def _number(interval: Any) -> str:
    value, low, high = _limits(interval)
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _limits(interval: Any) -> tuple[float, float, float]:
    """Value and limits of an Interval, or of one that came through JSON."""
    fields = plain(interval)
    return fields["value"], fields["low"], fields["high"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=Path("build/demo"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    summary = demo(options.build, options.seed)
    (options.build / "summary.json").write_text(json.dumps(plain(summary), indent=2))
    print(file=sys.stderr)
    emit(summary, options.json, table(summary))
    print(f"\nThe report: {summary['report']}\nThe operator's screen: {summary['tui']}", file=sys.stderr)


if __name__ == "__main__":
    main()
