"""What this machine has and lacks for running a station, each lack with its remedy."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from appliance.config import Station
from appliance.daemon import choose_bundle, fitted
from appliance.engines.protocol import GPU_KINDS, missing
from appliance.ring import Ring
from calibration.errors import InputError

FREE_BYTES = 2**30
SQLITE = (3, 35, 0)


class Mark(str, Enum):
    """MISSING: the appliance cannot run. ABSENT: something it could use, and does not need."""

    OK = "ok"
    MISSING = "missing"
    ABSENT = "absent"


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what was found, and what to do where that is not enough."""

    name: str
    mark: Mark
    found: str
    remedy: str = ""


def examine(station: Station | None = None) -> list[Finding]:
    """Look at the machine, and at a station's own files where one is given."""
    checks: list[Callable[[], Iterator[Finding]]] = [_machine, _engines, _gpu, _cameras, _service]
    findings = [finding for check in checks for finding in check()]
    if station is not None:
        findings += _station(station)
    return findings


def _need(name: str, good: bool, found: str, remedy: str) -> Finding:
    return Finding(name, Mark.OK if good else Mark.MISSING, found, "" if good else remedy)


def _want(name: str, good: bool, found: str, remedy: str) -> Finding:
    return Finding(name, Mark.OK if good else Mark.ABSENT, found, "" if good else remedy)


def _machine() -> Iterator[Finding]:
    version = sys.version_info
    yield _need("python", version >= (3, 10), sys.version.split()[0], "install Python 3.10 or newer")
    cores = len(os.sched_getaffinity(0))
    yield _want("cores", cores >= 2, f"{cores} usable", "one core serves camera and engine in turns; give it two")
    memory = _available_memory()
    yield _need("memory", memory >= 2**29, f"{memory / 2**30:.1f} GiB available", "free at least 0.5 GiB")
    try:
        Ring.create(4, (3, 512, 512)).close()
        yield Finding("shared memory", Mark.OK, "anonymous shared memory works")
    except (InputError, OSError, AttributeError) as error:
        yield _need("shared memory", False, str(error), "a Linux kernel 4.14 or newer with memfd_create is needed")
    pidfd = hasattr(os, "pidfd_open")
    yield _need("process descriptors", pidfd, "pidfd_open" if pidfd else "none", "Linux 5.3 or newer is needed")
    yield _need(
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
        yield _need("onnxruntime", False, "not installed", "pip install 'lineguard[cpu]'")
    else:
        from appliance.engines.onnx_cpu import providers

        names = providers()
        yield _need("onnxruntime", "CPUExecutionProvider" in names, ", ".join(names), "reinstall onnxruntime")
    yield _package("openvino", "openvino", "often the faster engine on a CPU: pip install 'lineguard[openvino]'")


def _gpu() -> Iterator[Finding]:
    present = Path("/dev/nvidiactl").exists() or Path("/dev/nvhost-ctrl").exists()
    yield _want("nvidia device", present, "driver loaded" if present else "none", "judging runs on the CPU without one")
    hint = "only for NVIDIA devices: pip install 'lineguard[gpu]'"
    for name in ("tensorrt", "pycuda"):
        yield _package(name, name, hint)
    for kind in GPU_KINDS:
        lack = missing(kind)
        yield _want(
            f"engine {kind}", present and not lack, lack or "installed", "see the line before" if lack else hint
        )
    yield _package("tensorrt_rtx", "tensorrt_rtx_bindings", "builds plans without a GPU: pip install 'lineguard[rtx]'")


def _package(name: str, module: str, remedy: str) -> Finding:
    if importlib.util.find_spec(name) is None and importlib.util.find_spec(module) is None:
        return Finding(name, Mark.ABSENT, "not installed", remedy)
    try:
        return Finding(name, Mark.OK, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, Mark.OK, "installed")


def _cameras() -> Iterator[Finding]:
    devices = sorted(Path("/dev").glob("video*"))
    closed = [device for device in devices if not os.access(device, os.R_OK | os.W_OK)]
    names = ", ".join(device.name for device in devices) or "none"
    remedy = f"add the user to the group of {closed[0]}" if closed else "replaying recorded frames needs none"
    yield _want("cameras", bool(devices) and not closed, names, remedy)


def _service() -> Iterator[Finding]:
    booted = Path("/run/systemd/system").is_dir()
    found = "running" if booted else "installed" if shutil.which("systemctl") else "none"
    yield _want("systemd", booted, found, "without it nothing restarts the station after a crash or a reboot")


def _station(station: Station) -> Iterator[Finding]:
    data = station.station.data
    place = next(path for path in (data, *data.parents) if path.exists())
    writable = os.access(place, os.W_OK | os.X_OK)
    yield _need("data directory", writable, str(data), f"let user {os.getuid()} write to {place}")
    free = shutil.disk_usage(place).free
    yield _need("disk", free >= FREE_BYTES, f"{free / 2**30:.1f} GiB free", f"free 1 GiB on the disk of {place}")
    try:
        bundle = choose_bundle(station.station.bundle, repair=False).bundle
        yield Finding("bundle", Mark.OK, f"{bundle.manifest.name} ({bundle.sha256[:12]})")
        fitted(station, bundle)
        yield Finding("sources", Mark.OK, ", ".join(station.camera))
    except InputError as error:
        yield Finding("station", Mark.MISSING, str(error), "see the message")
