"""Live cameras behind the one protocol: the right picture for each trigger, and a driver that fails in every way."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from appliance.sources.grabber import KEEP, CameraError, Grabber, WrongCameraError
from appliance.sources.live import LiveSource
from appliance.sources.opencv import OpenCvDriver, with_channels, without_secret
from appliance.sources.protocol import ShotError
from appliance.sources.settings import Camera
from appliance.words import Reason
from calibration.preprocess import Frame
from tests.support.tiny import part

MS = 10**6
CAMERA: TypeAdapter[Camera] = TypeAdapter(Camera)


class Script:
    """A driver that gives what is put in: frames, or exceptions to be raised; it waits where nothing is there."""

    def __init__(self) -> None:
        self.todo: deque[Frame | Exception] = deque()
        self.opens: deque[Exception] = deque()
        self.opened = self.closed = 0
        self.stuck = threading.Event()
        self.stuck.set()

    def open(self) -> None:
        """See Driver.open."""
        self.opened += 1
        if self.opens:
            raise self.opens.popleft()

    def read(self) -> Frame:
        """See Driver.read."""
        until = time.monotonic() + 0.3
        while not self.todo:
            if time.monotonic() > until:
                raise CameraError("no picture in time")
            time.sleep(0.001)
        self.stuck.wait()
        what = self.todo.popleft()
        if isinstance(what, Exception):
            raise what
        return what

    def close(self) -> None:
        """See Driver.close."""
        self.closed += 1


@pytest.fixture
def script() -> Iterator[Script]:
    """A driver, let go at the end."""
    made = Script()
    yield made
    made.stuck.set()


def source(script: Script, fps: float = 10.0, **more: object) -> LiveSource:
    """A live camera with that driver; 200 ms for each picture."""
    return LiveSource(Grabber(script), fps, 200 * MS, **more)  # type: ignore[arg-type]


def until(good: Callable[[], object]) -> None:
    """Wait until `good()`."""
    deadline = time.monotonic() + 30
    while not good():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def reason(made: LiveSource, at_ns: int | None = None) -> Reason:
    """Why the shot of a trigger (now) fails; NONE where it does not."""
    shot = made.at(time.monotonic_ns() if at_ns is None else at_ns)
    assert shot is not None
    try:
        shot.read()
    except ShotError as error:
        return error.reason
    return Reason.NONE


def test_a_trigger_gets_the_first_picture_after_it(script: Script) -> None:
    """Not the one that was there before, and not a later one."""
    made = source(script)
    old, new, later = (part(i, False) for i in range(3))
    script.todo.append(old)
    made._grabber.start()
    until(lambda: made._grabber._pictures)
    shot = made.at(time.monotonic_ns())
    script.todo.extend([new, later])
    assert shot is not None
    assert (shot.read() == new).all()
    made.close()


def test_an_old_picture_is_no_picture(script: Script) -> None:
    """The camera stands still after a picture: the next trigger is NO_FRAME within its time, and says why."""
    made = source(script)
    script.todo.append(part(0, False))
    made._grabber.start()
    until(lambda: made._grabber._pictures)
    began = time.monotonic()
    assert reason(made) is Reason.NO_FRAME
    assert 0.19 < time.monotonic() - began < 1.0
    made.close()


def test_a_picture_that_was_overwritten_is_stale(script: Script) -> None:
    """More pictures came after the trigger than are kept: which was the first is no longer known."""
    made = source(script)
    before = time.monotonic_ns()
    script.todo.extend(part(i, False) for i in range(KEEP + 1))
    made._grabber.start()
    until(lambda: made._grabber._dropped_ns)
    assert reason(made, before) is Reason.STALE
    made.close()


def test_a_picture_exposed_before_its_trigger_is_not_taken(script: Script) -> None:
    """With latency_ms, what arrives sooner after the trigger belongs to the time before it."""
    made = source(script, latency_ns=100 * MS)
    made._grabber.start()
    shot = made.at(time.monotonic_ns())
    script.todo.append(part(0, False))
    until(lambda: made._grabber._pictures)
    threading.Timer(0.15, script.todo.append, [part(1, False)]).start()
    assert shot is not None
    assert (shot.read() == part(1, False)).all()
    made.close()


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (ShotError(Reason.TORN, "packets missing"), Reason.TORN),
        (ShotError(Reason.DECODE, "half a JPEG"), Reason.DECODE),
        (ShotError(Reason.FORMAT, "float32"), Reason.FORMAT),
        (np.full((64, 96), 90, np.uint8), Reason.BAD_IMAGE),
        (np.zeros((10, 10), np.uint8), Reason.FORMAT),
        (CameraError("unplugged"), Reason.NO_FRAME),
        (RuntimeError("a bug of the driver"), Reason.NO_FRAME),
    ],
    ids=["torn", "decode", "type", "uniform", "geometry", "unplugged", "bug"],
)
def test_each_fault_of_a_picture_has_its_reason(script: Script, fault: Frame | Exception, expected: Reason) -> None:
    """And the next picture is good again, whatever was wrong with this one: no earlier one is used in its place."""
    made = source(script, geometry=(96, 64), min_contrast=2.0)
    shot = made.at(time.monotonic_ns())
    script.todo.append(fault)
    assert shot is not None
    with pytest.raises(ShotError) as caught:
        shot.read()
    assert caught.value.reason is expected
    until(lambda: not made.trouble)
    shot = made.at(time.monotonic_ns())
    script.todo.append(part(5, False))
    assert shot is not None
    assert (shot.read() == part(5, False)).all()
    made.close()


def test_a_lost_camera_is_opened_again_for_ever(script: Script) -> None:
    """Each failure closes it; it comes back by itself, and until then says what is wrong."""
    made = source(script)
    script.opens.extend(CameraError(f"no camera {i}") for i in range(3))
    made._grabber.start()
    until(lambda: "no camera 0" in made.trouble)
    assert reason(made) is Reason.NO_FRAME
    until(lambda: script.opened == 4)
    assert script.closed == 3
    until(lambda: not made.trouble)
    made.close()
    assert script.closed >= 4


def test_another_camera_is_refused(script: Script) -> None:
    """Its pictures are nobody's: every part is rejected at once, until the right one is back."""
    made = source(script)
    script.opens.append(WrongCameraError("its serial is 'B', not 'A'"))
    made._grabber.start()
    until(lambda: made._grabber._refusal)
    began = time.monotonic()
    assert reason(made) is Reason.CAMERA
    assert time.monotonic() - began < 0.19  # nobody waits for a picture
    until(lambda: not made.trouble)
    script.todo.append(part(1, False))
    shot = made.at(time.monotonic_ns())
    script.todo.append(part(2, False))
    assert shot is not None
    shot.read()
    made.close()


