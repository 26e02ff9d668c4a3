"""Evidence: stored without loss, within its quota, never in a verdict's way."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from appliance import evidence_writer
from appliance.config import Station, load_station
from appliance.crew import evidence_settings
from appliance.evidence import (
    EvidenceChoice,
    EvidenceClass,
    EvidenceError,
    EvidenceRecord,
    camera_folder,
    decode_evidence,
    encode_evidence,
    find_evidence,
)
from appliance.evidence_shelf import Shelf
from appliance.evidence_writer import EvidenceWriter
from appliance.store import Store
from appliance.wire import WireError, pack_keep, unpack_keep
from appliance.words import Reason
from tests.appliance.stations import Daemon, make_station, rows, run_json

RECORD = EvidenceRecord(7, "top", 3, 10**15, 2**32 - 1, "b" * 64)
ALL_ON = "[evidence]\ndefect_mib = 10\nunsure_mib = 10\nsample_mib = 10\nother_mib = 10\n"
ALL_ON += "per_second = 1000.0\n[reevaluation]\npassed_share = 1.0\ndefect_share = 0.0\n"


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 20)] * 2) | st.tuples(*[st.integers(1, 20)] * 2, st.just(3))))
def test_pixels_and_record_come_back_exactly(frame: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    """Grey and colour of any size; and any viewer can open the file."""
    data = encode_evidence(frame, RECORD)
    record, back = decode_evidence(data)
    assert record == RECORD
    assert back.dtype == np.uint8
    assert np.array_equal(back, frame)
    assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), frame)


def test_no_changed_byte_goes_unnoticed() -> None:
    """Every byte flipped, every length cut: refused, or the very same frame and record."""
    frame = np.random.default_rng(0).integers(0, 255, (8, 9), np.uint8)
    data = encode_evidence(frame, RECORD)
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 0x10
        for damaged in (bytes(changed), data[:position]):
            try:
                record, back = decode_evidence(damaged)
            except EvidenceError:
                continue
            assert record == RECORD
            assert np.array_equal(back, frame)


def test_pictures_without_a_record_are_refused() -> None:
    """An ordinary PNG, nothing, and a record of another program."""
    png = cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tobytes()
    for data in (png, b"", b"tEXtlineguard\0"):
        with pytest.raises(EvidenceError):
            decode_evidence(data)


def test_names_of_cameras_stay_inside_the_folder(tmp_path: Path) -> None:
    """Whatever a camera is called."""
    for name in ("..", "a/b", "/", "top", "Kamera 1"):
        assert camera_folder(tmp_path, name).parent == tmp_path
        assert camera_folder(tmp_path, name).name not in (".", "..")


def test_choice_by_reason() -> None:
    """All parts of a class with a quota, none of a class that is off; of passed ones only the sample."""
    choice = EvidenceChoice({EvidenceClass.DEFECT: 1, EvidenceClass.OTHER: 1}, 1.0, 1.0)
    assert choice.wanted(Reason.DEFECT) is EvidenceClass.DEFECT
    assert choice.wanted(Reason.UNSURE) is None
    assert choice.wanted(Reason.HOLD) is EvidenceClass.OTHER
    assert choice.wanted(Reason.NONE) is None


def test_the_sample_is_a_share_of_the_passed_and_of_the_defects() -> None:
    """UNSURE parts wait for a person anyway; of what nobody judged nothing can be learned."""
    choice = EvidenceChoice({EvidenceClass.DEFECT: 1, EvidenceClass.SAMPLE: 1, EvidenceClass.UNSURE: 1}, 0.25, 0.5)
    kept = [choice.wanted(Reason.NONE) for _ in range(4000)]
    assert 850 < kept.count(EvidenceClass.SAMPLE) < 1150
    assert set(kept) == {None, EvidenceClass.SAMPLE}
    defects = [choice.wanted(Reason.DEFECT) for _ in range(4000)]
    assert 1800 < defects.count(EvidenceClass.SAMPLE) < 2200
    assert set(defects) == {EvidenceClass.DEFECT, EvidenceClass.SAMPLE}
    assert {choice.wanted(Reason.UNSURE) for _ in range(100)} == {EvidenceClass.UNSURE}
    assert {choice.wanted(Reason.LATE) for _ in range(100)} == {None}


def test_the_class_most_over_its_quota_gives_its_oldest_first() -> None:
    """Until each is within its own; open cases stay; nothing is freed below the quota."""
    shelf = Shelf({EvidenceClass.DEFECT: 10, EvidenceClass.UNSURE: 10})
    for seq in range(6):
        shelf.add(EvidenceClass.DEFECT, seq, 4)
        shelf.add(EvidenceClass.UNSURE, 100 + seq, 3)
    freed = []
    while (victim := shelf.next_to_free(lambda seq: seq in (100, 102))) is not None:
        freed.append(victim[1])
        shelf.remove(*victim)
    assert freed == [0, 1, 101, 2, 103, 3, 104][: len(freed)] or freed == [0, 1, 101, 2, 103, 104, 3]
    assert shelf.used(EvidenceClass.DEFECT) == 8
    assert shelf.used(EvidenceClass.UNSURE) == 9
    assert shelf.next_to_free(lambda seq: True, EvidenceClass.UNSURE, 5) is None
    assert shelf.next_to_free(lambda seq: True, EvidenceClass.DEFECT, 3) == (EvidenceClass.DEFECT, 4)


@given(st.lists(st.tuples(st.sampled_from(EvidenceClass), st.integers(0, 30), st.integers(1, 9)), max_size=60))
def test_a_shelf_ends_within_its_quotas(files: list[tuple[EvidenceClass, int, int]]) -> None:
    """Whatever was on it; and it knows its size."""
    shelf, kept = Shelf(dict.fromkeys(EvidenceClass, 20)), {}
    for kind, seq, size in files:
        shelf.add(kind, seq, size)
        kept[kind, seq] = size
    while (victim := shelf.next_to_free(lambda seq: False)) is not None:
        shelf.remove(*victim)
        del kept[victim]
    for kind in EvidenceClass:
        assert shelf.used(kind) == sum(size for (k, _), size in kept.items() if k is kind) <= 20


@pytest.fixture
def station(tmp_path: Path) -> Station:
    """A station with evidence on, and its database."""
    (tmp_path / "data").mkdir()
    Store(tmp_path / "data" / "station.db").close()
    return load_station(make_station(tmp_path, 2, sections=ALL_ON))


@pytest.fixture
def told(station: Station) -> dict[str, Any]:
    """What the camera process of that station is told."""
    found = evidence_settings(station, "top")
    assert found is not None
    return {**found, "free_bytes": 0}


def offer(writer: EvidenceWriter, kind: EvidenceClass, *numbers: int) -> None:
    """Frames, each once the one before has been dealt with."""
    frame = np.random.default_rng(1).integers(0, 255, (64, 96), np.uint8)  # about 6.5 kB
    for seq in numbers:
        before = writer.written + writer.dropped
        writer.offer(kind, seq, frame, seq, seq, seq, "b" * 64)
        deadline = time.monotonic() + 30
        while writer.written + writer.dropped == before:
            assert time.monotonic() < deadline
            time.sleep(0.001)


def stored(told: dict[str, Any], kind: EvidenceClass) -> list[int]:
    """Numbers of the files of a class."""
    folder = camera_folder(Path(told["root"]), "top") / kind.value
    return sorted(int(path.stem) for path in folder.glob("*.png"))


def test_a_full_class_frees_its_oldest(told: dict[str, Any]) -> None:
    """Also what a run before has left; halves of files are removed."""
    told["quotas"]["defect"] = 21_000
    first = EvidenceWriter(told)
    offer(first, EvidenceClass.DEFECT, 1, 2, 3)
    first.close(5)
    half = camera_folder(Path(told["root"]), "top") / "defect" / "4.tmp"
    half.write_bytes(b"half")
    second = EvidenceWriter(told)
    offer(second, EvidenceClass.DEFECT, 5, 6)
    second.close(5)
    assert stored(told, EvidenceClass.DEFECT) == [3, 5, 6]
    assert not half.exists()
    assert (first.dropped, second.dropped) == (0, 0)


def test_open_review_cases_stay_and_new_ones_are_dropped(told: dict[str, Any]) -> None:
    """A class full of UNSURE parts that nobody has judged takes no more; a judged one makes room."""
    told["quotas"]["unsure"] = 14_000
    with closing(sqlite3.connect(told["database"], isolation_level=None)) as db:
        for seq in (1, 2, 3, 4):
            db.execute("INSERT INTO verdict (seq, camera, verdict, reason, bundle) VALUES (?, '', '', '', '')", (seq,))
        writer = EvidenceWriter(told)
        offer(writer, EvidenceClass.UNSURE, 1, 2, 3)
        assert stored(told, EvidenceClass.UNSURE) == [1, 2]
        assert (writer.written, writer.dropped) == (2, 1)
        assert "quota of class unsure" in writer.trouble
        db.execute("INSERT INTO review (seq, utc, operator, decision) VALUES (2, '', 'Jana', 'OK')")
        writer.close(5)
        writer = EvidenceWriter(told)
        offer(writer, EvidenceClass.UNSURE, 4)
        assert stored(told, EvidenceClass.UNSURE) == [1, 4]
        writer.close(5)


def test_too_many_frames_are_dropped_at_once(told: dict[str, Any]) -> None:
    """Beyond the rate nothing waits: 1,000 offers take no time, and each is written or counted."""
    writer = EvidenceWriter({**told, "per_second": 5.0})
    frame = np.zeros((64, 96), np.uint8)
    started = time.monotonic()
    for seq in range(1000):
        writer.offer(EvidenceClass.OTHER, seq, frame, seq, seq, seq, "b" * 64)
    assert time.monotonic() - started < 1.0
    writer.close(5)
    assert writer.written + writer.dropped == 1000
    assert 1 <= writer.written <= 12


@pytest.mark.parametrize("trouble", ["almost full", "not a directory"])
def test_a_disk_that_takes_nothing_is_said_and_survived(
    told: dict[str, Any], trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, with the reason; later frames are stored again."""
    monkeypatch.setattr(evidence_writer, "PAUSE_S", 0.0)
    blocked = camera_folder(Path(told["root"]), "top")
    if trouble == "almost full":
        writer = EvidenceWriter({**told, "free_bytes": 2**60})
    else:
        blocked.parent.mkdir()
        blocked.write_bytes(b"")
        writer = EvidenceWriter(told)
    offer(writer, EvidenceClass.DEFECT, 1)
    assert (writer.written, writer.dropped) == (0, 1)
    assert trouble in writer.trouble.lower()
    if trouble != "almost full":
        blocked.unlink()
        offer(writer, EvidenceClass.DEFECT, 2)
        assert (writer.written, writer.trouble) == (1, "")
    writer.close(5)


