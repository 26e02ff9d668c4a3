"""Where a PASS goes, behind one protocol."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.outputs.protocol import Output
from appliance.outputs.settings import ModbusOutput, MqttOutput, NoOutput, OutputSection
from appliance.outputs.tally import TallyOutput
from appliance.paths import StationPaths

__all__ = ["Output", "TallyOutput", "open_output"]


def open_output(section: OutputSection, cameras: Sequence[str], paths: StationPaths) -> Output:
    """The output that [output] describes; it connects when it is given its first heartbeat.

    `cameras`: their names in the order of station.toml. Raises InputError.
    """
    if isinstance(section, NoOutput):
        return TallyOutput()
    from appliance.outputs.line import LineOutput

    timeout_ns = int(section.timeout_ms * 1e6)
    if isinstance(section, ModbusOutput):
        from appliance.outputs.modbus import ModbusDevice

        return LineOutput(ModbusDevice(section, cameras), timeout_ns, "output modbus")
    if isinstance(section, MqttOutput):
        from appliance.outputs.mqtt import MqttDevice

        return LineOutput(MqttDevice(section), timeout_ns, "output mqtt")
    from appliance.outputs.relay_client import RelayDevice

    return LineOutput(RelayDevice(paths.relay, section.timeout_ms / 2000), timeout_ns, "output relay")
