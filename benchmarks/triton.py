"""A real Triton server against the daemon: the same bundle, the same real frames, decision by decision.

    python -m benchmarks.triton build/demo

The frames are those that the daemon of `make demo` judged, its answers the verdict rows that it left. The server is the
one in PyTriton's wheel (downloaded into an environment of its own under build/peers), on loopback. It has no ONNX
Runtime backend, so the repository is written with `--runner python`. Writes build/triton/summary.json.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import click
import numpy as np

from appliance import history
from appliance.config import load_station
from appliance.paths import StationPaths
from benchmarks.peers.__main__ import PEERS
from calibration.cli_support import emit, key_values
from calibration.errors import InputError
from calibration.images import read_image
from deploy.bundle import Bundle, open_bundle
from deploy.triton import write_repository
from tests.support.tritonserver import Answer, Server, ServerError, serving

OUT = Path("build/triton/summary.json")


def judged_by_daemon(station: Path, bundle: Bundle) -> dict[str, tuple[str, float]]:
    """(decision, defect probability) by file name of the frame, of all inspected parts of this very bundle."""
    with history.open_readonly(StationPaths.of(load_station(station).station.data).database) as connection:
        rows = history.verdicts(connection, 1_000_000)
    return {
        row["frame"]: (row["decision"], row["defect_probability"])
        for row in rows
        if row["bundle"] == bundle.sha256 and row["decision"]
    }


def judged_by_triton(server: Server, model: str, frames: dict[str, Any], at_once: int) -> dict[str, Answer]:
    """Each frame a request of its own, so many at once: the server makes the batches."""
    lines: SimpleQueue[Server] = SimpleQueue()
    for _ in range(at_once):
        lines.put(Server(server.port))

    def one(frame: Any) -> Answer:
        line = lines.get()
        try:
            return line.judge(model, frame[None])[0]
        finally:
            lines.put(line)

    with ThreadPoolExecutor(at_once) as pool:
        answers = dict(zip(frames, pool.map(one, frames.values()), strict=True))
    for _ in range(at_once):
        lines.get().close()
    return answers


def parity(folder: Path, at_once: int) -> dict[str, Any]:
    """Both on every frame. Raises InputError where one of them is not at hand."""
    if not (folder / "demo.lgb").exists():
        raise InputError(f"{folder}: holds no demo.lgb; `make demo` makes it")
    bundle = open_bundle(folder / "demo.lgb")
    daemon = judged_by_daemon(folder / "station.toml", bundle)
    if not daemon:
        raise InputError(f"{folder / 'station.toml'}: the daemon has judged nothing with demo.lgb; run `make demo`")
    channels = bundle.manifest.preprocess.channels
    frames = {name: read_image(folder / "frames" / name, channels) for name in sorted(daemon)}
    python = next(peer for peer in PEERS if peer.name == "pytriton").python()
    with tempfile.TemporaryDirectory(prefix="lineguard-triton-") as name:
        made = write_repository(bundle, Path(name) / "models", runner="python")
        (Path(name) / "server").mkdir()
        began = time.monotonic()
        try:
            with serving(python, made.path, made.name, Path(name) / "server") as server:
                ready = time.monotonic()
                answers = judged_by_triton(server, made.name, frames, at_once)
                seconds = time.monotonic() - ready
        except ServerError as error:
            raise InputError(f"Triton: {error}") from None
    apart = np.array([abs(answers[name].defect_probability - p) for name, (_, p) in daemon.items()])
    return {
        "bundle": bundle.sha256,
        "parts": len(daemon),
        "same_decision": sum(answers[name].decision == decision for name, (decision, _) in daemon.items()),
        "same_probability_to_the_bit": int((apart == 0).sum()),
        "largest_difference": float(apart.max()),
        "start_s": round(ready - began, 2),
        "parts_per_second": round(len(daemon) / seconds, 1),
        "requests_at_once": at_once,
    }


@click.command(epilog="\b\nExample:\n  python -m benchmarks.triton build/demo")
@click.argument("folder", type=click.Path(path_type=Path), default=Path("build/demo"))
@click.option("--at-once", default=8, show_default=True, type=click.IntRange(1, 64), help="Requests at once.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(folder: Path, at_once: int, as_json: bool) -> None:
    """Compare a Triton server with the daemon on what `make demo` left in FOLDER; exit code 1 where they differ."""
    try:
        result = parity(folder, at_once)
    except InputError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    emit(result, as_json, key_values(str(OUT), result))
    sys.exit(result["same_decision"] != result["parts"])


if __name__ == "__main__":
    main()
