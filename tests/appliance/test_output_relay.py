"""The relay owns the time-out: by a virtual clock, and behind its socket with the appliance on the other side."""

from __future__ import annotations

import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.judge import PassToken
from appliance.outputs.line import LineOutput
from appliance.outputs.protocol import LinkLostError, OutputError
from appliance.outputs.relay import Answer, Order, Relay
from appliance.outputs.relay_client import RelayClient, RelayDevice
from appliance.outputs.relay_server import CLIENTS_MAX, RelayServer
from appliance.paths import StationPaths
from tests.appliance.stations import Daemon, command, make_station, run_json

SECOND = 10**9


def relay() -> Relay:
    """A relay with a living master, in epoch 1, heartbeat 1 at time 0."""
    made = Relay(beat_ns=SECOND, gate_ns=SECOND // 2)
    assert made.connect() == 1
    assert made.beat(1, 1, True, 0)
    return made


def order(tag: int = 7, deadline_ns: int = SECOND // 2, epoch: int = 1) -> Order:
    """A PASS for part `tag` of camera top."""
    return Order(epoch, "top", tag, deadline_ns)


def test_a_pass_lets_its_own_part_through_once() -> None:
    """The part that the PASS names passes, once; another one does not."""
    r = relay()
    assert r.let_pass(order(7), 10) is Answer.ACCEPTED
    assert r.energised(11)
    assert not r.gate("top", 8, 12)
    assert not r.gate("side", 7, 12)
    assert r.gate("top", 7, 13)
    assert not r.gate("top", 7, 14)
    assert not r.energised(15)


def test_silence_is_a_reject() -> None:
    """Nothing said: de-energised."""
    r = relay()
    assert not r.energised(1)
    assert not r.gate("top", 1, 1)


@pytest.mark.parametrize(("now", "answer"), [(SECOND // 2 - 1, Answer.ACCEPTED), (SECOND // 2, Answer.LATE)])
def test_the_deadline_is_the_relays_own(now: int, answer: Answer) -> None:
    """A nanosecond before the deadline is in time, the deadline itself is late."""
    assert relay().let_pass(order(deadline_ns=SECOND // 2), now) is answer


def test_a_lost_heartbeat_lets_go_of_everything() -> None:
    """What was accepted passes no more once the heartbeat fails, and nothing new is taken until it is back."""
    r = relay()
    assert r.let_pass(order(7, 2 * SECOND), 10) is Answer.ACCEPTED
    assert not r.energised(SECOND)
    assert not r.gate("top", 7, SECOND)
    assert r.let_pass(order(8, 2 * SECOND), SECOND) is Answer.NO_HEARTBEAT
    assert r.beat(1, 2, True, SECOND)
    assert not r.energised(SECOND)
    assert r.let_pass(order(9, 2 * SECOND), SECOND) is Answer.ACCEPTED


def test_a_heartbeat_that_does_not_count_on_is_none() -> None:
    """The same number again keeps nothing alive."""
    r = relay()
    assert not r.beat(1, 1, True, SECOND // 2)
    assert r.let_pass(order(7, 2 * SECOND), SECOND) is Answer.NO_HEARTBEAT


def test_not_ready_lets_go() -> None:
    """A master in FAULT says so, and nothing passes."""
    r = relay()
    r.let_pass(order(), 1)
    assert r.beat(1, 2, False, 2)
    assert not r.gate("top", 7, 3)


def test_a_duplicate_is_counted_and_changes_nothing() -> None:
    """The second PASS for one part is ignored, before and after the part has passed."""
    r = relay()
    assert [r.let_pass(order(), now) for now in (1, 2)] == [Answer.ACCEPTED, Answer.DUPLICATE]
    assert r.gate("top", 7, 3)
    assert r.let_pass(order(), 4) is Answer.DUPLICATE
    assert not r.gate("top", 7, 5)
    assert r.counts["duplicate"] == 2


def test_a_new_epoch_voids_the_old() -> None:
    """After a reconnection nothing of before passes: neither what was accepted nor what is replayed."""
    r = relay()
    r.let_pass(order(7), 1)
    assert r.connect() == 2
    assert not r.gate("top", 7, 2)
    assert not r.beat(1, 2, True, 3)
    assert r.beat(2, 1, True, 3)
    assert r.let_pass(order(7, epoch=1), 4) is Answer.OLD_EPOCH
    assert r.let_pass(order(7, epoch=2), 5) is Answer.ACCEPTED


@given(
    st.lists(
        st.tuples(st.sampled_from("bpgcw"), st.integers(1, 3), st.integers(0, 3), st.integers(1, 400)), max_size=60
    )
)
def test_whatever_is_said_a_part_passes_at_most_once_an_epoch_and_never_unasked(
    words: list[tuple[str, int, int, int]],
) -> None:
    """Any mix of heartbeats, PASSes, gates, reconnections and waiting."""
    r, now, beats = Relay(300, 100), 0, 0
    asked: set[tuple[int, int]] = set()
    passed: set[tuple[int, int]] = set()
    for what, epoch, tag, dt in words:
        now += dt
        if what == "c":
            r.connect()
        elif what == "b":
            beats += 1
            r.beat(epoch, beats, True, now)
        elif what == "p" and r.let_pass(Order(epoch, "top", tag, now + 1000), now) is Answer.ACCEPTED:
            asked.add((r.epoch, tag))
        elif what == "g" and r.gate("top", tag, now):
            assert (r.epoch, tag) in asked - passed
            passed.add((r.epoch, tag))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RelayServer]:
    """A relay behind a socket, on the real clock."""
    with RelayServer(tmp_path / "relay", Relay(2 * SECOND, SECOND)) as made:
        threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield made
        made.shutdown()


def token(seq: int, seconds: float = 5.0, tag: int | None = None) -> PassToken:
    """A PASS that is good for so long."""
    deadline = time.monotonic_ns() + int(seconds * SECOND)
    return PassToken(seq, "top", seq, 1, "b", deadline, seq if tag is None else tag)


def until(good: object, what: str) -> None:
    """Wait until `good()`."""
    deadline = time.monotonic() + 30
    while not good():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def test_a_pass_goes_through_the_socket_and_is_confirmed(server: RelayServer, tmp_path: Path) -> None:
    """Confirmed, counted, and at the gate; duplicates and late ones are not. Others may not open the socket."""
    path = tmp_path / "relay"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    output = LineOutput(RelayDevice(path, 1.0), 3 * SECOND, "relay")
    until(lambda: output.beat(True, time.monotonic_ns()) == ("", ""), "it does not connect")
    until(lambda: not server.relay.beat(0, 0, True, 0) and server.relay._beat_at_ns, "no heartbeat")
    now = time.monotonic_ns()
    output.release([token(1), token(2), token(2), token(3, -1.0), token(4, tag=1)], now)
    found: list[tuple[int, bool]] = []
    until(lambda: found.extend(output.settled()) or len(found) == 5, "not settled")
    assert sorted(found) == [(1, True), (2, False), (2, True), (3, False), (4, False)]
    assert (output.passed, output.refused) == (2, 3)
    gate = RelayClient(path, 1.0)
    assert [gate.ask("gate", camera="top", tag=tag)["pass"] for tag in (1, 2, 3, 1)] == [True, True, False, False]
    gate.close()
    output.close()


def test_a_second_master_takes_the_line_from_the_first(server: RelayServer, tmp_path: Path) -> None:
    """The first one's heartbeat is refused from then on, and its PASS too."""
    first, second = (RelayDevice(tmp_path / "relay", 1.0) for _ in range(2))
    first.open()
    first.beat(1, True)
    second.open()
    assert not first.let_pass(token(1))
    with pytest.raises(LinkLostError, match="another master"):
        first.beat(2, True)
    first.close()
    second.close()


@pytest.mark.parametrize("line", [b"\n", b"{}\n", b"[" * 500 + b"\n", b'{"op": "shell"}\n', b'{"op":"gate","tag":-1}\n',
                                  b'{"op":"gate","tag":1e999}\n', b"\xff\xfe\n"])  # fmt: skip
def test_garbage_is_answered_by_an_error(server: RelayServer, tmp_path: Path, line: bytes) -> None:
    """No word of ours: an error, no change, and the next client is served."""
    assert set(server.answer(line)) == {"error"}
    client = RelayClient(tmp_path / "relay", 1.0)
    assert client.ask("state")["energised"] is False
    with pytest.raises(OutputError, match="refused"):
        client.ask("shell")
    client.close()


def test_too_many_connections_are_turned_away(server: RelayServer, tmp_path: Path) -> None:
    """Connections beyond the limit are closed; the ones that are served stay served."""
    clients = []
    for _ in range(CLIENTS_MAX):
        clients.append(RelayClient(tmp_path / "relay", 1.0))
        assert clients[-1].ask("state")["epoch"] == 0
    extra = RelayClient(tmp_path / "relay", 1.0)
    with pytest.raises(LinkLostError):
        extra.ask("state")
    assert clients[0].ask("state")["epoch"] == 0
    for client in (*clients, extra):
        client.close()


def test_a_station_passes_its_parts_through_the_relay(tmp_path: Path) -> None:
    """`appliance relay` beside `appliance run`: each PASS row is a PASS that the relay accepted; without the relay the
    line is held."""
    config = make_station(tmp_path, 20, "fps = 50.0\nloop = true\ncount = 40", '[output]\nkind = "relay"')
    with subprocess.Popen(
        command("relay", "--config", config, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "de-energised" in process.stderr.readline()
        summary = run_json(config)
        process.terminate()
        assert f'"accepted": {summary["passed"]}' in process.communicate(timeout=10)[0]
    assert summary["passed"] == summary["counts"]["ok"] > 25
    with Daemon(make_station(tmp_path, 0, "loop = true\nfps = 20.0", '[output]\nkind = "relay"')) as daemon:
        held = daemon.until(lambda status: status.rejects_by_reason.get("HOLD", 0) > 5)
        assert "start `appliance relay`" in held.state_reason
        assert held.counts.ok == summary["counts"]["ok"]


def test_a_killed_daemon_leaves_the_relay_de_energised(tmp_path: Path) -> None:
    """kill -9 in the middle of a run: nothing is accepted any more, and what was is let go of with the heartbeat."""
    config = make_station(tmp_path, 20, "fps = 50.0\nloop = true", '[output]\nkind = "relay"\nbeat_ms = 600')
    with subprocess.Popen(command("relay", "--config", config), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()
        with Daemon(config) as daemon:
            daemon.until(lambda status: status.counts.ok > 30)
            gate = RelayClient(StationPaths.of(daemon.station.station.data).relay, 1.0)
            daemon.process.kill()
            daemon.process.wait()
            before = gate.ask("state")
            time.sleep(0.65)
            after = gate.ask("state")
        gate.close()
        process.terminate()
    assert before["counts"]["accepted"] > 20
    assert after["counts"]["accepted"] == before["counts"]["accepted"]
    assert after["energised"] is False
    assert after["counts"]["heartbeat lost"] == 1
