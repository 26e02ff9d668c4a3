"""GigE Vision through Aravis against its fake camera on loopback."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from appliance.sources.aravis import AravisDriver, library
from appliance.sources.grabber import Grabber
from appliance.sources.live import LiveSource
from appliance.sources.protocol import ShotError
from appliance.words import Reason
from calibration.errors import InputError

FAKE = shutil.which("arv-fake-gv-camera-0.8")
try:
    library()
    ABSENT = ""
except InputError as error:
    ABSENT = str(error)
MISSING = ABSENT or ("" if FAKE else "needs aravis-tools, which has the fake camera")
needs_aravis = pytest.mark.skipif(bool(MISSING), reason=MISSING or "installed")


def start() -> subprocess.Popen[bytes]:
    """The fake camera, serial TEST01."""
    assert FAKE is not None
    return subprocess.Popen(
        [FAKE, "-i", "127.0.0.1", "-s", "TEST01"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@pytest.fixture
def camera() -> Iterator[list[subprocess.Popen[bytes]]]:
    """A running fake camera; what is put into the list is ended too."""
    running = [start()]
    time.sleep(0.3)
    yield running
    for process in running:
        process.kill()
        process.wait()


def source(serial: str = "TEST01", geometry: tuple[int, int] | None = None) -> LiveSource:
    """The camera as a source."""
    driver = AravisDriver("127.0.0.1", serial, geometry, 800.0, 1)
    return LiveSource(Grabber(driver), 10.0, 500 * 10**6, 0, geometry)


def reason(made: LiveSource, shape: tuple[int, ...] | None = None) -> Reason:
    """Why the shot of a trigger now fails; NONE where it does not."""
    shot = made.at(time.monotonic_ns())
    assert shot is not None
    try:
        frame = shot.read()
    except ShotError as error:
        return error.reason
    assert shape is None or frame.shape == shape
    return Reason.NONE


def until(good: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until `good()`."""
    deadline = time.monotonic() + seconds
    while not good():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@needs_aravis
def test_pictures_arrive_stop_and_come_back(camera: list[subprocess.Popen[bytes]]) -> None:
    """In the geometry asked for, other bytes each time; a stopped camera is NO_FRAME and trouble, a new one found."""
    made = source(geometry=(512, 512))
    until(lambda: reason(made, (512, 512)) is Reason.NONE)
    assert [reason(made, (512, 512)) for _ in range(5)] == [Reason.NONE] * 5
    camera[0].send_signal(signal.SIGSTOP)
    until(lambda: reason(made) is Reason.NO_FRAME, 4.0)
    until(lambda: made.trouble)
    camera[0].kill()
    camera[0].wait()
    camera.append(start())
    until(lambda: reason(made, (512, 512)) is Reason.NONE, 20.0)
    assert not made.trouble
    made.close()


@needs_aravis
def test_another_serial_is_refused(camera: list[subprocess.Popen[bytes]]) -> None:
    """Every part is rejected as CAMERA."""
    made = source("LINE-7")
    until(lambda: reason(made) is Reason.CAMERA)
    assert "TEST01" in made.trouble
    made.close()


@pytest.mark.skipif(not ABSENT, reason="Aravis is installed")
def test_without_aravis_the_remedy_is_said() -> None:
    """The packages by name."""
    with pytest.raises(InputError, match=r"gir1\.2-aravis-0\.8"):
        library()
