"""`appliance replay`: a stored verdict, judged again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from appliance.cli_options import config_option
from appliance.config import load_station
from calibration.cli_support import emit, example, json_option
from calibration.text import one_line


@click.command(epilog=example("appliance replay 4711 --config station.toml"))
@click.argument("serial")
@config_option
@json_option
@click.pass_context
def replay(context: click.Context, serial: str, config: Path, as_json: bool) -> None:
    """Judge the part with this SERIAL again, from its stored frame and bundle, and compare bit for bit.

    A serial that was judged several times is replayed as often. Exit code 0 when everything is equal, 1 when something
    differs, 2 when the part or what it takes is not stored.
    """
    from appliance import history
    from appliance.paths import StationPaths
    from appliance.replaying import replay as replayed
    from calibration.errors import InputError

    station = load_station(config)
    with history.open_readonly(StationPaths.of(station.station.data).database) as connection:
        rows = history.verdicts_of(connection, serial)
    if not rows:
        raise InputError(f"serial {serial}: no such part in the database; `appliance verdicts` lists them")
    results = [replayed(station, row) for row in rows]
    lines = []
    for result in results:
        row = result.stored
        said = "equal" if result.equal else f"not stored: {result.why}" if result.why else "DIFFERS: "
        said += ", ".join(f"{n} {_shown(row[n])} -> {_shown(result.again[n])}" for n in result.differences)
        told = f"{row['seq']}  {row['utc']}  {row['camera']}  {row['verdict']} {row['reason'] or '-'}  {said}"
        lines.append(one_line(told))
    told_as = [
        {
            "seq": result.stored["seq"],
            "result": "equal" if result.equal else "not stored" if result.why else "differs",
            "why": result.why,
            "stored": {name: _shown(value) for name, value in result.stored.items()},
            "again": {name: _shown(value) for name, value in result.again.items()},
        }
        for result in results
    ]
    emit({"serial": serial, "rows": told_as}, as_json, "\n".join(lines))
    context.exit(1 if any(r.differences for r in results) else 2 if any(r.why for r in results) else 0)


def _shown(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value
