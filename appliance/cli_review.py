"""`appliance review`: parts that wait for a person, and what a person says of them."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli_options import config_option
from appliance.config import load_station
from calibration.cli_support import emit, example, json_option, progress, say, warn
from calibration.text import one_line


@click.group()
def review() -> None:
    """UNSURE parts, and parts drawn at random, are cases that stay open until a person has judged them."""


@review.command("list", epilog=example("appliance review list --config station.toml"))
@config_option
@click.option("--last", type=click.IntRange(min=1), default=50, show_default=True, help="How many cases at most.")
@json_option
def list_cases(config: Path, last: int, as_json: bool) -> None:
    """Open cases, newest first, with the picture of each where one was kept.

    What the model said of a part drawn at random ("sample") is not shown: judge it as if nobody had. Such a part is no
    case any more once its picture is gone.
    """
    from appliance.cases import open_cases

    cases = open_cases(load_station(config), last)
    lines = []
    for case in cases:
        fields = (case.seq, case.utc, case.serial, case.lot or "-", case.camera)
        chance = case.kind if case.defect_probability is None else f"{case.defect_probability:.3f}"
        lines.append(one_line("  ".join(map(str, (*fields, chance, case.evidence or "no picture")))))
    emit(cases, as_json, "\n".join(lines) or "no open cases")


@review.command(epilog=example("appliance review judge 4711 DEFECT --operator Jana --config station.toml"))
@click.argument("row", type=click.IntRange(min=1))
@click.argument("decision", type=click.Choice(["OK", "DEFECT"]))
@config_option
@click.option("--operator", required=True, metavar="NAME", help="Who judges; recorded.")
@json_option
def judge(row: int, decision: str, config: Path, operator: str, as_json: bool) -> None:
    """Record a person's verdict on the part of this ROW; the machine's is never changed. Works while a daemon runs."""
    from appliance.client import review as record

    record(load_station(config), row, decision, operator)
    emit({"row": row, "decision": decision, "operator": operator}, as_json, f"row {row}: {decision}, by {operator}")


@review.command("export", epilog=example("appliance review export --out judged --config station.toml"))
@config_option
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder to write.")
@json_option
def export_judged(config: Path, out: Path, as_json: bool) -> None:
    """Write the pictures of all parts that people have judged, for `trainer import folder`: DIR/OK and DIR/DEFECT.

    DIR/groups.csv says which show the same part, DIR/parts.csv who said what of it, and what the model had said. Works
    while a daemon runs. Parts whose picture was not kept are named and left out.
    """
    from appliance import history
    from appliance.paths import StationPaths
    from appliance.review_export import export_reviews

    station = load_station(config)
    paths = StationPaths.of(station.station.data)
    with history.open_readonly(paths.database) as connection:
        rows = history.judged_by_people(connection)
    with progress("judged parts") as report:
        made = export_reviews(rows, paths.evidence, out, station.station.name, report)
    for seq, why in made.missing.items():
        warn(f"row {seq}: {why}")
    counts = ", ".join(f"{name} {n}" for name, n in made.written.items())
    emit(made, as_json, f"{out}: {counts}; {len(made.missing)} without a picture")
    say(f"next: trainer import folder {out} --ok OK --out data")
