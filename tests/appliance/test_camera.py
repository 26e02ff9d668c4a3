"""Sources, and the camera process's loop on a real socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from appliance.camera import CameraLoop, run_camera
from appliance.counting import PartCount
from appliance.ring import Ring, checksum
from appliance.sources import Shot, ShotError, open_source
from appliance.sources.checks import contrast, is_dead
from appliance.sources.replay import folder_source, raw_source
from appliance.wire import ALIVE, END, FRAME, HELLO, MISSED, STOP, FrameNote, MissNote, pack_credit, pack_json
from appliance.words import Reason
from calibration.errors import InputError
from calibration.preprocess import Frame
from tests.support.tiny import part, tiny_spec, write_parts


class LiveSource:
    """A live sensor that shows the given frames, then ends."""

    live = True

    def __init__(self, frames: list[Frame], fps: float = 0.0) -> None:
        self.fps = fps
        self._frames = iter(enumerate(frames))

    def shoot(self) -> Shot | None:
        """See Source.shoot."""
        index, frame = next(self._frames, (0, None))
        return None if frame is None else Shot(f"live-{index}", lambda: frame)


class Bench:
    """The supervisor's end of a camera's socket, and the ring between them."""

    def __init__(self, slots: int = 8) -> None:
        self.ring = Ring.create(slots, tiny_spec().shape)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.here = self._context.socket(zmq.PAIR)
        self.there = self._context.socket(zmq.PAIR)
        self.here.bind("inproc://camera")
        self.there.connect("inproc://camera")

    def run(self, source: LiveSource) -> threading.Thread:
        """Start the loop in a thread."""
        loop = CameraLoop(self.there, self.ring, tiny_spec(), source, PartCount(0))
        thread = threading.Thread(target=loop.run, daemon=True)
        thread.start()
        return thread

    def until_end(self) -> list[bytes]:
        """All messages up to END."""
        messages: list[bytes] = []
        while not messages or messages[-1][:1] != END:
            assert self.here.poll(5000), "the camera says nothing"
            messages += self.here.recv_multipart()
        return messages

    def close(self) -> None:
        """Give everything back."""
        self._context.destroy(linger=0)
        self.ring.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A bench with eight slots."""
    made = Bench()
    yield made
    made.close()


def notes(messages: list[bytes]) -> list[FrameNote | MissNote]:
    """The triggers among the messages."""
    kinds: dict[bytes, Callable[[bytes], FrameNote | MissNote]] = {FRAME: FrameNote.unpack, MISSED: MissNote.unpack}
    return [kinds[m[:1]](m) for m in messages if m[:1] in kinds]


def test_frames_land_in_the_ring_with_their_checksums(bench: Bench) -> None:
    """Each frame fills a slot it had credit for; checksum and pixels are those of the preprocessing."""
    frames = [part(i, scratched=False) for i in range(3)]
    thread = bench.run(LiveSource(frames))
    bench.here.send(pack_credit([5, 2, 7, 1]))
    messages = bench.until_end()
    thread.join(5)
    assert messages[0][:1] == HELLO
    found = notes(messages)
    assert [note.trigger for note in found] == [0, 1, 2]
    for note, frame, slot in zip(found, frames, [5, 2, 7], strict=True):
        assert isinstance(note, FrameNote)
        assert note.slot == slot
        assert note.crc == checksum(bench.ring.slot(slot))
        assert (bench.ring.slot(slot) == tiny_spec().apply(frame)).all()
        assert note.triggered_ns <= note.ready_ns <= time.monotonic_ns()


def test_a_live_camera_that_repeats_itself_is_stale(bench: Bench) -> None:
    """A byte-identical repeat of a live camera is FROZEN, also of an earlier picture; a changed one is good again."""
    one, two = part(1, False), part(2, False)
    bench.run(LiveSource([one, one, one, two, one]))
    bench.here.send(pack_credit(range(8)))
    found = notes(bench.until_end())
    reasons = [note.reason.value if isinstance(note, MissNote) else "" for note in found]
    assert reasons == ["", "FROZEN", "FROZEN", "", "FROZEN"]


