"""`appliance drift`: how far predictions, light and focus are from their references, and taking the line for these."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from appliance.cli_acts import operator_option
from appliance.cli_options import config_option
from appliance.config import load_station
from calibration.cli_support import Cli, emit, example, json_option, key_values

if TYPE_CHECKING:
    from appliance.messages import Drift, Status


@click.group(cls=Cli)
def drift() -> None:
    """Drift of the predictions, and of each camera's brightness and sharpness."""


@drift.command(epilog=example("appliance drift show --config station.toml"))
@config_option
@json_option
def show(config: Path, as_json: bool) -> None:
    """The last comparisons, as the running station made them.

    Parts on the line are seldom like the set the bundle was made on: there fewer are defects, and the light is the
    station's own. So drift may show from the first window on; `accept` then takes the line itself for the reference.
    """
    from appliance.client import fetch_status

    _tell(fetch_status(load_station(config)), as_json)


@drift.command(epilog=example("appliance drift accept --operator Jana --config station.toml"))
@config_option
@operator_option
@json_option
def accept(config: Path, operator: str, as_json: bool) -> None:
    """Say that the line is well as it is: from now on drift is measured from the parts of the last windows.

    Look at the parts and the pictures first: what is accepted raises no alert any more. Predictions are accepted for
    this bundle, light and focus for every bundle that takes the same frames. The audit keeps the counts, before and
    after.
    """
    from appliance.client import act

    _tell(act(load_station(config), "accept", operator, ""), as_json)


def _tell(now: Status, as_json: bool) -> None:
    watched = (now.drift, *now.light)
    rows = {
        "state": f"{now.state.value} {now.state_reason}".strip(),
        **{each.name: drift_text(each) for each in watched},
    }
    table = key_values(f"Station {now.station}: drift", rows)
    emit({"state": now.state, "state_reason": now.state_reason, "drift": watched}, as_json, table)


def drift_text(drift: Drift) -> str:
    """One comparison in one line."""
    from_ = f"from the {'accepted line' if drift.reference == 'line' else 'bundle'}"
    if not drift.parts:
        return f"not compared yet {from_}"
    word = "DRIFTING" if drift.drifting else "calm"
    return f"{word}: {drift.kl:.4f} nats {from_}, limit {drift.limit:.4f}, {drift.parts} parts"
