"""`appliance relay`: the simulated relay of a station, in a process of its own."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click

from appliance.cli_options import config_option
from appliance.config import load_station
from calibration.cli_support import emit, example, json_option, key_values
from calibration.errors import InputError


@click.command(epilog=example("appliance relay --config station.toml"))
@config_option
@json_option
def relay(config: Path, as_json: bool) -> None:
    """Stand in for the line's relay until SIGTERM or Ctrl-C: energised by a PASS for that very part alone.

    It owns the time-outs: without a heartbeat, with an old epoch, or late, a part is rejected, whatever the daemon
    says. At the end it prints what it was told.
    """
    from appliance.outputs.relay import Relay
    from appliance.outputs.relay_server import RelayServer
    from appliance.outputs.settings import RelayOutput
    from appliance.paths import StationPaths, make_directories

    station = load_station(config)
    section = station.output
    if not isinstance(section, RelayOutput):
        raise InputError(f'{config}: output.kind is {section.kind}; set it to "relay" to use the simulated one')
    paths = StationPaths.of(station.station.data)
    make_directories(paths)
    with RelayServer(paths.relay, Relay(int(section.beat_ms * 1e6), int(section.gate_ms * 1e6))) as server:

        def stop(*_: object) -> None:
            threading.Thread(target=server.shutdown).start()  # it waits for the loop that this signal interrupts

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        click.echo(f"relay of {station.station.name}: de-energised, waits on {paths.relay}", err=True)
        server.serve_forever(poll_interval=0.1)
        counts = dict(server.relay.counts)
    paths.relay.unlink(missing_ok=True)
    emit({"epochs": server.relay.epoch, "counts": counts}, as_json, key_values("Relay", counts))
