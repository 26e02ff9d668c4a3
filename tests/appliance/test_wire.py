"""Messages between supervisor and workers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.wire import (
    FrameNote,
    MissNote,
    ScoreNote,
    WireError,
    pack_batch,
    pack_credit,
    pack_json,
    pack_trim,
    unpack_batch,
    unpack_credit,
    unpack_json,
    unpack_trim,
)
from appliance.words import Reason
from calibration.values import BINS

U32 = st.integers(0, 2**32 - 1)
TIME = st.integers(0, 2**62)
NAME = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


LOOKS = st.none() | st.tuples(st.integers(0, BINS - 1), st.integers(0, BINS - 1))


@given(st.integers(0, 2**64 - 1), U32, U32, TIME, TIME, NAME, LOOKS)
def test_frame_notes_survive(
    trigger: int, slot: int, crc: int, triggered: int, ready: int, name: str, looks: tuple[int, int] | None
) -> None:
    """A frame note comes out as it went in."""
    note = FrameNote(trigger, slot, crc, triggered, ready, name, looks=looks)
    assert FrameNote.unpack(note.pack()) == note


@pytest.mark.parametrize("looks", [(BINS, 0), (0, BINS)])
def test_a_bin_that_is_none_is_no_message(looks: tuple[int, int]) -> None:
    """It would be counted past a histogram's end."""
    with pytest.raises(WireError, match="bins"):
        FrameNote.unpack(FrameNote(0, 0, 0, 0, 0, "", looks=looks).pack())


@given(st.integers(0, 2**60), TIME, st.sampled_from(Reason), st.text(max_size=20), st.text(max_size=20))
def test_miss_notes_survive_and_are_text(trigger: int, triggered: int, reason: Reason, name: str, detail: str) -> None:
    """A miss note comes out as it went in, but for bytes that are no text: those become question marks."""
    back = MissNote.unpack(MissNote(trigger, triggered, reason, name, detail).pack())
    assert (back.trigger, back.triggered_ns, back.reason) == (trigger, triggered, reason)
    assert back.name == name.encode("utf-8", "replace").decode()
    back.detail.encode("utf-8")


@given(st.integers(0, 2**64 - 1), st.lists(st.tuples(U32, U32), min_size=1, max_size=40))
def test_batches_survive(number: int, parts: list[tuple[int, int]]) -> None:
    """A batch comes out as it went in."""
    slots, crcs = zip(*parts, strict=True)
    assert unpack_batch(pack_batch(number, slots, crcs)) == (number, slots, crcs)


@given(st.lists(U32, max_size=40))
def test_credits_survive(slots: list[int]) -> None:
    """Credit comes out as it went in."""
    assert unpack_credit(pack_credit(slots)) == tuple(slots)


@given(U32)
def test_trims_survive(size: int) -> None:
    """The size of a full batch comes out as it went in."""
    assert unpack_trim(pack_trim(size)) == size


@given(st.integers(1, 9), st.integers(2, 5), st.integers(0, 2**31))
def test_scores_survive(n: int, classes: int, seed: int) -> None:
    """Scores come out bit for bit, NaN included."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)).astype(np.float32)
    logits[0, 0] = np.nan
    note = ScoreNote(7, 1, 2, rng.integers(0, 2, n).astype(np.bool_), logits)
    back = ScoreNote.unpack(note.pack(), classes)
    assert (back.number, back.started_ns, back.ended_ns) == (7, 1, 2)
    assert back.whole.tolist() == note.whole.tolist()
    assert back.logits.tobytes() == logits.tobytes()


@given(st.binary(max_size=60))
def test_garbage_is_a_wire_error_or_a_value(data: bytes) -> None:
    """Any bytes at all either parse or raise WireError; nothing else happens."""
    for unpack in (FrameNote.unpack, MissNote.unpack, unpack_batch, unpack_credit, unpack_trim, unpack_json):
        try:
            unpack(data)
        except WireError:
            continue
    with pytest.raises(WireError):
        ScoreNote.unpack(data + b"?" * 61, 10_000)


def test_json_survives() -> None:
    """Rare messages carry JSON."""
    assert unpack_json(pack_json(b"R", {"a": [1, "ü"]})) == {"a": [1, "ü"]}
