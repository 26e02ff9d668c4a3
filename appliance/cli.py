"""`appliance`: run a station, look at it, and find out what a machine lacks."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from appliance.cli_acts import hold, reset, resume
from appliance.cli_audit import audit
from appliance.cli_drift import drift, drift_text
from appliance.cli_options import config_option
from appliance.cli_reevaluate import reevaluate
from appliance.cli_relay import relay
from appliance.cli_replay import replay
from appliance.cli_review import review
from appliance.cli_triggers import keys, trigger
from appliance.config import load_station
from calibration.cli_support import Cli, completion_help, emit, example, json_option, key_values, progress
from calibration.text import one_line


@click.group(cls=Cli, epilog=completion_help("appliance"))
def main() -> None:
    """Judge every part in front of the camera; reject whatever is not proven good."""


@main.command(epilog=example("appliance run --config station.toml"))
@config_option
@click.option("--max-seconds", type=click.FloatRange(min=0.0, min_open=True), help="Stop cleanly after so long.")
@json_option
@click.pass_context
def run(context: click.Context, config: Path, max_seconds: float | None, as_json: bool) -> None:
    """Run the station until its sources end, or until SIGTERM or Ctrl-C.

    Exit code 0 after a clean end, 1 when the station ended in a fault, 2 when it could not start.
    """
    from appliance.daemon import run_station
    from appliance.messages import Counts, State

    station = load_station(config)
    expected = sum(camera.count or 0 for camera in station.camera.values())
    with progress(f"{station.station.name}: parts judged") as report:

        def show(counts: Counts) -> None:
            report(counts.triggers, max(expected, counts.triggers))

        summary = run_station(station, max_seconds, show)
    counts = summary.counts
    table = key_values(
        f"Station {summary.station}",
        {
            "bundle": f"{summary.bundle} ({summary.bundle_sha256[:12]})",
            "engine": summary.engine,
            "ended by": summary.ended_by,
            "parts": counts.triggers,
            "OK": counts.ok,
            "DEFECT": counts.defect,
            "UNSURE": counts.unsure,
            "NOT INSPECTED": counts.not_inspected,
            "parts per second": f"{summary.frames_per_second:.1f}",
            "latency, ms": f"p50 {summary.latency.p50:.1f}, p99 {summary.latency.p99:.1f}",
            **({"state": f"{summary.state.value}: {summary.state_reason}"} if summary.state_reason else {}),
        },
    )
    emit(summary, as_json, table)
    context.exit(1 if summary.state is State.FAULT else 0)


@main.command(epilog=example("appliance status --config station.toml --json"))
@config_option
@json_option
def status(config: Path, as_json: bool) -> None:
    """What the station does now; from its database when no daemon runs."""
    from appliance.client import fetch_status

    now = fetch_status(load_station(config))
    counts = now.counts
    rejects = ", ".join(f"{reason} {n}" for reason, n in sorted(now.rejects_by_reason.items())) or "none"
    last = "none"
    if now.rejects:
        part = now.rejects[0]
        last = f"serial {part.serial}, lot {part.lot or '-'}, {part.reason.value}, camera {part.camera}"
    table = key_values(
        f"Station {now.station}",
        {
            "state": f"{now.state.value} {now.state_reason}".strip(),
            "bundle": f"{now.bundle_name} ({now.bundle_sha256[:12]})",
            "parts": counts.triggers,
            "OK": counts.ok,
            "DEFECT": counts.defect,
            "UNSURE": counts.unsure,
            "NOT INSPECTED": counts.not_inspected,
            "rejects": rejects,
            "last reject": last,
            "parts per second": f"{now.rate:.1f}",
            "latency, ms": f"p50 {now.latency.p50:.1f}, p99 {now.latency.p99:.1f}, worst {now.latency.worst:.1f}",
            **{f"drift: {each.name}": drift_text(each) for each in (now.drift, *now.light)},
            "cameras": ", ".join(f"{name} {how}" for name, how in now.cameras.items()),
            "evidence": f"{now.evidence.written} stored, {now.evidence.dropped} dropped {now.evidence.trouble}".strip(),
            "re-evaluation": now.reevaluation.text if now.reevaluation else "none yet",
            "open alerts": len(now.alerts),
        },
    )
    emit(now, as_json, table)


@main.command(epilog=example("appliance verdicts --config station.toml --last 20"))
@config_option
@click.option("--last", type=click.IntRange(min=1), default=10_000, show_default=True, help="How many rows at most.")
@json_option
def verdicts(config: Path, last: int, as_json: bool) -> None:
    """The last verdict rows, oldest first; whether a daemon runs or not."""
    from appliance import history
    from appliance.paths import StationPaths

    with history.open_readonly(StationPaths.of(load_station(config).station.data).database) as connection:
        rows = history.verdicts(connection, last)
    lines = []
    for row in rows:
        chance = "" if row["defect_probability"] is None else f"{row['defect_probability']:.3f}"
        part = f"{row['serial']} {row['lot'] or '-'}"
        fields = (
            row["seq"],
            row["utc"],
            part,
            row["camera"],
            f"{row['verdict']:6}",
            f"{row['reason'] or '-':9}",
            chance,
        )
        lines.append(one_line("  ".join(map(str, (*fields, row["frame"], row["detail"])))))
    emit(rows, as_json, "\n".join(lines))


@main.command(epilog=example("appliance doctor --config station.toml"))
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Look at this station too.")
@json_option
@click.pass_context
def doctor(context: click.Context, config: Path | None, as_json: bool) -> None:
    """What this machine has and lacks, with remedies. Exit code 1 when something needed is missing."""
    from appliance.doctor import Mark, examine

    findings = examine(None if config is None else load_station(config))
    colour = {Mark.OK: "green", Mark.MISSING: "red", Mark.ABSENT: "yellow"}
    lines = []
    for finding in findings:
        mark = click.style(f"{finding.mark.value:8}", fg=colour[finding.mark])
        lines.append(f"{mark}{finding.name:21}{one_line(finding.found)}")
        if finding.remedy:
            lines.append(f"{'':8}{'':21}-> {one_line(finding.remedy)}")
    emit({"findings": findings}, as_json, "\n".join(lines))
    context.exit(1 if any(finding.mark is Mark.MISSING for finding in findings) else 0)


@main.command(epilog=example("appliance tui --config station.toml --operator Jana"))
@config_option
@click.option("--operator", default="", metavar="NAME", help="Recorded with acknowledgements; otherwise asked for.")
@json_option
def tui(config: Path, operator: str, as_json: bool) -> None:
    """The operator's screen: counts, rejects, alerts. Needs a terminal of at least 80x24; keys only.

    With --json, what the screen would show now is printed instead, and no terminal is needed.
    """
    from appliance.client import fetch_status
    from appliance.tui.app import run_tui

    station = load_station(config)
    if as_json:
        emit(fetch_status(station), as_json)
    else:
        run_tui(station, operator)


main.add_command(audit)
main.add_command(drift)
main.add_command(hold)
main.add_command(resume)
main.add_command(reset)
main.add_command(keys)
main.add_command(relay)
main.add_command(reevaluate)
main.add_command(replay)
main.add_command(review)
main.add_command(trigger)

if __name__ == "__main__":
    sys.exit(main())
