"""An output whose device fails, lies, hangs or goes away: PASS not counted, a FAULT or a hold, and nobody waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from appliance.judge import PassToken
from appliance.outputs.line import QUEUE, LineOutput
from appliance.outputs.protocol import LinkLostError, OutputError, OutputState

MS = 10**6


class Bench:
    """A device that does what `behave` says for each PASS; opening counts, heartbeats are kept."""

    def __init__(self, behave: Callable[[PassToken], bool], timeout_ms: int = 150) -> None:
        self.behave = behave
        self.opened = 0
        self.beats: list[tuple[int, bool]] = []
        self.given: list[int] = []
        self.output = LineOutput(self, timeout_ms * MS, "bench")

    def open(self) -> None:
        """See Device.open."""
        self.opened += 1

    def beat(self, count: int, ready: bool) -> None:
        """See Device.beat."""
        self.beats.append((count, ready))

    def let_pass(self, token: PassToken) -> bool:
        """See Device.let_pass."""
        self.given.append(token.seq)
        return self.behave(token)

    def close(self) -> None:
        """See Device.close."""

    def tick(self) -> OutputState:
        """What the supervisor does a few times a second."""
        return self.output.beat(True, time.monotonic_ns())

    def until(self, good: Callable[[OutputState], object]) -> OutputState:
        """Tick until the state is good."""
        deadline = time.monotonic() + 30
        while not good(state := self.tick()):
            assert time.monotonic() < deadline, f"still {state}"
            time.sleep(0.005)
        return state

    def release(self, *seqs: int, seconds: float = 10.0) -> list[tuple[int, bool]]:
        """Give PASSes and wait until all are settled."""
        self.until(lambda state: not state.hold)
        now = time.monotonic_ns()
        deadline = now + int(seconds * 1e9)
        self.output.release([PassToken(seq, "top", seq, 0, "b", deadline, seq) for seq in seqs], now)
        found: list[tuple[int, bool]] = []

        def all_settled(_: OutputState) -> bool:
            found.extend(self.output.settled())
            return len(found) == len(seqs)

        self.until(all_settled)
        return sorted(found)


@pytest.fixture
def made() -> Iterator[list[Bench]]:
    """Benches to be closed."""
    benches: list[Bench] = []
    yield benches
    for bench in benches:
        bench.output.close()


def bench(made: list[Bench], behave: Callable[[PassToken], bool]) -> Bench:
    """A bench that is closed after the test."""
    made.append(Bench(behave))
    return made[-1]


def raises(error: Exception) -> Callable[[PassToken], bool]:
    """A device that answers every PASS by an error."""

    def behave(_: PassToken) -> bool:
        raise error

    return behave


@pytest.mark.parametrize(
    "error",
    [
        OutputError("read-back: wrote [1], it holds [0]"),
        TimeoutError("no answer"),
        RuntimeError("driver"),
        ValueError(),
    ],
    ids=["read-back", "time-out", "driver", "bug"],
)
def test_a_failing_write_is_a_fault_and_no_pass_counts(made: list[Bench], error: Exception) -> None:
    """Whatever the device raises: a latched fault, the PASS in hand and those behind it refused, none tried again."""
    b = bench(made, raises(error))
    assert b.release(1, 2, 3) == [(1, False), (2, False), (3, False)]
    assert b.until(lambda state: state.fault).fault.startswith("bench: ")
    assert (b.output.passed, b.given) == (0, [1])
    b.output.release([PassToken(9, "top", 9, 0, "b", time.monotonic_ns() + 10**10, 9)], time.monotonic_ns())
    assert list(b.output.settled()) == [(9, False)]
    assert b.given == [1]


def in_hand(made: list[Bench], free: threading.Event) -> Bench:
    """A bench that has a PASS in hand, seen by a heartbeat, until it is `free`; its time-out is 700 ms."""
    made.append(Bench(lambda _: free.wait(10), 700))
    b = made[-1]
    b.until(lambda state: not state.hold)
    b.output.release([PassToken(1, "top", 1, 0, "b", time.monotonic_ns() + 10**11, 1)], time.monotonic_ns())
    while not b.given:
        time.sleep(0.001)
    assert not b.tick().fault
    return b


def test_a_suspended_machine_is_no_hanging_device(made: list[Bench]) -> None:
    """Minutes pass in the middle of a call, in which nobody ran: no fault, and the answer that lies there counts."""
    free = threading.Event()
    b = in_hand(made, free)
    assert not b.output.beat(True, time.monotonic_ns() + 600 * 10**9).fault
    free.set()
    settled: list[tuple[int, bool]] = []
    b.until(lambda _: settled.extend(b.output.settled()) or settled)
    assert settled == [(1, True)]


def test_a_device_that_hangs_after_a_suspension_is_a_fault(made: list[Bench]) -> None:
    """Once everybody runs again it has what is left of its time."""
    free = threading.Event()
    b = in_hand(made, free)
    later = time.monotonic_ns() + 600 * 10**9
    assert not b.output.beat(True, later).fault
    assert "did not answer" in b.output.beat(True, later + 200 * MS).fault
    free.set()


def test_a_hanging_write_is_a_fault_in_time_and_blocks_nobody(made: list[Bench]) -> None:
    """The write never comes back: no call of the supervisor waits for it, the fault comes after the time-out, and an
    answer that comes after all does not count."""
    free = threading.Event()
    b = bench(made, lambda _: free.wait(10))
    b.until(lambda state: not state.hold)
    began = time.monotonic()
    b.output.release([PassToken(1, "top", 1, 0, "b", time.monotonic_ns() + 10**11, 1)], time.monotonic_ns())
    longest = 0.0
    while True:
        before = time.monotonic()
        state = b.tick()
        longest = max(longest, time.monotonic() - before)
        if state.fault:
            break
        time.sleep(0.005)
    assert 0.14 < time.monotonic() - began < 2
    assert longest < 0.1
    assert "did not answer within 150 ms" in state.fault
    assert list(b.output.settled()) == [(1, False)]
    free.set()
    time.sleep(0.05)
    assert (b.output.passed, list(b.output.settled())) == (0, [])


def test_a_lost_connection_holds_and_comes_back_without_the_old_pass(made: list[Bench]) -> None:
    """The PASS in hand is refused and not said again over the next connection; the next one passes there."""
    answers = iter([LinkLostError("reset by peer"), True])

    def behave(_: PassToken) -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    b = bench(made, behave)
    assert b.release(1) == [(1, False)]
    assert b.release(2) == [(2, True)]
    assert (b.given, b.opened, b.output.passed) == ([1, 2], 2, 1)


def test_a_connection_that_is_lost_again_and_again_is_a_fault(made: list[Bench]) -> None:
    """Six losses within a minute: latched."""
    b = bench(made, raises(LinkLostError("reset by peer")))
    b.output._losses._starts.extend([time.monotonic_ns()] * 5)
    b.release(1)
    assert "lost too often" in b.until(lambda state: state.fault).fault


def test_late_and_repeated_tokens_reach_no_device(made: list[Bench]) -> None:
    """At its deadline a token is late; a number that does not grow was used before."""
    b = bench(made, lambda _: True)
    assert b.release(2, 2, 1) == [(1, False), (2, False), (2, True)]
    assert b.release(3, seconds=0) == [(3, False)]
    assert b.given == [2]


def test_a_token_that_waited_past_its_deadline_is_not_given(made: list[Bench]) -> None:
    """Behind a slow write the deadline of the next part comes: it is refused, not passed late."""

    def slow(_: PassToken) -> bool:
        time.sleep(0.1)
        return True

    b = bench(made, slow)
    assert b.release(1, 2, seconds=0.05) == [(1, True), (2, False)]
    assert b.given == [1]


def test_the_queue_is_bounded(made: list[Bench]) -> None:
    """More PASSes than the device can take: the surplus is refused, at once."""
    free = threading.Event()
    b = bench(made, lambda _: free.wait(0.12))
    b.until(lambda state: not state.hold)
    now = time.monotonic_ns()
    b.output.release([PassToken(i, "top", i, 0, "b", now + 10**10, i) for i in range(1, QUEUE + 11)], now)
    refused = [seq for seq, good in b.output.settled() if not good]
    assert 9 <= len(refused) <= 10
    assert refused[-1] == QUEUE + 10
    free.set()


def test_the_heartbeat_is_the_supervisors(made: list[Bench]) -> None:
    """Each call of the main loop is one heartbeat, without calls there is none, and closing says not ready."""
    b = bench(made, lambda _: True)
    b.until(lambda _: len(b.beats) >= 3)
    time.sleep(0.05)
    seen = len(b.beats)
    time.sleep(0.2)
    assert len(b.beats) == seen
    assert [count for count, _ in b.beats] == sorted({count for count, _ in b.beats})
    b.output.close()
    assert b.beats[-1][1] is False
