"""RTSP from a real server on loopback: GStreamer's, in a process of its own under the system's Python."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from appliance.sources.grabber import CameraError, Grabber
from appliance.sources.live import LiveSource
from appliance.sources.opencv import OPTIONS_KEY, rtsp_driver
from appliance.sources.protocol import ShotError
from appliance.words import Reason

SYSTEM_PYTHON = "/usr/bin/python3"
SERVER = """
import gi, sys
gi.require_version("Gst", "1.0"); gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer(); server.set_address("127.0.0.1"); server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch("( videotestsrc pattern=ball is-live=true ! video/x-raw,width=320,height=240,framerate=25/1 "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 "
    "! rtph264pay name=pay0 pt=96 config-interval=1 )")
factory.set_shared(True); server.get_mount_points().add_factory("/cam", factory); server.attach(None)
print(server.get_bound_port(), flush=True); GLib.MainLoop().run()
"""


def start(port: str = "0") -> tuple[subprocess.Popen[str], int]:
    """A server and its port; skips where GStreamer is not installed."""
    try:
        process = subprocess.Popen(
            [SYSTEM_PYTHON, "-c", SERVER, port], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    except OSError:
        pytest.skip(f"needs {SYSTEM_PYTHON}")
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.strip():
        trouble = process.communicate()[1]
        pytest.skip(f"needs gir1.2-gst-rtsp-server-1.0 and gstreamer1.0-plugins-ugly: {trouble.strip()[-100:]}")
    return process, int(line)


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A stream of 25 pictures a second."""
    process, port = start()
    yield process, port
    process.kill()
    process.communicate()


def until(good: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until `good()`."""
    deadline = time.monotonic() + seconds
    while not good():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_stream_is_read_frozen_noticed_and_found_again(server: tuple[subprocess.Popen[str], int]) -> None:
    """Pictures arrive for triggers; when the server freezes parts are rejected at once and the camera is opened anew
    after its time-out; when another server takes its place, pictures come again."""
    process, port = server
    source = LiveSource(
        Grabber(rtsp_driver(f"rtsp://127.0.0.1:{port}/cam", 1500.0, 1)), 25.0, 400 * 10**6, 0, (320, 240)
    )

    def reason() -> Reason:
        shot = source.at(time.monotonic_ns())
        assert shot is not None
        try:
            assert shot.read().shape == (240, 320)
        except ShotError as error:
            return error.reason
        return Reason.NONE

    until(lambda: reason() is Reason.NONE)
    assert [reason() for _ in range(10)] == [Reason.NONE] * 10
    process.send_signal(19)  # SIGSTOP: no error, no picture
    until(lambda: reason() is Reason.NO_FRAME, 3.0)
    until(lambda: source.trouble, 10.0)
    process.kill()
    process.wait()
    other, _ = start(str(port))
    try:
        until(lambda: reason() is Reason.NONE, 15.0)
    finally:
        source.close()
        other.kill()
        other.communicate()


def test_a_stream_that_is_not_there() -> None:
    """Nobody listens: said in time, without user and password."""
    driver = rtsp_driver("rtsp://user:secret@127.0.0.1:1/cam", 1000.0, 1)
    began = time.monotonic()
    with pytest.raises(CameraError, match=r"rtsp://127.0.0.1:1/cam: cannot be opened"):
        driver.open()
    assert time.monotonic() - began < 3
    driver.close()


def test_options_of_a_stream_are_gone_once_it_was_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A video file opened later in the same process is read without them; an operator's own stay."""
    for own in (None, "rtsp_transport;udp"):
        if own is not None:
            monkeypatch.setenv(OPTIONS_KEY, own)
        with pytest.raises(CameraError):
            rtsp_driver("rtsp://127.0.0.1:1/cam", 1000.0, 1).open()
        assert os.environ.get(OPTIONS_KEY) == own
