"""What this machine has and lacks for running a station, each lack with its remedy."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from appliance.config import Station
from appliance.daemon import choose_bundle, fitted
from appliance.doctor_io import cameras, outputs, station_io
from appliance.engines.protocol import GPU_KINDS, missing
from appliance.findings import Finding, Mark, need, package, want
from appliance.ring import Ring
from calibration.errors import InputError

FREE_BYTES = 2**30
SQLITE = (3, 35, 0)

RTX_CAPABILITIES = ("8.0", "8.6", "8.9", "12.0", "12.1")
"""What TensorRT-RTX 1.7 runs on, by its own error message on another; and on later ones."""

__all__ = ["Finding", "Mark", "examine"]


def examine(station: Station | None = None) -> list[Finding]:
    """Look at the machine, and at a station's own files where one is given."""
    checks: list[Callable[[], Iterator[Finding]]] = [_machine, _engines, _gpu, cameras, outputs, _service]
    findings = [finding for check in checks for finding in check()]
    if station is not None:
        findings += [*_station(station), *station_io(station)]
    return findings


def _machine() -> Iterator[Finding]:
    version = sys.version_info
    yield need("python", version >= (3, 10), sys.version.split()[0], "install Python 3.10 or newer")
    cores = len(os.sched_getaffinity(0))
    yield want("cores", cores >= 2, f"{cores} usable", "one core serves camera and engine in turns; give it two")
    memory = _available_memory()
    yield need("memory", memory >= 2**29, f"{memory / 2**30:.1f} GiB available", "free at least 0.5 GiB")
    try:
        Ring.create(4, (3, 512, 512)).close()
        yield Finding("shared memory", Mark.OK, "anonymous shared memory works")
    except (InputError, OSError, AttributeError) as error:
        yield need("shared memory", False, str(error), "a Linux kernel 4.14 or newer with memfd_create is needed")
    pidfd = hasattr(os, "pidfd_open")
    yield need("process descriptors", pidfd, "pidfd_open" if pidfd else "none", "Linux 5.3 or newer is needed")
    yield need(
        "sqlite", sqlite3.sqlite_version_info >= SQLITE, sqlite3.sqlite_version, "SQLite 3.35 or newer is needed"
    )


def _available_memory() -> int:
    """Bytes that can be had without swapping."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _engines() -> Iterator[Finding]:
    if importlib.util.find_spec("onnxruntime") is None:
        yield need("onnxruntime", False, "not installed", "pip install 'lineguard[cpu]'")
    else:
        from appliance.engines.onnx_cpu import providers

        names = providers()
        yield need("onnxruntime", "CPUExecutionProvider" in names, ", ".join(names), "reinstall onnxruntime")
    yield package("openvino", "openvino", "often the faster engine on a CPU: pip install 'lineguard[openvino]'")


def _gpu() -> Iterator[Finding]:
    present = Path("/dev/nvidiactl").exists() or Path("/dev/nvhost-ctrl").exists()
    yield want("nvidia device", present, "driver loaded" if present else "none", "judging runs on the CPU without one")
    hint = "only for NVIDIA devices: pip install 'lineguard[gpu]'"
    for name in ("tensorrt", "pycuda"):
        yield package(name, name, hint)
    for kind in GPU_KINDS:
        lack = missing(kind)
        yield want(f"engine {kind}", present and not lack, lack or "installed", "see the line before" if lack else hint)
    rtx = package("tensorrt_rtx", "tensorrt_rtx_bindings", "builds plans without a GPU: pip install 'lineguard[rtx]'")
    yield rtx
    if rtx.mark is Mark.OK and (gpu := _first_gpu()):
        name, capability = gpu
        knows = capability in RTX_CAPABILITIES or float(capability) > float(RTX_CAPABILITIES[-1])
        remedy = "TensorRT-RTX does not run on it: pip install 'lineguard[gpu]', or kind = \"onnxruntime-cuda\""
        yield want("tensorrt_rtx on this GPU", knows, f"{name}, compute capability {capability}", remedy)


def _first_gpu() -> tuple[str, str] | None:
    """Name and compute capability of the first GPU, such as ("NVIDIA H200", "9.0"), as its driver's tool says."""
    query = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    name, _, capability = (said.splitlines() or [""])[0].rpartition(", ")
    return (name, capability) if re.fullmatch(r"\d+\.\d+", capability) else None


def _service() -> Iterator[Finding]:
    booted = Path("/run/systemd/system").is_dir()
    found = "running" if booted else "installed" if shutil.which("systemctl") else "none"
    yield want("systemd", booted, found, "without it nothing restarts the station after a crash or a reboot")


def _station(station: Station) -> Iterator[Finding]:
    data = station.station.data
    place = next(path for path in (data, *data.parents) if path.exists())
    writable = os.access(place, os.W_OK | os.X_OK)
    yield need("data directory", writable, str(data), f"let user {os.getuid()} write to {place}")
    free = shutil.disk_usage(place).free
    yield need("disk", free >= FREE_BYTES, f"{free / 2**30:.1f} GiB free", f"free 1 GiB on the disk of {place}")
    try:
        bundle = choose_bundle(station.station.bundle, repair=False).bundle
        yield Finding("bundle", Mark.OK, f"{bundle.manifest.name} ({bundle.sha256[:12]})")
        fitted(station, bundle)
        yield Finding("sources", Mark.OK, ", ".join(station.camera))
    except InputError as error:
        yield Finding("station", Mark.MISSING, str(error), "see the message")
