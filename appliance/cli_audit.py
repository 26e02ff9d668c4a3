"""`appliance audit`: who changed what, and whether the record of it is whole."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli_options import config_option
from appliance.config import load_station
from calibration.cli_support import emit, example, json_option
from calibration.text import one_line


@click.group()
def audit() -> None:
    """State changes, configuration and operators' acts: list them, verify that none was tampered with."""


@audit.command("list", epilog=example("appliance audit list --config station.toml --last 20"))
@config_option
@click.option("--last", type=click.IntRange(min=1), default=50, show_default=True, help="How many entries at most.")
@json_option
def list_entries(config: Path, last: int, as_json: bool) -> None:
    """The last entries, oldest first: when, who, what, old and new value."""
    from appliance import history
    from appliance.paths import StationPaths

    with history.open_readonly(StationPaths.of(load_station(config).station.data).database) as connection:
        entries = history.audit_entries(connection, last)
    lines = []
    for entry in entries:
        change = f"{entry['old'] or '-'} -> {entry['new'] or '-'}" if entry["old"] or entry["new"] else ""
        text = f"{entry['id']:>6}  {entry['utc']}  {entry['actor']}  {entry['action']}  {change}"
        lines.append(one_line(text)[:300])
    emit(entries, as_json, "\n".join(lines))


@audit.command(epilog=example("appliance audit verify --config station.toml --checkpoint 312:9f2c..."))
@config_option
@click.option("--checkpoint", metavar="ENTRIES:HASH", help="Noted earlier, elsewhere: it must still hold.")
@json_option
@click.pass_context
def verify(context: click.Context, config: Path, checkpoint: str | None, as_json: bool) -> None:
    """Follow the audit's hash chain from its first entry to its last. Exit code 1 when it is broken.

    Finds any entry edited, deleted, inserted or moved, also at the end. Whoever may write to the database could compute
    the whole chain anew: note the checkpoint that this command prints somewhere else, and give it the next time.
    """
    from appliance import history
    from appliance.audit import Checkpoint, read_head, verify_chain
    from appliance.paths import StationPaths

    noted = None if checkpoint is None else Checkpoint.parse(checkpoint)
    with history.open_readonly(StationPaths.of(load_station(config).station.data).database) as connection:
        problems = verify_chain(connection, noted)
        head = read_head(connection)
    now = "" if head is None or problems else str(head)
    entries = 0 if head is None else head.entries
    text = "\n".join(problems) or f"{entries} entries, each follows from the one before\ncheckpoint {now}"
    emit({"ok": not problems, "entries": entries, "checkpoint": now, "problems": problems}, as_json, text)
    context.exit(1 if problems else 0)
