"""The line's own count of parts: each number ends in exactly one row, whoever was down when its part passed."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from appliance.counting import SETTLED, UNSEEN_MAX, CountNote, PartCount, unfinished
from appliance.paths import StationPaths, make_directories
from appliance.rows import VerdictRow
from appliance.store import Store


def seen(count: PartCount, numbers: list[int]) -> list[tuple[int, bool]]:
    """(trigger, whether it had a frame) as a camera process would tell them."""
    told = []
    for number in numbers:
        count.begin(number)
        gap = count.gap(number)
        for _ in range(gap or 0):
            told.append((count.trigger, False))
            count.trigger += 1
        told.append((count.trigger, gap is not None))
        count.trigger += 1
    return told


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(0, 2**40))
def test_skipped_numbers_are_parts_without_a_frame(steps: list[int], first: int) -> None:
    """Whatever is left out, every number from the first to the last is told exactly once, in order."""
    numbers = [first + sum(steps[:i]) for i in range(len(steps))]
    told = seen(PartCount(0), numbers)
    assert [trigger for trigger, _ in told] == list(range(first, numbers[-1] + 1))
    assert [trigger for trigger, framed in told if framed] == numbers


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=30))
def test_triggers_never_repeat_whatever_the_line_says(numbers: list[int]) -> None:
    """A count that repeats, goes back or wraps: the part is rejected, and triggers go on one by one."""
    told = [trigger for trigger, _ in seen(PartCount(0), numbers)]
    assert told == list(range(told[0], told[0] + len(told)))


def test_a_count_that_starts_anew_rejects_one_part_and_is_followed() -> None:
    """17, 18, then 3, 4: the third part is rejected, the fourth is known again."""
    assert seen(PartCount(0), [17, 18, 3, 4]) == [(17, True), (18, True), (19, False), (20, True)]


def test_a_process_goes_on_where_the_count_stood() -> None:
    """After a restart the numbers between are parts that passed unseen; too many of them are another count."""
    assert seen(PartCount(0, CountNote(20, 5)), [17]) == [(20, False), (21, False), (22, True)]
    assert seen(PartCount(0, CountNote(20, 0)), [20 + UNSEEN_MAX + 1]) == [(20, False)]


def test_triggers_without_a_row_are_found() -> None:
    """Holes from the beginning of the count on; where old rows are gone, nothing is said of their neighbours."""
    assert unfinished([5, 7, 8, 6, 11], 3, True, 12) == (3, 4, 9, 10)
    assert unfinished([], 3, True, 3) == ()
    assert unfinished([1, 4, SETTLED + 3], 0, False, SETTLED + 4) == (SETTLED + 1, SETTLED + 2)


def test_the_database_knows_where_the_count_stood(tmp_path: Path) -> None:
    """Rows 1000 to 1003 without 1002, after a count that began with 1000: next is 1004, and 1002 has no row."""
    paths = StationPaths.of(tmp_path)
    make_directories(paths)
    store = Store(paths.database)
    assert store.where_left("top") == (None, (), [])
    store.audit("daemon", "count top", "", "1000 -7")
    empty = VerdictRow(
        0, "top", 0, "", "", "", "", 0, "", None, "REJECT", "HOLD", "", "", None, None, None, "", 0, 0, 0, 0
    )
    for seq, trigger in enumerate((1000, 1001, 1003), 1):
        store.add(empty._replace(seq=seq, trigger=trigger, crc=7), None)
    store.commit()
    assert store.where_left("top") == (CountNote(1004, -7), (1002,), [7, 7, 7])
    assert store.where_left("side") == (None, (), [])
    store.close()
