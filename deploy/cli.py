"""`deploy`: bundles onto devices and back off them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from calibration.cli_support import Cli, completion_help, emit, example, json_option, key_values, progress, warn
from calibration.errors import InputError
from deploy.bundle import Bundle, open_bundle
from deploy.cli_keys import enrol_command, keys_group, sign_command
from deploy.push import Outcome, PushReport, Transport, push, reach_all, rollback
from deploy.slots import SLOT_NAMES, Slots


@click.group(cls=Cli, epilog=completion_help("deploy"))
@click.version_option(package_name="lineguard")
def main() -> None:
    """Get a bundle onto a device, and back off it.

    A device is written file:DIR, a device root on this machine.
    """


cli = main
main.add_command(keys_group)
main.add_command(sign_command)
main.add_command(enrol_command)


_devices = click.argument("devices", metavar="DEVICE...", nargs=-1, required=True)


@main.command("push", epilog=example("deploy push solar.lgb file:/var/lib/lineguard"))
@click.argument("file", type=click.Path(path_type=Path))
@_devices
@click.option("--dry-run", is_flag=True, help="Print what would be done; change nothing.")
@click.option("--retry", is_flag=True, help="Push even a bundle that the device has rejected before.")
@json_option
def push_command(file: Path, devices: tuple[str, ...], dry_run: bool, retry: bool, as_json: bool) -> None:
    """Verify a bundle, copy it to each DEVICE and put it on trial there.

    A device that was enrolled takes only what `deploy sign` has signed for it: FILE.sig must lie beside FILE.

    The appliance on the device confirms it once its golden frames have passed, or goes back to the bundle before.
    """
    report = push(file, devices, progress, dry_run, retry)
    emit(_push_json(report), as_json, _outcome_table(_push_title(report), report.devices, dry_run))
    for outcome in report.devices:
        if outcome.enrolled is False and not report.failed:
            warn(f"{outcome.address} is not enrolled: signatures are not checked; `deploy enrol` switches that on")
    _fail(report.failed, len(report.devices))


@main.command("rollback", epilog=example("deploy rollback file:/var/lib/lineguard --reason 'too many overkills'"))
@_devices
@click.option("--reason", default="rolled back by hand", show_default=True, help="For the device's history.")
@click.option("--dry-run", is_flag=True, help="Print what would be done; change nothing.")
@json_option
def rollback_command(devices: tuple[str, ...], reason: str, dry_run: bool, as_json: bool) -> None:
    """Let the bundle that each DEVICE had confirmed before judge again."""
    outcomes = rollback(devices, reason, dry_run)
    result = {"dry_run": dry_run, "devices": [_outcome_json(outcome) for outcome in outcomes]}
    emit(result, as_json, _outcome_table("Rollback", outcomes, dry_run))
    _fail(tuple(outcome for outcome in outcomes if outcome.error), len(outcomes))


@main.command("status", epilog=example("deploy status file:/var/lib/lineguard --json"))
@_devices
@click.option("--history", "steps", default=5, show_default=True, help="How many of the last steps to show.")
@json_option
def status_command(devices: tuple[str, ...], steps: int, as_json: bool) -> None:
    """Show what each DEVICE holds, whether it is intact, and the last steps of its history."""
    states: list[dict[str, Any]] = []
    for device in reach_all(devices):
        try:
            states.append(_status(device, steps))
        except InputError as error:
            states.append({"device": device.address, "error": str(error)})
    if as_json:
        emit({"devices": states}, as_json)
    else:
        for state in states:
            emit(state, as_json, _status_table(state) if "slots" in state else None)
    failed = [state for state in states if state["error"]]
    if failed:
        raise InputError(_summary([(state["device"], state["error"]) for state in failed], len(states)))


@main.command("inspect", epilog=example("deploy inspect solar.lgb"))
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def inspect_command(file: Path, as_json: bool) -> None:
    """Verify a bundle FILE and show what is in it (--json: its whole manifest)."""
    bundle = open_bundle(file)
    sizes = {name: len(data) for name, data in sorted(bundle.members.items())}
    result = {"file": file, "sha256": bundle.sha256, "manifest": bundle.manifest, "sizes": sizes}
    emit(result, as_json, _bundle_table(bundle))


def _push_title(report: PushReport) -> str:
    return f"{report.name}  {report.sha256[:12]}"


def _push_json(report: PushReport) -> dict[str, Any]:
    return {
        "file": report.file,
        "name": report.name,
        "sha256": report.sha256,
        "dry_run": report.dry_run,
        "devices": [_outcome_json(outcome) for outcome in report.devices],
    }


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "device": outcome.address,
        "plan": outcome.plan.steps if outcome.plan else (),
        "why": outcome.plan.why if outcome.plan else "",
        "done": outcome.done,
        "slots": outcome.slots,
        "enrolled": outcome.enrolled,
        "error": outcome.error,
    }


def _outcome_table(title: str, outcomes: tuple[Outcome, ...], dry_run: bool) -> Table:
    table = _table(title, "device", "would do" if dry_run else "done", "why", "judges now")
    for outcome in outcomes:
        plan = outcome.plan
        steps = (plan.steps if plan else ()) if dry_run else outcome.done
        did = "failed" if outcome.error else ", ".join(steps) or "nothing"
        why = outcome.error or (plan.why if plan else "")
        _row(table, outcome.address, did, why, _judging(outcome.slots))
    return table


def _judging(slots: Slots | None) -> str:
    slot = slots.active_slot if slots else None
    return f"{slot.name} {slot.sha256[:12]} ({slot.state.value})" if slot else "nothing"


def _status(device: Transport, steps: int) -> dict[str, Any]:
    status = device.status(steps)
    record = status.record
    slots = {name: (record.a if name == "a" else record.b).model_dump(mode="json") for name in SLOT_NAMES}
    for name, intact in status.intact.items():
        slots[name]["intact"] = intact
    damaged = [name for name, intact in status.intact.items() if not intact]
    return {
        "device": device.address,
        "generation": record.generation,
        "active": record.active,
        "slots": slots,
        "history": [line.model_dump(mode="json") for line in status.history],
        "error": f"slot {damaged[0]}: its bundle is damaged or gone; push it again" if damaged else "",
    }


def _status_table(state: dict[str, Any]) -> Table:
    table = _table(state["device"], "slot", "state", "bundle", "since (UTC)", "note")
    for name, slot in state.get("slots", {}).items():
        judging = " (judges)" if name == state["active"] else ""
        note = slot["reason"] if slot.get("intact", True) else "DAMAGED " + slot["reason"]
        _row(table, name, slot["state"] + judging, _named(slot), _minute(slot["since"]), note)
    table.add_section()
    for line in state.get("history", []):
        told = f"{line['reason']} by {line['who']}".strip()
        _row(table, line["slot"] or "", line["what"], _named(line), _minute(line["time"]), told)
    return table


def _named(record: dict[str, Any]) -> str:
    return f"{record['name']} {record['sha256'][:12]}".strip()


def _minute(time: str) -> str:
    return time[:16].replace("T", " ")


def _bundle_table(bundle: Bundle) -> Table:
    manifest = bundle.manifest
    spec = manifest.preprocess
    rows = {
        "name": manifest.name,
        "sha256": bundle.sha256,
        "made": manifest.created.isoformat(timespec="seconds"),
        "classes": ", ".join(manifest.classes) + f" (good: {manifest.ok_class})",
        "input": f"{spec.width}x{spec.height}, {'colour' if spec.channels == 3 else 'grey'}, {spec.fit}",
        "frames": "widths {}..{}, ".format(*spec.frame_widths) + "heights {}..{}".format(*spec.frame_heights),
        "dataset": f"{manifest.provenance.dataset} {manifest.provenance.dataset_sha256[:12]}",
        "code": manifest.provenance.code_revision,
        "golden frames": str(len(bundle.goldens())),
    }
    for name, variant in manifest.variants.items():
        rule, parity = variant.rule, variant.parity
        rows[f"variant {name}"] = (
            f"temperature {rule.temperature:.3g}, OK up to {rule.ok_below:.3g}, DEFECT from {rule.defect_above:.3g}, "
            f"{parity.agreement:.2%} of {parity.parts} verdicts as FP32, {parity.paired_escapes} paired escapes"
        )
    rows.update({f"metric {name}": f"{interval:.4f}" for name, interval in manifest.metrics.items()})
    return key_values(bundle.path.name, rows)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _row(table: Table, *cells: str) -> None:
    """Add cells as plain text: brackets in a name are no markup."""
    table.add_row(*(Text(cell) for cell in cells))


def _fail(failed: tuple[Outcome, ...], total: int) -> None:
    if failed:
        raise InputError(_summary([(outcome.address, outcome.error) for outcome in failed], total))


def _summary(failed: list[tuple[str, str]], total: int) -> str:
    if total == 1:
        return failed[0][1]
    return f"{len(failed)} of {total} devices failed: " + "; ".join(f"{name}: {error}" for name, error in failed)
