"""Old rows go in small steps; what must stay stays."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.audit import verify_chain
from appliance.retention import ROWS, Retention
from appliance.store import Store, VerdictRow, utc_text

NOW = 1_800_000_000.0
DAY = 86_400


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty database."""
    opened = Store(tmp_path / "station.db")
    yield opened
    opened.close()


def fill(store: Store, *ages: float) -> None:
    """One row for each age in days."""
    for age in ages:
        seq, store.next_seq = store.next_seq, store.next_seq + 1
        utc = utc_text(NOW - age * DAY)
        row = VerdictRow(seq, "top", seq, "f", str(seq), "", utc, 0, "", "OK", "PASS", "", "", "ok", 0.1, b"x" * 400,
                         1, "b", 0, 0, 0, 0)  # fmt: skip
        store.add(row, 2)
    store.commit()


def numbers(store: Store) -> list[int]:
    """Of the rows that are there."""
    return [seq for (seq,) in store.connection.execute("SELECT seq FROM verdict ORDER BY seq")]


def drain(retention: Retention) -> int:
    """Step until nothing is left to do."""
    total = 0
    while removed := retention.step(NOW):
        assert removed <= ROWS
        total += removed
    return total


def test_rows_beyond_their_age_go(store: Store) -> None:
    """Exactly those before the first young one; tallies still count them, their histogram minutes go too."""
    fill(store, 40, 35, 31, 29, 1, 33, 0)
    assert drain(Retention(store, 30, 0)) == 3
    assert numbers(store) == [4, 5, 6, 7]
    assert sum(store.tally.values()) == 7
    minutes = [minute for (minute,) in store.connection.execute("SELECT minute FROM histogram ORDER BY minute")]
    assert minutes[0] == utc_text(NOW - 29 * DAY)[:16]


def test_without_limits_nothing_goes(store: Store) -> None:
    """0 and 0."""
    fill(store, 10_000, 1)
    assert drain(Retention(store, 0, 0)) == 0


def test_the_size_is_held_and_space_used_again(store: Store) -> None:
    """The oldest go until the rest fits; the file stops growing."""
    retention = Retention(store, 0, 400_000)
    sizes = []
    for _ in range(12):
        fill(store, *[1.0] * 400)
        drain(retention)
        sizes.append(store.connection.execute("PRAGMA page_count").fetchone()[0] * 4096)
    assert retention._used() <= 400_000
    assert numbers(store)[-1] == 4800
    assert numbers(store) == list(range(numbers(store)[0], 4801))
    assert sizes[-1] == sizes[-4] < 900_000


def test_the_last_row_stays_so_that_numbers_go_on(store: Store, tmp_path: Path) -> None:
    """However old it is."""
    fill(store, 99, 98, 97)
    drain(Retention(store, 1, 0))
    assert numbers(store) == [3]
    other = Store(tmp_path / "station.db")
    assert other.next_seq == 4
    other.close()


def test_judged_rows_open_alerts_and_the_audit_stay(store: Store) -> None:
    """A person's verdict keeps its row; alerts go once acknowledged and as old as the rows; the audit is untouched."""
    fill(store, *[50] * 5, 0)
    store.connection.execute("INSERT INTO review (seq, utc, operator, decision) VALUES (2, '', 'Jana', 'OK')")
    for number in range(3):
        store.alert("X", str(number))
    store.acknowledge(1, "Jana")
    store.acknowledge(2, "Jana")
    for year, which in ((2020, "<> 2"), (2099, "= 2")):
        store.connection.execute(f"UPDATE alert SET utc = '{year}-01-01T00:00:00.000000Z' WHERE id {which}")  # noqa: S608
    before = store.connection.execute("SELECT count(*) FROM audit").fetchone()[0]
    retention = Retention(store, 30, 0)
    drain(retention)
    assert numbers(store) == [2, 6]
    assert [number for (number,) in store.connection.execute("SELECT id FROM alert ORDER BY id")] == [2, 3]
    entries = store.connection.execute("SELECT action, new FROM audit WHERE id > ?", (before,)).fetchall()
    assert entries == [("retention", "4 rows removed, up to 5")]
    assert verify_chain(store.connection) == []
    assert drain(retention) == 0


def test_a_step_is_short_however_much_there_is_to_do(store: Store) -> None:
    """30,000 old rows: no step holds the writer for long."""
    fill(store, *[50.0] * 30_000, 0)
    retention, longest = Retention(store, 30, 0), 0.0
    for _ in range(40):
        begin = time.thread_time()
        assert retention.step(NOW) == ROWS
        longest = max(longest, time.thread_time() - begin)
    assert longest < 0.05
