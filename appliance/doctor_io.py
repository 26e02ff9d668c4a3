"""What this machine has and lacks for cameras, triggers and outputs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from appliance.config import Station
from appliance.findings import Finding, need, package, want
from appliance.outputs.settings import MqttOutput, NoOutput, RelayOutput
from appliance.paths import StationPaths
from appliance.sources.keys import load_keys
from appliance.sources.settings import LiveCamera, V4l2Camera
from calibration.errors import InputError


def cameras() -> Iterator[Finding]:
    """Devices and libraries that sources can use."""
    devices = sorted(Path("/dev").glob("video*"))
    closed = [device for device in devices if not os.access(device, os.R_OK | os.W_OK)]
    names = ", ".join(device.name for device in devices) or "none"
    remedy = f"add the user to the group of {closed[0]}" if closed else "only for cameras of the kind v4l2"
    yield want("v4l2 devices", bool(devices) and not closed, names, remedy)
    backends = video_backends()
    yield want(
        "video and rtsp", "FFMPEG" in backends, ", ".join(backends) or "none", "reinstall opencv-python-headless"
    )
    try:
        from appliance.sources.aravis import library

        library()
        yield Finding.ok("aravis", "installed")
    except InputError as error:
        yield want("aravis", False, "not installed", f"only for GigE Vision cameras: {str(error).partition(': ')[2]}")


def video_backends() -> list[str]:
    """How OpenCV can read cameras and videos here."""
    import cv2

    registry = cv2.videoio_registry
    return [registry.getBackendName(backend) for backend in registry.getStreamBackends()]


def outputs() -> Iterator[Finding]:
    """Libraries that outputs can use."""
    hint = "only for this output: pip install 'lineguard[io]'"
    yield package("pymodbus", "pymodbus", hint)
    yield package("paho-mqtt", "paho", hint)


def station_io(station: Station) -> Iterator[Finding]:
    """A station's own cameras, keys and output."""
    for name, camera in station.camera.items():
        if isinstance(camera, LiveCamera) and camera.trigger == "message":
            try:
                keys = load_keys(camera.keys)
                yield Finding.ok(f"keys of {name}", f"{len(keys.clients)} may trigger on {camera.listen}")
            except InputError as error:
                yield need(f"keys of {name}", False, str(error), "see the message")
        if isinstance(camera, V4l2Camera):
            there = os.access(camera.path, os.R_OK | os.W_OK)
            yield need(f"camera {name}", there, str(camera.path), "connect it, and let this user read and write it")
    yield from _output(station)


def _output(station: Station) -> Iterator[Finding]:
    output = station.output
    if isinstance(output, NoOutput):
        yield want("output", False, "none: PASS is only counted", "set [output] in station.toml to let parts pass")
    elif isinstance(output, RelayOutput):
        path = StationPaths.of(station.station.data).relay
        yield want("output", path.is_socket(), f"simulated relay on {path}", "start it with `appliance relay`")
    else:
        from appliance.outputs import open_output

        try:
            open_output(output, list(station.camera), StationPaths.of(station.station.data))
            secured = " (no TLS)" if isinstance(output, MqttOutput) and output.ca is None else ""
            yield Finding.ok("output", f"{output.kind} {output.host}:{output.port}{secured}")
        except InputError as error:
            yield need("output", False, str(error), "see the message")
