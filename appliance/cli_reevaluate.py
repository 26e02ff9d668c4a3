"""`appliance reevaluate`: what people's judgement says of the model on the line."""

from __future__ import annotations

import time
from pathlib import Path

import click
from rich.table import Table

from appliance.cli_options import config_option
from appliance.config import load_station
from appliance.messages import Reevaluation
from calibration.cli_support import emit, example, json_option


@click.command(epilog=example("appliance reevaluate --config station.toml"))
@config_option
@click.option(
    "--days", type=click.IntRange(1, 3650), metavar="N", help="Parts of so many days. Default: as configured."
)
@json_option
def reevaluate(config: Path, days: int | None, as_json: bool) -> None:
    """Escape rate and overkill on the line, from people's word on parts drawn at random (`appliance review`).

    The daemon does the same every few hours, and raises an alert when the model is worse than its bundle states. This
    changes nothing. Needs `[evidence] sample_mib`: without a picture nobody can judge a part again.
    """
    from appliance import history
    from appliance.bundles import find_bundle
    from appliance.engines.protocol import variant_of
    from appliance.monitor.reevaluation import reevaluate as find
    from appliance.paths import StationPaths
    from calibration.errors import InputError

    station = load_station(config)
    section = station.reevaluation.model_copy(update={} if days is None else {"days": days})
    with history.open_readonly(StationPaths.of(station.station.data).database) as connection:
        sha256 = history.last_bundle(connection)
        if not sha256:
            raise InputError(f"station {station.station.name}: no part was judged yet; start it with `appliance run`")
        bundle = find_bundle(station.station.bundle, sha256)
        if bundle is None:
            path = station.station.bundle
            raise InputError(f"{path}: lacks the bundle that judged last, {sha256[:12]}; set station.bundle to a copy")
        found = find(connection, bundle, variant_of(station.engine.kind), section, time.time())
    emit(found, as_json, _table(station.station.name, bundle.manifest.name, found))


def _table(station: str, bundle: str, found: Reevaluation) -> Table:
    """Both rates, and what they rest on."""
    told = ", ".join(f"{name} {one.judged} of {one.parts}" for name, one in found.decisions.items())
    table = Table(
        title=f"{station}, {bundle}, since {found.since}\njudged by people: {told}", title_justify="left", min_width=78
    )
    for column in ("", "on the line", "95 % interval", "by the model", "stated, at most", ""):
        table.add_column(column)
    for name, rate in (("escape rate", found.escape), ("overkill", found.overkill)):
        limits = f"{rate.low:.1%} to {rate.high:.1%}"
        shares = (rate.value, rate.expected, rate.stated)
        value, expected, stated = ("unknown" if share is None else f"{share:.1%}" for share in shares)
        table.add_row(name, value, limits, expected, stated, "WORSE" if rate.beyond else "")
    return table
