"""Batcher, judge, state machine, self-test plan, restart limit: the pure parts of the daemon."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.batcher import Batcher, Part
from appliance.judge import judge
from appliance.monitor.statistics import Statistics
from appliance.selftest import golden_batches, golden_problem
from appliance.sizing import AHEAD, ROUNDS, Trial, Trials, fitting_batch, rest_ns, timely, window
from appliance.wire import ScoreNote
from appliance.words import Reason, Verdict
from appliance.workers import RESTARTS, WINDOW_NS, RestartLimit
from calibration.decision import Decision, DecisionRule
from deploy.bundle import GoldenScores

RULE = DecisionRule(("ok", "dent", "scratch"), "ok", 1.0, 0.2, 0.8, "0" * 64, "0" * 64)


def part(trigger: int, ready_ns: int = 0, deadline_ns: int = 1000) -> Part:
    """A part of camera c."""
    return Part("c", trigger, f"{trigger}.png", trigger, 0, 0, ready_ns, deadline_ns)


def scores(*rows: tuple[float, ...], whole: bool = True) -> ScoreNote:
    """Scores of one batch."""
    return ScoreNote(1, 0, 0, np.full(len(rows), whole), np.array(rows, np.float32))


def test_a_full_batch_is_taken_at_once() -> None:
    """Size: a full batch waits for nothing, and keeps the order."""
    batcher = Batcher(3, 100)
    for i in range(4):
        batcher.add(part(i))
    assert [p.trigger for p in batcher.take(0, idle=False)] == [0, 1, 2]
    assert batcher.take(0) == []
    assert len(batcher) == 1


def test_a_small_batch_is_taken_when_its_oldest_part_has_waited() -> None:
    """Deadline: exactly at its time, not before, and only when the engine is idle."""
    batcher = Batcher(3, 100)
    batcher.add(part(0, ready_ns=50))
    batcher.add(part(1, ready_ns=120))
    assert batcher.due_ns() == 150
    assert batcher.take(149) == []
    assert batcher.take(150, idle=False) == []
    assert [p.trigger for p in batcher.take(150)] == [0, 1]
    assert batcher.due_ns() is None


def test_an_idle_engine_takes_what_is_there() -> None:
    """Without a wait: one part goes to an idle engine at once, and while it is busy a batch fills."""
    batcher = Batcher(3, 0)
    batcher.add(part(0, ready_ns=50))
    assert [p.trigger for p in batcher.take(50)] == [0]
    batcher.add(part(1, ready_ns=60))
    batcher.add(part(2, ready_ns=70))
    assert batcher.take(80, idle=False) == []
    assert [p.trigger for p in batcher.take(80)] == [1, 2]


def test_an_engine_of_whole_batches_gets_these_or_single_parts() -> None:
    """A full batch goes whole; parts that are fewer go one by one, each to an engine that is idle."""
    batcher = Batcher(3, 0, whole=True)
    for i in range(5):
        batcher.add(part(i))
    assert [[p.trigger for p in batcher.take(0)] for _ in range(4)] == [[0, 1, 2], [3], [4], []]


def test_expired_parts_leave_the_batcher() -> None:
    """A part whose deadline has come is handed out as expired, the others stay."""
    batcher = Batcher(8, 10)
    batcher.add(part(0, deadline_ns=10))
    batcher.add(part(1, deadline_ns=20))
    assert batcher.take_expired(9) == []
    assert [p.trigger for p in batcher.take_expired(10)] == [0]
    assert [p.trigger for p in batcher.take_all()] == [1]
    assert len(batcher) == 0


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 5), st.booleans())
def test_the_batcher_loses_and_doubles_nothing(steps: list[int], size: int, whole: bool) -> None:
    """Whatever the order of calls, each part comes out exactly once, in order, in batches of at most `size`."""
    batcher, out, added = Batcher(size, 2, whole), [], 0
    for now, step in enumerate(steps):
        if step:
            batcher.add(part(added, ready_ns=now))
            added += 1
        batch = batcher.take(now, idle=step != 2)
        assert len(batch) <= size
        assert not whole or len(batch) in (0, 1, size)
        out += [p.trigger for p in batch]
    out += [p.trigger for p in batcher.take_all()]
    assert out == list(range(added))


@given(
    st.lists(st.tuples(*[st.floats(width=32, allow_nan=True, allow_infinity=True)] * 3), min_size=1, max_size=8),
    st.integers(0, 20),
    st.booleans(),
)
def test_only_a_finite_ok_in_time_passes(rows: list[tuple[float, ...]], now: int, whole: bool) -> None:
    """A PASS needs finite scores, a decision OK, a whole tensor and time left, for any scores at all."""
    note = scores(*rows, whole=whole)
    for row, result in zip(rows, judge(RULE, note, [10] * len(rows), now), strict=True):
        assert (result.verdict is Verdict.PASS) == (result.reason is Reason.NONE)
        if result.verdict is Verdict.PASS:
            assert whole
            assert now < 10
            assert np.isfinite(row).all()
            assert RULE.decide([row]) == [Decision.OK]
        if not np.isfinite(row).all():
            assert result.reason in (Reason.ENGINE, Reason.CHECKSUM)
            assert result.defect_probability is None


def test_judgements_say_what_was_seen() -> None:
    """OK, DEFECT and UNSURE with top class, probability, bin and the very logits."""
    good, bad, doubt = judge(RULE, scores((9, 0, 0), (0, 9, 0), (0, 0, 0)), [10, 10, 10], 0)
    assert (good.reason, good.top_class, good.bin) == (Reason.NONE, "ok", 0)
    assert (bad.reason, bad.top_class, bad.bin) == (Reason.DEFECT, "dent", 19)
    assert doubt.reason is Reason.UNSURE
    assert doubt.defect_probability == pytest.approx(2 / 3)
    assert bad.logits == np.array([0, 9, 0], "<f4").tobytes()


def test_the_deadline_is_too_late_to_the_nanosecond() -> None:
    """One nanosecond before the deadline passes, the deadline itself does not; the decision stays on record."""
    assert judge(RULE, scores((9, 0, 0)), [10], 9)[0].verdict is Verdict.PASS
    late = judge(RULE, scores((9, 0, 0)), [10], 10)[0]
    assert (late.verdict, late.reason, late.decision) == (Verdict.REJECT, Reason.LATE, Decision.OK)


@given(st.integers(1, 40), st.integers(1, 32))
def test_goldens_stand_everywhere(goldens: int, size: int) -> None:
    """Each golden is judged alone and twice in full batches, and full batches use every position."""
    plan = golden_batches(goldens, size)
    assert plan[:goldens] == [[i] for i in range(goldens)]
    full = plan[goldens:]
    if size == 1:
        assert full == []
        return
    assert all(len(batch) == size for batch in full)
    assert len(full) >= 2
    for golden in range(goldens):
        places = [(b, i) for b, batch in enumerate(full) for i, g in enumerate(batch) if g == golden]
        assert len(places) >= 2


def test_golden_problems_are_named() -> None:
    """A wrong decision, a score off by more than allowed, NaN and a wrong shape are found; rounding is not."""
    goldens = [
        GoldenScores(f"golden/{i:03d}.png", {"cpu": np.array(row, np.float32)})
        for i, row in enumerate([(9, 0, 0), (0, 9, 0)])
    ]
    right = np.array([(9, 0, 0), (0, 9, 0)], np.float32)
    check = [0, 1]
    assert golden_problem(RULE, goldens, "cpu", check, right + np.float32(0.2)) == ""
    assert "position 1 of 2" in golden_problem(RULE, goldens, "cpu", check, right[::-1])
    assert "off by" in golden_problem(RULE, goldens, "cpu", check, right * np.float32(1.2))
    assert "no numbers" in golden_problem(RULE, goldens, "cpu", check, right * np.float32(np.nan))
    assert "shape" in golden_problem(RULE, goldens, "cpu", check, right[:1])


def test_a_restart_loop_is_found() -> None:
    """More than five starts in a minute is a loop; the same number spread out is not."""
    limit = RestartLimit()
    assert all(limit.allows(i) for i in range(RESTARTS))
    assert not limit.allows(RESTARTS)
    slow = RestartLimit()
    assert all(slow.allows(i * WINDOW_NS // RESTARTS + i) for i in range(4 * RESTARTS))


def test_statistics_forget() -> None:
    """Rate over the last ten seconds, latency over the last thousand parts."""
    statistics = Statistics()
    assert statistics.rate(0) == 0.0
    assert statistics.latency().worst == 0.0
    second = 10**9
    for i in range(20):
        statistics.add([5_000_000] * 95 + [9_000_000] * 5, i * second)
    assert statistics.rate(19 * second) == pytest.approx(110, rel=0.01)
    assert statistics.rate(60 * second) == 0.0
    latency = statistics.latency()
    assert (latency.p50, latency.p99, latency.worst) == (5.0, 9.0, 9.0)


@given(st.integers(1, 64), st.floats(1, 1e10), st.integers(1, 10**10), st.integers(0, 4), st.integers(1, 4))
def test_batches_fit_the_deadline(size: int, part_ns: float, deadline_ns: int, unpaced: int, lanes: int) -> None:
    """Whatever is under way is judged within half the deadline, unless even single parts are too slow for that."""
    batch = fitting_batch(size, part_ns, deadline_ns, unpaced, lanes)
    assert 1 <= batch <= size
    slots = window(0, batch, lanes, timely(part_ns, deadline_ns, unpaced, batch, lanes))
    under_way = max(1, unpaced) * (slots - 1) + lanes * batch
    if batch > 1:
        assert under_way * part_ns <= deadline_ns / 2 * 1.001
    assert fitting_batch(size, part_ns, 2 * deadline_ns, unpaced, lanes) >= batch


def timed(trials: Trials, cost: Callable[[Trial], float]) -> list[Trial]:
    """Run all trials on a machine where one takes cost(trial) ns; which they were."""
    asked = []
    while (trial := trials.next) is not None:
        asked.append(trial)
        trials.took(int(cost(trial)))
    return asked


def test_the_batch_that_pays_is_found() -> None:
    """A fixed cost a call makes batches pay until it is spread thin; where a part takes long, it is judged alone, and
    batches that cannot pay are not even tried."""
    trials = Trials(32, 1, 10**13)
    asked = timed(trials, lambda trial: 2_000_000 + 20_000_000 * trial.size)
    assert (trials.size, trials.lanes) == (16, 1)
    assert {trial.size for trial in asked} == {1, 2, 4, 8, 16, 32}
    assert trials.part_ns == 20_125_000
    alone = Trials(6, 1, 10**13)
    assert {trial.size for trial in timed(alone, lambda trial: 10.0**8 * trial.size)} == {1, 2}
    assert alone.size == 1
    odd = Trials(6, 1, 10**13)
    assert {trial.size for trial in timed(odd, lambda trial: 10.0**6 * trial.size)} == {1, 2, 4, 6}
    assert odd.size == 6
    whole = Trials(4, 1, 10**13, growth=4)
    assert {trial.size for trial in timed(whole, lambda trial: 10.0**6 * trial.size)} == {1, 4}
    assert whole.size == 4


@pytest.mark.parametrize(("share", "size"), [(0.98, 4), (0.99, 1)])
def test_a_fourfold_batch_has_to_save_thrice_as_much(share: float, size: int) -> None:
    """Its memory is worth a hundredth and a half of the time, not half a hundredth."""
    trials = Trials(4, 1, 10**13, growth=4)
    timed(trials, lambda trial: 1e9 * trial.size * (share if trial.size > 1 else 1))
    assert trials.size == size


def test_the_first_time_of_a_trial_does_not_count() -> None:
    """An engine that needs seconds for the first batch of each size is not held to be slow, nor is a comparison cut
    short by them."""
    met: set[Trial] = set()

    def cost(trial: Trial) -> float:
        first = trial not in met
        met.add(trial)
        return 3e9 * first + 10.0**6 * trial.size

    trials = Trials(4, 1, 250_000_000)
    timed(trials, cost)
    assert (trials.size, trials.part_ns) == (4, 10.0**6)


def test_a_disturbance_lengthens_small_batches_as_often_as_large_ones() -> None:
    """Something takes 6 ms of every 20: batches of 10 ms meet it by turns, batches of 19 ms each time. The larger ones
    pay all the same."""
    now = 0.0

    def cost(trial: Trial) -> float:
        nonlocal now
        work, began = {1: 10e6, 2: 19e6}[trial.size], now
        while work > 0:
            now += 1e6
            work -= 1e6 if now % 20e6 < 14e6 else 0.0
        return now - began

    trials = Trials(2, 1, 10**9)
    timed(trials, cost)
    assert trials.size == 2


def test_sizes_are_compared_within_the_same_time() -> None:
    """A machine that slows down by a fifth after the first comparison is not taken for batches that do not pay."""
    first = 2 + 3 * ROUNDS  # trials of the first comparison, with the two that do not count
    asked = 0

    def cost(trial: Trial) -> float:
        nonlocal asked
        asked += 1
        return (2e6 + 8e6 * trial.size) * (1 if asked <= first else 1.2)

    trials = Trials(4, 1, 10**9)
    timed(trials, cost)
    assert trials.size == 4


def cost_on(cores: int) -> Callable[[Trial], float]:
    """One ms a part on each of so many cores."""
    return lambda trial: 10.0**6 * trial.size * -(-trial.lanes // cores)


@given(st.floats(1e3, 1e9), st.integers(1, 64), st.integers(1, 8), st.integers(0, 1000))
def test_windows_hold_what_the_engine_is_sent(part_ns: float, batch: int, lanes: int, most: int) -> None:
    """As fast as they are judged there is room for all that the engine takes and for as much again, which no rest uses
    up; under a lower limit still for a batch with each lane, one behind them and a frame in work."""
    taken = (1 + AHEAD) * lanes * batch
    assert window(0, batch, lanes) == 2 * taken
    assert rest_ns(part_ns, lanes, batch) / part_ns < taken
    assert window(0, batch, lanes, most) == max((lanes + 1) * batch + 1, min(most, 2 * taken))


def test_lanes_are_used_as_long_as_they_pay() -> None:
    """Two cores: two lanes. One core: one lane, though four are there. Three at most: no more are tried."""
    for cores, most, found in ((2, 4, 2), (1, 4, 1), (8, 3, 3), (8, 1, 1)):
        trials = Trials(4, most, 10**9)
        asked = timed(trials, cost_on(cores))
        assert trials.lanes == found
        assert max(trial.lanes for trial in asked) <= most


def test_a_core_that_was_busy_for_a_while_is_found_all_the_same() -> None:
    """Two lanes that took turns on one core for the first quarter of a second are timed until they do not."""
    trials, spent = Trials(1, 2, 250_000_000), 0.0

    def cost(trial: Trial) -> float:
        nonlocal spent
        taken = 20e6 * (trial.lanes if spent < 0.25e9 else 1)
        spent += taken * (trial.lanes > 1)
        return taken

    timed(trials, cost)
    assert (trials.lanes, trials.part_ns) == (2, 10e6)


@given(st.integers(1, 64), st.integers(1, 8), st.integers(1, 10**7))
def test_trials_end_when_their_time_is_spent(size: int, lanes: int, budget_ns: int) -> None:
    """On a slow machine one batch size is timed, and each number of lanes once, each after a first time that does not
    count; the answer is what was tried."""
    trials = Trials(size, lanes, budget_ns)
    asked = timed(trials, lambda trial: 1e7 * trial.lanes)
    assert asked == [Trial(1, 1)] * 2 + ([Trial(1, 2)] * 2 if lanes > 1 else [])
    assert (trials.size, trials.lanes, trials.part_ns) == (1, 1, 1e7)
