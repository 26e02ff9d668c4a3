"""PASS by Modbus TCP: holding registers that the appliance writes and reads back, and the PLC only reads.

From `address` on, all unsigned, words of a number with the highest first::

    0       heartbeat: counts on, a few times a second
    1       ready: 1, or 0 in FAULT and when the station stops
    2       epoch: another number after each connection
    3       camera: 1 for the first of station.toml
    4 to 7  tag: id of the part's trigger message, or the number of its trigger
    8       milliseconds left, when it was written, until the part's deadline; 65535 stands for more
    9       strobe: changes with each PASS; written in the same telegram as 2 to 8

The PLC owns the time-out: it lets a part pass only if the strobe has changed, epoch, camera and tag are those of the
part that it has there, and the heartbeat counted on less than a second ago.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from appliance.judge import PassToken
from appliance.outputs.protocol import LinkLostError, OutputError
from calibration.errors import InputError

if TYPE_CHECKING:
    from appliance.outputs.settings import ModbusOutput

WORD = 2**16


class ModbusDevice:
    """See Device."""

    def __init__(self, section: ModbusOutput, cameras: Sequence[str]) -> None:
        """`cameras`: their names in the order of station.toml. Raises InputError where pymodbus is not installed."""
        try:
            from pymodbus.client import ModbusTcpClient
        except ImportError:
            raise InputError("output.kind: modbus needs pymodbus; pip install 'lineguard[io]'") from None
        self._section, self._timeout_s = section, section.timeout_ms / 1000 / 3
        self._camera = {name: index for index, name in enumerate(cameras, 1)}
        # One try: a repeated write would come from a time that is over. Connecting goes on in LineOutput.
        self._client: Any = ModbusTcpClient(section.host, port=section.port, timeout=self._timeout_s, retries=0)
        self._epoch = self._strobe = 0

    def open(self) -> None:
        """See Device.open. Epoch and strobe go on from what the registers hold."""
        if not self._client.connect():
            raise LinkLostError(f"{self._section.host}:{self._section.port} does not answer")
        registers = self._read(0, 10)
        self._epoch, self._strobe = (registers[2] + 1) % WORD, registers[9]

    def beat(self, count: int, ready: bool) -> None:
        """See Device.beat."""
        self._write(0, [count % WORD, int(ready), self._epoch])

    def let_pass(self, token: PassToken) -> bool:
        """See Device.let_pass."""
        tag = token.tag.to_bytes(8, "big")
        words = [int.from_bytes(tag[i : i + 2], "big") for i in range(0, 8, 2)]
        left_ms = min((token.deadline_ns - time.monotonic_ns()) // 1_000_000, WORD - 1)
        if left_ms <= 0:
            return False
        self._strobe = (self._strobe + 1) % WORD
        self._write(2, [self._epoch, self._camera[token.camera], *words, left_ms, self._strobe])
        return True

    def close(self) -> None:
        """See Device.close."""
        self._client.close()

    def _write(self, offset: int, values: list[int]) -> None:
        """Write registers and read them back."""
        address, unit = self._section.address + offset, self._section.unit
        self._ask(lambda: self._client.write_registers(address, values, device_id=unit))
        found = self._read(offset, len(values))
        if found != values:
            raise OutputError(f"read-back: wrote {values} to register {address}, it holds {found}")

    def _read(self, offset: int, count: int) -> list[int]:
        address, unit = self._section.address + offset, self._section.unit
        answer = self._ask(lambda: self._client.read_holding_registers(address, count=count, device_id=unit))
        registers = list(answer.registers)
        if len(registers) != count:
            raise OutputError(f"read-back: asked for {count} registers from {address}, got {len(registers)}")
        return registers

    def _ask(self, what: Callable[[], Any]) -> Any:
        from pymodbus.exceptions import ModbusException

        began = time.monotonic()
        try:
            answer = what()
        except (ModbusException, OSError) as error:
            if time.monotonic() - began >= self._timeout_s:
                raise OutputError(f"no answer within {self._timeout_s * 1000:.0f} ms") from None
            raise LinkLostError(f"connection lost: {error}") from None
        if answer.isError():
            raise OutputError(f"the device refuses: {answer}")
        return answer
