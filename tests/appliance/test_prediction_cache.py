"""The prediction cache: exact bytes, bounded, and never a word more than it knows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from appliance.line import AGAIN
from appliance.prediction_cache import Known, PredictionCache
from appliance.ring import Tensor, checksum
from tests.appliance.stations import appliance, make_station, rows, run_json

SHAPE = (1, 4, 6)


def tensor(value: int) -> Tensor:
    """A tensor of one value."""
    return np.full(SHAPE, value, np.uint8)


def known(value: float) -> Known:
    """Scores that tell which tensor they are of."""
    return Known(np.float32([value, -value]), 3, 1)


def test_the_same_bytes_are_found_with_their_scores() -> None:
    """Found as they were kept, each find counted; other bytes are not found."""
    cache = PredictionCache(1000)
    cache.keep(tensor(7), checksum(tensor(7)), known(0.5))
    found = cache.find(tensor(7), checksum(tensor(7)))
    assert found is not None
    assert (found.logits.tolist(), found.batch, found.position) == ([0.5, -0.5], 3, 1)
    assert cache.find(tensor(8), checksum(tensor(8))) is None
    assert cache.hits == 1


def test_equal_checksums_are_not_enough() -> None:
    """Other bytes under the checksum of known ones (a collision, or a torn tensor) are not taken for them."""
    cache = PredictionCache(1000)
    crc = checksum(tensor(7))
    cache.keep(tensor(7), crc, known(0.5))
    torn = tensor(7)
    torn[0, 3, 5] ^= 1
    assert cache.find(torn, crc) is None
    assert cache.find(tensor(7), crc ^ 1) is None
    assert cache.hits == 0


def test_what_is_kept_does_not_change_with_the_ring() -> None:
    """The slot is written again for the next part: the cache has bytes of its own."""
    cache, slot = PredictionCache(1000), tensor(7)
    cache.keep(slot, checksum(slot), known(0.5))
    crc = checksum(slot)
    slot.fill(9)
    assert cache.find(slot, crc) is None
    assert cache.find(tensor(7), crc) is not None


def test_a_replay_that_loops_judges_each_frame_once(tmp_path: Path) -> None:
    """Five frames, forty parts: rows have their frames' scores; those after the first say so, and replay to the bit."""
    sections = "[cache]\nmib = 8\n[evidence]\ndefect_mib = 4\nper_second = 1000"
    config = make_station(tmp_path, 5, "loop = true\ncount = 40\nfps = 50.0", sections)
    run_json(config)
    found = rows(config, "SELECT frame, logits, detail, serial, reason, batch FROM verdict ORDER BY seq")
    assert len(found) == 40
    assert len({(row[0], row[1]) for row in found}) == 5
    again = [row for row in found if row[2] == AGAIN]
    assert 30 <= len(again) <= 35
    serial = next(row[3] for row in again if row[4] == "DEFECT")
    replayed = json.loads(appliance("replay", serial, "--config", config, "--json").stdout)
    assert [row["result"] for row in replayed["rows"]] == ["equal"]


def test_no_cache_unless_asked_for(tmp_path: Path) -> None:
    """By default a frame that comes again is judged again."""
    config = make_station(tmp_path, 3, "loop = true\ncount = 12")
    run_json(config)
    assert rows(config, "SELECT count(*) FROM verdict WHERE detail = ''") == [(12,)]


def test_off_means_off() -> None:
    """Without a byte of room nothing is kept and nothing found."""
    cache = PredictionCache(0)
    cache.keep(tensor(7), checksum(tensor(7)), known(0.5))
    assert cache.find(tensor(7), checksum(tensor(7))) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60), st.integers(0, 5))
def test_it_is_a_bounded_memory_of_the_last_tensors(steps: list[tuple[bool, int]], room: int) -> None:
    """Against a plain model: at most `room` tensors, those used last, each with its own scores."""
    cache = PredictionCache(room * tensor(0).nbytes + 5)
    model: list[int] = []  # values, used longest ago first
    for keeps, value in steps:
        crc = checksum(tensor(value))
        if keeps:
            cache.keep(tensor(value), crc, known(value))
            if value not in model and room:
                model = [*model, value][-room:]
        else:
            found = cache.find(tensor(value), crc)
            assert (found is not None) == (value in model)
            if found is not None:
                assert found.logits[0] == value
                model = [*(other for other in model if other != value), value]
