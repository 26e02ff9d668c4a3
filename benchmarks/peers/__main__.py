"""The daemon beside general model servers: same model, same raw frames, same run, ONNX Runtime without spinning.

Each peer gets a frame as bytes over loopback HTTP, preprocesses it as the appliance does, and answers with logits: no
verdict, no database, no camera. Its CPU seconds are those of its own processes; the client's are not counted. The
daemon's are those of everything it runs. They are measured in turns, several times; ratios are taken round by round
to the bare loop of benchmarks/throughput.py.

    python -m benchmarks.peers --bundle build/demo/demo.lgb --json

Peers live in virtual environments of their own under build/peers, made from the pinned requirements beside this file.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.lines import (
    RAW_FRAMES,
    ROOT,
    Measure,
    Spread,
    cpu_seconds,
    make_station,
    measure_bare,
    measure_daemon,
    raw_bundle,
    raw_frames,
)
from benchmarks.peers.ports import free_port
from calibration.cli_support import emit, progress
from calibration.errors import InputError
from deploy.bundle import open_bundle

HERE = Path(__file__).resolve().parent
VENVS = ROOT / "build" / "peers"
START_S = 60.0
LEAD_S = 1.5
"""The load runs so long before anything is counted."""


class PeerError(InputError):
    """This peer does not run here; the others may."""


@dataclass(frozen=True)
class Peer:
    """A server: its name, its requirements file, and where it says that it is ready."""

    name: str
    requirements: str
    ready: str

    def python(self) -> Path:
        """The interpreter of its environment, which is made when missing. Raises PeerError."""
        folder = VENVS / Path(self.requirements).stem
        python, stamp = folder / "bin" / "python", folder / "installed"
        wanted = (HERE / self.requirements).read_text(encoding="utf-8")
        if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
            return python
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for step in ([sys.executable, "-m", "venv", str(folder)], [*command, "-r", str(HERE / self.requirements)]):
            done = subprocess.run(step, capture_output=True, text=True, check=False)
            if done.returncode:
                raise PeerError(f"{self.name}: cannot be installed: {_last_line(done.stderr)}")
        stamp.write_text(wanted, encoding="utf-8")
        return python


PEERS = (
    Peer("fastapi", "requirements.txt", "/openapi.json"),
    Peer("litserve", "requirements.txt", "/health"),
    Peer("pytriton", "requirements-pytriton.txt", "/v2/models/parts/ready"),
)


@contextmanager
def serving(peer: Peer, directory: Path) -> Iterator[tuple[psutil.Process, int]]:
    """The peer, ready on a port. Every process that it has started is ended afterwards, by its id."""
    port, log = free_port(), directory / f"{peer.name}.log"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": str(directory)}
    command = [str(peer.python()), str(HERE / f"serve_{peer.name}.py"), str(directory), str(port)]
    with log.open("wb") as out:
        server = psutil.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=directory)
    family: dict[int, psutil.Process] = {server.pid: server}
    try:
        until = time.monotonic() + START_S
        while not _ready(port, peer.ready):
            _follow(server, family)
            if server.poll() is not None or time.monotonic() > until:
                raise PeerError(f"{peer.name} does not start: {_last_error(log.read_text(errors='replace'))}")
            time.sleep(0.2)
        yield server, port
    finally:
        _follow(server, family)
        _end(family)


def _follow(server: psutil.Process, family: dict[int, psutil.Process]) -> None:
    """Remember the children: some servers leave them behind."""
    if server.is_running():
        family.update({child.pid: child for child in server.children(recursive=True)})


def _end(family: dict[int, psutil.Process]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in family.values():
            if process.is_running():
                process.send_signal(number)
        _, alive = psutil.wait_procs(list(family.values()), timeout=5)
        family = {process.pid: process for process in alive}


def _ready(port: int, path: str) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")


def _last_error(text: str) -> str:
    """The lines of a log that name errors, each once; else the last line."""
    named = [line.strip() for line in text.splitlines() if re.match(r"\w+(Error|Exception): ", line)]
    return "; ".join(dict.fromkeys(named))[:500] if named else _last_line(text)


def measure_peer(peer: Peer, directory: Path, seconds: float) -> Measure:
    """Its images, CPU seconds and memory under load. Raises PeerError."""
    with serving(peer, directory) as (server, port):
        start = time.monotonic() + LEAD_S
        client = [sys.executable, str(HERE / "client.py"), peer.name, str(port), str(directory)]
        load = subprocess.Popen([*client, str(start), str(seconds)], stdout=subprocess.PIPE)
        time.sleep(max(0.0, start - time.monotonic()))
        tree = [server, *server.children(recursive=True)]
        before = sum(cpu_seconds(process.pid) for process in tree)
        time.sleep(max(0.0, start + seconds - time.monotonic()))
        spent = sum(cpu_seconds(process.pid) for process in tree) - before
        memory = sum(process.memory_full_info().pss for process in tree) / 2**20
        out, _ = load.communicate(timeout=120)
        if load.returncode:
            raise PeerError(f"{peer.name}: its client failed")
    return Measure(json.loads(out), spent, seconds, memory, 0)


def lay_out(directory: Path, bundle: Path, height: int, width: int) -> Path:
    """Model, preprocessing and frames for everybody; returns the daemon's station.toml."""
    raw_bundle(bundle, directory / "raw.lgb", height, width)
    opened = open_bundle(directory / "raw.lgb")
    spec = opened.manifest.preprocess
    (directory / "model.onnx").write_bytes(opened.model("cpu"))
    (directory / "spec.json").write_text(json.dumps(spec.to_json()))
    np.save(directory / "frames.npy", raw_frames(RAW_FRAMES, height, width, spec.channels), allow_pickle=False)
    return directory / "raw.lgb"


