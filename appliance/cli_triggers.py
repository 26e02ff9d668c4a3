"""`appliance trigger` and `appliance keys`: triggers by hand, and who may send them by message."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli_options import config_option
from appliance.config import load_station
from calibration.cli_support import emit, example, json_option
from calibration.errors import InputError


@click.command(epilog=example("appliance trigger top --serial A-17 --lot L9 --config station.toml"))
@click.argument("camera")
@click.option("--serial", default="", metavar="TEXT", help="The part's serial; else the number of its row.")
@click.option("--lot", default="", metavar="TEXT", help="The part's lot; else the station's.")
@config_option
@json_option
def trigger(camera: str, serial: str, lot: str, config: Path, as_json: bool) -> None:
    """Say that a part is in front of CAMERA, whose trigger must be "software"."""
    from appliance.client import trigger_camera

    status = trigger_camera(load_station(config), camera, serial, lot)
    told = {"camera": camera, "serial": serial, "lot": lot, "state": status.state.value}
    emit(told, as_json, f"camera {camera}: triggered; the station is in {status.state.value}")


@click.command(epilog=example("appliance keys --client plc-1 --config station.toml"))
@config_option
@click.option("--client", metavar="NAME", help="Make a pair for this sender of triggers too, and let it in.")
@json_option
def keys(config: Path, client: str | None, as_json: bool) -> None:
    """Make the keys for trigger messages, where there are none: the station's, and with --client those of a sender.

    Move keys/NAME.key to the sender's machine, with keys/station.pub. Whose public key lies in keys/clients may
    trigger, from the next start of the station on.
    """
    from appliance.sources.keys import make_client_keys, make_station_keys
    from appliance.sources.settings import LiveCamera

    cameras = load_station(config).camera.values()
    places = {camera.keys for camera in cameras if isinstance(camera, LiveCamera) and camera.trigger == "message"}
    if not places:
        raise InputError(f'{config}: no camera has trigger = "message"; only those need keys')
    made: list[Path] = []
    for directory in sorted(places):
        made += make_station_keys(directory)
        made += make_client_keys(directory, client) if client is not None else []
    told = [str(path) for path in made]
    emit({"made": told}, as_json, "\n".join(told) or "nothing to make: the station has its keys")
