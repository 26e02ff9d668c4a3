"""Replaying video files, and image files that are damaged."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from appliance.sources import ShotError, open_source
from appliance.sources.replay import folder_source
from appliance.sources.video import VideoSource
from appliance.words import Reason
from calibration.errors import InputError
from tests.appliance.stations import make_station, run_json
from tests.support.tiny import part

PICTURES = 12


def picture(index: int) -> np.ndarray:
    """A part with a block whose grey level tells its number, whatever compression does to it."""
    frame = cv2.cvtColor(part(index, False), cv2.COLOR_GRAY2BGR)
    frame[:24, :24] = 20 * index
    return frame


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Motion JPEG of twelve pictures."""
    path = tmp_path / "parts.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25.0, (96, 64))
    assert writer.isOpened()
    for index in range(PICTURES):
        writer.write(picture(index))
    writer.release()
    return path


def level(frame: np.ndarray) -> int:
    """The number that a picture tells."""
    return round(float(frame[4:20, 4:20].mean()) / 20)


def numbers(source: VideoSource) -> list[int]:
    """What all pictures tell."""
    found = []
    while (shot := source.shoot()) is not None:
        found.append(level(shot.read()))
    return found


@pytest.mark.parametrize(
    ("loop", "count", "start", "expected"),
    [
        (False, None, 0, list(range(12))),
        (False, 5, 0, list(range(5))),
        (True, 15, 0, [*range(12), 0, 1, 2]),
        (False, None, 7, [7, 8, 9, 10, 11]),
        (True, 27, 23, [11, 0, 1, 2]),
    ],
)
def test_pictures_in_order(video: Path, loop: bool, count: int | None, start: int, expected: list[int]) -> None:
    """Once or in circles, and going on where a predecessor ended."""
    source = VideoSource(video, 0.0, loop, count, 1, start)
    assert numbers(source) == expected
    assert not source.live


def test_shots_that_are_not_read_are_passed_over(video: Path) -> None:
    """A trigger without room drops its own picture, not the next one's."""
    source = VideoSource(video, 0.0, False, None, 3, 0)
    shots = [source.shoot() for _ in range(PICTURES)]
    frame = shots[8].read()  # type: ignore[union-attr]
    assert (level(frame), frame.shape) == (8, (64, 96, 3))
    assert level(shots[3].read()) == 3  # type: ignore[union-attr]


def test_pictures_that_are_cut_off_are_rejects(video: Path) -> None:
    """The file announces twelve and holds fewer whole ones: each missing one is DECODE, none an earlier one again."""
    data = video.read_bytes()
    index = data.rindex(b"idx1")
    eighth = [at for at in range(data.index(b"movi"), len(data)) if data.startswith(b"00dc", at)][8]
    video.write_bytes(data[: eighth + 8] + bytes(index - eighth - 8) + data[index:])
    source = VideoSource(video, 0.0, False, None, 1, 0)
    found: list[object] = []
    while (shot := source.shoot()) is not None:
        try:
            found.append(level(shot.read()))
        except ShotError as error:
            found.append(error.reason)
    assert found == [*range(8), *[Reason.DECODE] * 4]


@pytest.mark.parametrize("content", [None, b"", b"no video", b"RIFF\0\0\0\0AVI LIST"])
def test_unusable_videos_are_refused(tmp_path: Path, content: bytes | None) -> None:
    """Missing, empty, or something else: a message that names the file."""
    path = tmp_path / "x.avi"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.avi"):
        open_source({"source": "video", "path": str(path), "fps": 0.0, "loop": False, "count": None}, 1)


def test_a_station_judges_a_video(tmp_path: Path, video: Path) -> None:
    """From station.toml to verdict rows."""
    config = make_station(tmp_path, 1)
    config.write_text(
        config.read_text().replace('source = "folder"\npath = "frames"', f'source = "video"\npath = "{video.name}"')
    )
    summary = run_json(config)
    assert summary["counts"]["triggers"] == PICTURES
    assert summary["counts"]["not_inspected"] == 0


def test_a_truncated_jpeg_is_never_filled_from_the_one_before(tmp_path: Path) -> None:
    """Cut at every length, after a whole picture of the same size: always DECODE."""
    black, white = np.full((64, 96), 10, np.uint8), np.full((64, 96), 240, np.uint8)
    (tmp_path / "0.jpg").write_bytes(cv2.imencode(".jpg", black)[1].tobytes())
    whole = cv2.imencode(".jpg", white)[1].tobytes()
    reasons: list[Reason] = []
    for length in range(1, len(whole) - 1, 3):
        (tmp_path / "1.jpg").write_bytes(whole[:length])
        source = folder_source(tmp_path, 0.0, False, None, 1, 0)
        first, second = source.shoot(), source.shoot()
        assert first is not None
        assert second is not None
        assert (first.read() < 20).all()
        with pytest.raises(ShotError) as caught:
            second.read()
        reasons.append(caught.value.reason)
    assert set(reasons) == {Reason.DECODE}