def test_a_stuck_driver_is_told_from_a_slow_one(script: Script) -> None:
    """In one call for longer than its limit: it hangs. The main loop goes on rejecting meanwhile."""
    made = source(script, hang_ns=250 * MS)
    script.stuck.clear()
    script.todo.append(part(0, False))
    made._grabber.start()
    assert not made.hangs
    assert reason(made) is Reason.NO_FRAME
    until(lambda: made.hangs)
    script.stuck.set()
    until(lambda: not made.hangs)
    made.close()


def test_a_free_camera_triggers_by_its_pictures(script: Script) -> None:
    """Each picture is one trigger, of its own time; pictures that came and went unasked show as one that is STALE."""
    made = source(script, fps=0.0)
    assert made.triggered() is None
    frames = [part(i, False) for i in range(2)]
    made._grabber.start()
    for frame in frames:
        script.todo.append(frame)
        until(lambda: made.triggered() is not None)
        due = made.triggered()
        assert due is not None
        shot = made.at(due.at_ns)
        assert shot is not None
        assert (shot.read() == frame).all()
        assert made.triggered() is None
    script.todo.extend(part(i, False) for i in range(2, 5 + KEEP))
    until(lambda: not script.todo)
    time.sleep(0.02)
    due = made.triggered()
    assert due is not None
    assert reason(made, due.at_ns) is Reason.STALE
    made.close()


def test_a_count_ends_it(script: Script) -> None:
    """After so many triggers there are no more."""
    made = source(script, count=1)
    assert made.at(0) is not None
    assert made.at(1) is None
    made.close()


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_become_grey_or_colour(shape: tuple[int, ...], channels: int) -> None:
    """As many channels as the bundle judges."""
    found = with_channels(np.full(shape, 7, np.uint8), channels)
    assert found.shape == ((4, 5) if channels == 1 else (4, 5, 3))
    assert (found == 7).all()


@pytest.mark.parametrize("picture", [np.zeros((4, 5), np.float32), np.full((4, 5), np.nan), np.zeros((4, 5), np.uint16),
                                     np.zeros((4, 5, 4), np.uint8), np.zeros(9, np.uint8)])  # fmt: skip
def test_other_types_are_no_pictures(picture: Frame) -> None:
    """Floats (and so NaN), 16 bits, four channels: FORMAT, never converted to fit."""
    with pytest.raises(ShotError) as caught:
        with_channels(picture, 1)
    assert caught.value.reason is Reason.FORMAT


def test_secrets_are_not_told() -> None:
    """User and password of a URL are in no message."""
    assert without_secret("rtsp://admin:pa:ss@10.0.0.1/live") == "rtsp://10.0.0.1/live"
    assert without_secret("rtsp://10.0.0.1/live") == "rtsp://10.0.0.1/live"
    driver = OpenCvDriver("nowhere://u:p@x", 1900, [], 1, without_secret("nowhere://u:p@x"))
    with pytest.raises(CameraError) as caught:
        driver.open()
    assert "u:p" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ({"source": "rtsp", "url": "http://x"}, "rtsp"),
        ({"source": "rtsp", "url": "rtsp://x/1", "width": 5}, "together"),
        ({"source": "aravis", "trigger": "software", "fps": 5.0}, "leave it out"),
        ({"source": "v4l2", "listen": "ipc:///tmp/x"}, "listen"),
        ({"source": "aravis", "serial": "A"}, "serial"),
    ],
)
def test_wrong_sections_are_refused(section: dict[str, object], text: str) -> None:
    """Each with what is wrong."""
    with pytest.raises(ValidationError, match=text):
        CAMERA.validate_python(section)