def compare(bundle: Path, size: tuple[int, int], rounds: int, seconds: float) -> dict[str, Any]:
    """Everybody in turns. Peers that do not run here are left out, with the reason."""
    found: dict[str, list[Measure]] = {name: [] for name in ("bare", "daemon", *(peer.name for peer in PEERS))}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="lineguard-peers-") as name, progress("rounds") as report:
        directory = Path(name)
        raw = lay_out(directory, bundle, *size)
        for index in range(rounds):
            place = directory / str(index)
            config = make_station(place, raw, "raw", directory / "frames.npy", "onnxruntime", 8)
            found["bare"].append(measure_bare(config, seconds))
            found["daemon"].append(measure_daemon(config, seconds))
            for peer in PEERS:
                if peer.name in failed:
                    continue
                try:
                    found[peer.name].append(measure_peer(peer, directory, seconds))
                except PeerError as error:
                    failed[peer.name] = str(error)
            report(index + 1, rounds)
    figures = {name: _figures(runs, found["bare"]) for name, runs in found.items() if len(runs) == rounds}
    return {"frames": f"raw {size[1]}x{size[0]}", "rounds": rounds, "figures": figures, "not_measured": failed}


def _figures(runs: list[Measure], bare: list[Measure]) -> dict[str, Any]:
    return {
        "ratio_per_cpu_second": Spread.of(
            [a.per_cpu_second / b.per_cpu_second for a, b in zip(runs, bare, strict=True)]
        ).__dict__,
        "images_per_cpu_second": Spread.of([run.per_cpu_second for run in runs]).__dict__,
        "images_per_second": Spread.of([run.per_second for run in runs]).__dict__,
        "memory_mib": Spread.of([run.memory_mib for run in runs]).__dict__,
    }


@click.command(epilog="\b\nExample:\n  python -m benchmarks.peers --bundle build/demo/demo.lgb --json")
@click.option("--bundle", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option("--size", default="1280x1024", show_default=True, help="WIDTHxHEIGHT of the raw frames.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 100))
@click.option("--seconds", default=5.0, show_default=True, type=click.FloatRange(1.0, 600.0), help="Each measurement.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def main(bundle: Path, size: str, rounds: int, seconds: float, as_json: bool) -> None:
    """Measure LitServe, FastAPI and PyTriton beside the daemon."""
    width, _, height = size.partition("x")
    try:
        result = compare(bundle, (int(height), int(width)), rounds, seconds)
    except (InputError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        emit(result, True)
        return
    shown = Table(title=f"Images per CPU-second against the bare loop, {result['frames']}", title_justify="left")
    for column in ("", "ratio [quartiles]", "images per CPU-second", "images per second", "memory, MiB"):
        shown.add_column(column)
    for name, figures in result["figures"].items():
        shown.add_row(name, *(str(Spread(**spread)) for spread in figures.values()))
    shown.caption = "\n".join(f"not measured: {reason}" for reason in result["not_measured"].values())
    Console().print(shown)


if __name__ == "__main__":
    main()
