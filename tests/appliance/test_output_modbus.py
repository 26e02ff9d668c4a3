"""PASS by Modbus TCP against a real server on loopback."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.judge import PassToken
from appliance.outputs.line import LineOutput
from appliance.outputs.modbus import ModbusDevice
from appliance.outputs.protocol import LinkLostError, OutputError
from appliance.outputs.settings import ModbusOutput
from tests.appliance.stations import appliance, make_station, rows

pytest.importorskip("pymodbus", reason="needs the extra io")

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

WRITE = 16


class Plc:
    """A PLC with twenty registers from 100 on, on a port of its own; `trouble` is what it does to a PASS."""

    def __init__(self) -> None:
        self.trouble = ""
        self.passes: list[list[int]] = []
        self.beats: list[list[int]] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)
        self._thread.start()
        assert self._up.wait(5)

    def section(self, timeout_ms: float = 900.0) -> ModbusOutput:
        """[output] for it."""
        return ModbusOutput(kind="modbus", host="127.0.0.1", port=self.port, address=100, timeout_ms=timeout_ms)

    async def _serve(self) -> None:
        registers = [SimData(100, count=20, values=0, datatype=DataType.REGISTERS)]
        self._server = ModbusTcpServer(SimDevice(1, registers, action=self._touched), address=("127.0.0.1", self.port))
        await self._server.serve_forever(background=True)
        self._done = asyncio.Event()
        self._up.set()
        await self._done.wait()
        await self._server.shutdown()

    async def _touched(
        self, function: int, start: int, address: int, count: int, registers: list[int], values: list[int] | None
    ) -> ExcCodes | None:
        if function == WRITE and values is not None and address == 102:
            self.passes.append(list(values))
            if self.trouble == "refuses":
                return ExcCodes.DEVICE_FAILURE
            if self.trouble == "hangs":
                await asyncio.sleep(5)
            if self.trouble == "stuck":
                values[-1] = 0
        elif function == WRITE and values is not None:
            self.beats.append(list(values))
        return None

    def drop(self) -> None:
        """Close all connections, as a PLC that is loaded anew."""
        for connection in list(self._server.active_connections.values()):
            self._loop.call_soon_threadsafe(connection.close)

    def close(self) -> None:
        """Switch it off."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._done.set)
            self._thread.join(5)
            self._loop.close()


@pytest.fixture
def plc() -> Iterator[Plc]:
    """A PLC in good health."""
    made = Plc()
    yield made
    made.close()


def token(seq: int, tag: int | None = None, seconds: float = 30.0) -> PassToken:
    """A PASS of camera side."""
    deadline = time.monotonic_ns() + int(seconds * 1e9)
    return PassToken(seq, "side", seq, 0, "b", deadline, seq if tag is None else tag)


def opened(plc: Plc, timeout_ms: float = 900.0) -> ModbusDevice:
    """A connected device."""
    device = ModbusDevice(plc.section(timeout_ms), ["top", "side"])
    device.open()
    return device


def test_registers_name_the_part_and_are_read_back(plc: Plc) -> None:
    """Epoch, camera, tag in four words, time left, and a strobe that changes with each PASS."""
    device = opened(plc)
    device.beat(7, True)
    assert device.let_pass(token(1, tag=0x0001_0002_0003_0004, seconds=2.0))
    assert device.let_pass(token(2, tag=9, seconds=500.0))
    device.close()
    assert plc.beats == [[7, 1, 1]]
    first, second = plc.passes
    assert first[:6] == [1, 2, 1, 2, 3, 4]
    assert 1000 < first[6] <= 2000
    assert second == [1, 2, 0, 0, 0, 9, 65535, 2]
    assert first[7] == 1


def test_each_connection_is_a_new_epoch(plc: Plc) -> None:
    """Epoch and strobe go on from the PLC's own registers, also in another process."""
    for _ in range(3):
        device = opened(plc)
        device.beat(1, True)
        device.let_pass(token(1))
        device.close()
    assert [(values[0], values[-1]) for values in plc.passes] == [(1, 1), (2, 2), (3, 3)]


def test_a_late_pass_is_not_written(plc: Plc) -> None:
    """At its deadline nothing is written at all."""
    device = opened(plc)
    assert not device.let_pass(token(1, seconds=0.0))
    assert plc.passes == []
    device.close()


@pytest.mark.parametrize(
    ("trouble", "text"), [("stuck", "read-back"), ("refuses", "refuses"), ("hangs", "no answer within")]
)
def test_a_pass_that_is_not_understood_is_an_error(plc: Plc, trouble: str, text: str) -> None:
    """A register that keeps another value, an exception response, and no answer: OutputError, which is a FAULT."""
    device = opened(plc)
    plc.trouble = trouble
    with pytest.raises(OutputError, match=text):
        device.let_pass(token(1))
    device.close()


def test_a_plc_that_is_not_there(plc: Plc) -> None:
    """Nobody listens: the link is lost, with address."""
    plc.close()
    with pytest.raises(LinkLostError, match=str(plc.port)):
        opened(plc)


def test_a_dropped_connection_comes_back_under_a_new_epoch(plc: Plc) -> None:
    """The PLC drops the connection between parts: a hold, reconnection, and PASS in the next epoch."""
    output = LineOutput(ModbusDevice(plc.section(), ["top", "side"]), 3 * 10**9, "modbus")

    def until(good: object, what: str) -> None:
        deadline = time.monotonic() + 10
        while not good(output.beat(True, time.monotonic_ns())):  # type: ignore[operator]
            assert time.monotonic() < deadline, what
            time.sleep(0.02)

    until(lambda state: not state.hold and len(plc.beats) > 1, "no connection")
    plc.drop()
    until(lambda _: plc.beats[-1][2] == 2, "no second epoch")
    until(lambda state: not state.hold, "still held")
    output.release([token(1)], time.monotonic_ns())
    until(lambda _: list(output.settled()) == [(1, True)], "not confirmed")
    assert plc.passes[-1][0] == 2
    assert output.passed == 1
    output.close()
    assert plc.beats[-1][1] == 0


def test_a_station_whose_plc_lies_ends_in_fault_and_nothing_passed(plc: Plc, tmp_path: Path) -> None:
    """The first PASS is read back wrongly: FAULT, its row becomes REJECT(OUTPUT), and no PASS is counted anywhere."""
    plc.trouble = "stuck"
    output = f'[output]\nkind = "modbus"\nhost = "127.0.0.1"\nport = {plc.port}\naddress = 100\ntimeout_ms = 2000'
    config = make_station(tmp_path, 20, "fps = 40.0\nloop = true\ncount = 60", output)
    done = appliance("run", "--config", config, "--json")
    assert done.returncode == 1, done.stderr
    summary = json.loads(done.stdout)
    assert summary["state"] == "FAULT"
    assert "read-back" in summary["state_reason"]
    assert (summary["passed"], summary["counts"]["ok"], summary["counts"]["triggers"]) == (0, 0, 60)
    assert summary["rejects_by_reason"]["OUTPUT"] >= 1
    assert rows(config, "SELECT COUNT(*) FROM verdict WHERE verdict = 'PASS'") == [(0,)]
    assert plc.beats[-1][1] == 0
    assert len(plc.passes) == 1