def test_bad_frames_are_reported_and_cost_no_slot(bench: Bench) -> None:
    """Wrong size, wrong channels, black and white frames: their reasons, and the slot stays free."""
    black, white = np.zeros((64, 96), np.uint8), np.full((64, 96), 255, np.uint8)
    colour = np.zeros((64, 96, 3), np.uint8)
    bench.run(LiveSource([np.ones((8, 8), np.uint8), colour, black, white, part(3, False)]))
    bench.here.send(pack_credit([0, 1]))
    found = notes(bench.until_end())
    reasons = [note.reason for note in found if isinstance(note, MissNote)]
    assert reasons == [Reason.FORMAT, Reason.FORMAT, Reason.BAD_IMAGE, Reason.BAD_IMAGE]
    assert isinstance(found[-1], FrameNote)
    assert (found[-1].trigger, found[-1].slot) == (4, 0)


def test_without_credit_a_paced_camera_overflows(bench: Bench) -> None:
    """At a set rate triggers come whether there is room or not; the surplus is OVERFLOW, in order and on time."""
    started = time.monotonic_ns()
    bench.run(LiveSource([part(i, False) for i in range(6)], fps=100.0))
    bench.here.send(pack_credit([0, 1]))
    found = notes(bench.until_end())
    assert [note.trigger for note in found] == list(range(6))
    assert [isinstance(note, FrameNote) for note in found] == [True, True, False, False, False, False]
    assert {note.reason for note in found if isinstance(note, MissNote)} == {Reason.OVERFLOW}
    times = [note.triggered_ns for note in found]
    assert np.diff(times).tolist() == [10_000_000] * 5
    assert time.monotonic_ns() - started > 50_000_000


def test_without_credit_an_unpaced_camera_waits(bench: Bench) -> None:
    """As fast as they are judged: no credit, no trigger, no overflow."""
    bench.run(LiveSource([part(i, False) for i in range(3)]))
    bench.here.send(pack_credit([0]))
    seen: list[bytes] = []
    while not notes(seen):
        assert bench.here.poll(5000)
        seen += bench.here.recv_multipart()
    assert len(notes(seen)) == 1
    assert not bench.here.poll(50)
    bench.here.send(pack_credit([1, 2, 3]))
    assert len(notes(bench.until_end())) == 2


@pytest.mark.parametrize("fps", [0.0, 5.0])
def test_stop_is_obeyed_while_waiting(bench: Bench, fps: float) -> None:
    """A camera that waits, for credit or for its time, ends at once when told so."""
    thread = bench.run(LiveSource([part(i, False) for i in range(50)], fps=fps))
    bench.here.send(pack_credit([0]))
    bench.here.send(STOP)
    assert len(notes(bench.until_end())) <= 2
    thread.join(5)
    assert not thread.is_alive()


def test_the_process_entry_replays_a_folder(bench: Bench, tmp_path: Path) -> None:
    """What the worker process runs: settings as JSON would carry them, going on at `start`."""
    write_parts(tmp_path, 5)
    source = {"source": "folder", "path": str(tmp_path), "fps": 0.0, "loop": False, "count": None}
    settings = {
        "preprocess": tiny_spec().to_json(),
        "ring": bench.ring.descriptor,
        "slots": 8,
        "first": 0,
        "bundle": "",
        "source": source,
        "start": 3,
    }
    thread = threading.Thread(target=run_camera, args=(settings, bench.there), daemon=True)
    thread.start()
    bench.here.send(pack_credit(range(8)))
    found = notes(bench.until_end())
    thread.join(5)
    assert [note.trigger for note in found] == [3, 4]
    assert found[0].name == "part-00003-ok.png"


def test_dead_frames() -> None:
    """Wholly black or white is dead; one other pixel, or any other even grey, is not."""
    for level in (0, 255):
        frame = np.full((50, 70), level, np.uint8)
        assert is_dead(frame)
        frame[3, 5] = 100
        assert not is_dead(frame)
        assert is_dead(np.full((50, 70, 3), level, np.uint8))
    assert not is_dead(np.full((50, 70), 127, np.uint8))


def test_contrast() -> None:
    """None in one level, whatever level; noise of a few levels is little; a part is much."""
    assert contrast(np.full((64, 96), 120, np.uint8)) == 0.0
    noise = np.random.default_rng(0).normal(30, 1.0, (64, 96, 3)).round().astype(np.uint8)
    assert 0.5 < contrast(noise) < 1.6
    assert contrast(part(1, False)) > 4.0