def test_every_part_of_a_run_leaves_its_frame(tmp_path: Path) -> None:
    """A run of the daemon: one file a part, in the class of its verdict, bound to its row, equal to what was shown."""
    config = make_station(tmp_path, 20, "fps = 10.0", ALL_ON)  # slowly: what finds no room is dropped, by design
    run_json(config)
    root = tmp_path / "data" / "evidence"
    query = "SELECT seq, camera, trigger, mono_ns, crc, bundle, frame, reason FROM verdict"
    for *values, frame, reason in rows(config, query):
        path = find_evidence(root, "top", values[0])
        assert path is not None, frame
        assert path.parent.name == (reason.lower() or "sample")
        record, pixels = decode_evidence(path.read_bytes())
        assert record == EvidenceRecord(*values)
        assert np.array_equal(pixels, cv2.imread(str(tmp_path / "frames" / frame), cv2.IMREAD_UNCHANGED))
        assert oct(os.stat(path).st_mode)[-3:] == "600"


def test_the_status_counts_evidence(tmp_path: Path) -> None:
    """Stored and dropped, while the daemon runs; off unless the configuration says otherwise."""
    config = make_station(tmp_path, 20, "fps = 50.0\nloop = true", ALL_ON)
    with Daemon(config) as daemon:
        status = daemon.until(lambda s: s.evidence.written > 5)
        assert status.evidence.dropped == 0
    assert evidence_settings(load_station(make_station(tmp_path, 0)), "top") is None


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**63), st.integers(0, 3)), max_size=9))
def test_keep_messages_are_exact(wanted: list[tuple[int, int, int]]) -> None:
    """Slot, row and class; a message cut short is refused."""
    message = pack_keep(wanted)
    assert unpack_keep(message) == wanted
    with pytest.raises(WireError):
        unpack_keep(message + b"x")


def test_the_record_belongs_to_one_row() -> None:
    """Equal only where all values are."""
    assert json.loads(json.dumps(RECORD.__dict__)) == RECORD.__dict__
    assert replace(RECORD, trigger=4) != RECORD
