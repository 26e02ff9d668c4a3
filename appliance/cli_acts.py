"""`appliance hold`, `resume` and `reset`: what an operator asks of the running station, on record with the name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from appliance.cli_options import config_option
from appliance.config import load_station
from calibration.cli_support import emit, example, json_option

if TYPE_CHECKING:
    from appliance.client import Act

operator_option = click.option("--operator", required=True, metavar="NAME", help="Who acts; recorded in the audit.")


def _carry_out(op: Act, config: Path, operator: str, why: str, as_json: bool) -> None:
    from appliance.client import act

    status = act(load_station(config), op, operator, why)
    told = {"act": op, "operator": operator, "state": status.state.value, "state_reason": status.state_reason}
    emit(told, as_json, f"{op} by {operator}: the station is now {status.state.value} {status.state_reason}".rstrip())


@click.command(epilog=example('appliance hold --operator Jana --why "cleaning the lens" --config station.toml'))
@config_option
@operator_option
@click.option("--why", required=True, metavar="TEXT", help="Shown on the screens and recorded.")
@json_option
def hold(config: Path, operator: str, why: str, as_json: bool) -> None:
    """Reject every part until `appliance resume`; parts are judged and recorded, none passes."""
    _carry_out("hold", config, operator, why, as_json)


@click.command(epilog=example("appliance resume --operator Jana --config station.toml"))
@config_option
@operator_option
@json_option
def resume(config: Path, operator: str, as_json: bool) -> None:
    """Let the line go on: ends an operator's hold, and acknowledges holds that a person has to look at.

    A hold whose cause lasts, such as a full disk, ends with its cause. So does hard drift, once it is acknowledged.
    """
    _carry_out("resume", config, operator, "", as_json)


@click.command(epilog=example("appliance reset --operator Jana --config station.toml"))
@config_option
@operator_option
@json_option
def reset(config: Path, operator: str, as_json: bool) -> None:
    """Leave FAULT after a repair: engine and cameras start anew and the goldens have to pass; nothing passes before."""
    _carry_out("reset", config, operator, "", as_json)