def test_a_live_camera_says_that_it_lives(bench: Bench) -> None:
    """While it waits, for credit or for its time, a live camera goes on telling so; a replay says nothing."""
    thread = bench.run(LiveSource([part(0, False)]))
    assert bench.here.poll(3000)
    assert bench.here.recv()[:1] == HELLO
    for _ in range(3):
        assert bench.here.poll(2000)
        assert bench.here.recv() == pack_json(ALIVE, "")
    bench.here.send(STOP)
    thread.join(5)


def names(source: object) -> list[str]:
    """Names of all shots of a source."""
    found = []
    while (shot := source.shoot()) is not None:  # type: ignore[attr-defined]
        found.append(shot.name)
    return found


@pytest.mark.parametrize(
    ("loop", "count", "start", "expected"),
    [
        (False, None, 0, "012"),
        (False, 2, 0, "01"),
        (False, 9, 0, "012"),
        (True, 7, 0, "0120120"),
        (True, 7, 5, "20"),
        (False, None, 2, "2"),
        (False, None, 3, ""),
    ],
)
def test_replays_go_once_or_in_circles(
    tmp_path: Path, loop: bool, count: int | None, start: int, expected: str
) -> None:
    """Name order, loop, count, and going on where a predecessor ended."""
    write_parts(tmp_path, 3, every=9)
    source = folder_source(tmp_path, 0.0, loop, count, 1, start)
    assert not source.live
    assert "".join(name[len("part-0000")] for name in names(source)) == expected


def test_unreadable_files_are_shots_that_fail(tmp_path: Path) -> None:
    """A file that is no image is DECODE, one that vanished NO_FRAME; both keep their place in the order."""
    paths = write_parts(tmp_path, 3)
    source = folder_source(tmp_path, 0.0, False, None, 1, 0)
    paths[0].write_bytes(b"")
    paths[1].unlink()
    reasons = []
    for _ in range(2):
        shot = source.shoot()
        assert shot is not None
        with pytest.raises(ShotError) as caught:
            shot.read()
        reasons.append(caught.value.reason)
    assert reasons == [Reason.DECODE, Reason.NO_FRAME]
    shot = source.shoot()
    assert shot is not None
    assert shot.read().shape == (64, 96)


def test_subfolders_and_odd_names_are_found(tmp_path: Path) -> None:
    """Images below the folder are found by relative name; other files are not taken for images."""
    write_parts(tmp_path / "b", 1)
    write_parts(tmp_path / "a ü", 1)
    (tmp_path / "notes.txt").write_text("no image")
    assert names(folder_source(tmp_path, 0.0, False, None, 1, 0)) == ["a ü/part-00000-ok.png", "b/part-00000-ok.png"]


def test_raw_frames_come_unchanged(tmp_path: Path) -> None:
    """Frames of a .npy file, bit for bit."""
    frames = np.stack([part(i, False) for i in range(2)])
    np.save(tmp_path / "f.npy", frames)
    source = open_source(
        {"source": "raw", "path": str(tmp_path / "f.npy"), "fps": 0.0, "loop": False, "count": None}, 1
    )
    for frame in frames:
        shot = source.shoot()
        assert shot is not None
        assert (shot.read() == frame).all()


@pytest.mark.parametrize("content", [None, b"no array", np.zeros((3, 4), np.uint8), np.zeros((1, 3, 4), np.float32)])
def test_unusable_raw_files_are_refused(tmp_path: Path, content: object) -> None:
    """Missing, no array, wrong dimensions or type: a message that says what is needed."""
    path = tmp_path / "f.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(InputError, match="uint8"):
        raw_source(path, 0.0, False, None, 1, 0)


def test_unusable_folders_are_refused(tmp_path: Path) -> None:
    """Missing or empty: a message that says which."""
    with pytest.raises(InputError, match="no such directory"):
        folder_source(tmp_path / "none", 0.0, False, None, 1, 0)
    with pytest.raises(InputError, match="no image"):
        folder_source(tmp_path, 0.0, False, None, 1, 0)
