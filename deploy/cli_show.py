"""What the `deploy` commands print: JSON, tables for people, one progress bar a device."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from calibration.cli_support import key_values
from calibration.errors import InputError
from deploy.bundle import Bundle
from deploy.install import Report
from deploy.inventory import Inventory
from deploy.push import Outcome, Watch, kind_of
from deploy.rollout import PushReport
from deploy.slots import SLOT_NAMES, Slots
from deploy.transport import Transport


@contextmanager
def bars() -> Iterator[Watch]:
    """One progress bar for each device that is copied to, on stderr; silent when that is no terminal."""
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as shown:

        @contextmanager
        def watch(address: str) -> Iterator[Report]:
            task = shown.add_task(address, total=None)
            yield lambda done, total: shown.update(task, completed=done, total=total)

        yield watch


def push_json(report: PushReport) -> dict[str, Any]:
    """Who has what."""
    return {
        "file": report.file,
        "name": report.name,
        "sha256": report.sha256,
        "dry_run": report.dry_run,
        "devices": [outcome_json(outcome) for outcome in report.devices],
    }


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """One device."""
    return {
        "device": outcome.address,
        "plan": outcome.plan.steps if outcome.plan else (),
        "why": outcome.plan.why if outcome.plan else "",
        "done": outcome.done,
        "slots": outcome.slots,
        "enrolled": outcome.enrolled,
        "trial": outcome.trial,
        "error": outcome.error,
        "kind": outcome.kind,
    }


def outcome_table(title: str, outcomes: tuple[Outcome, ...], dry_run: bool) -> Table:
    """The same for people."""
    table = new_table(title, "device", "would do" if dry_run else "done", "why", "judges now")
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


def status_json(device: Transport, steps: int) -> dict[str, Any]:
    """All there is to tell of a device; what cannot be had is its `error`."""
    try:
        status = device.status(steps)
    except InputError as error:
        return {"device": device.address, "error": str(error), "kind": kind_of(error)}
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
        "kind": "DeviceError" if damaged else "",
    }


def status_table(state: dict[str, Any]) -> Table:
    """The same for people."""
    table = new_table(state["device"], "slot", "state", "bundle", "since (UTC)", "note")
    for name, slot in state.get("slots", {}).items():
        judging = " (judges)" if name == state["active"] else ""
        note = slot["reason"] if slot.get("intact", True) else "DAMAGED " + slot["reason"]
        _row(table, name, slot["state"] + judging, _named(slot), _minute(slot["since"]), note)
    table.add_section()
    for line in state.get("history", []):
        told = f"{line['reason']} by {line['who']}".strip()
        _row(table, line["slot"] or "", line["what"], _named(line), _minute(line["time"]), told)
    return table


def list_json(device: Transport) -> dict[str, Any]:
    """Which bundle judges on a device, and which other one it has."""
    try:
        slots = device.slots()
    except InputError as error:
        return {"device": device.address, "error": str(error), "kind": kind_of(error)}
    others = [slots[n] for n in SLOT_NAMES if n != slots.active and slots[n].sha256]
    return {"device": device.address, "judges": slots.active_slot, "other": others[0] if others else None, "error": ""}


def list_table(devices: list[dict[str, Any]]) -> Table:
    """The same for people: one line a device."""
    table = new_table("Devices", "device", "judges now", "other bundle", "note")
    for told in devices:
        judges, other = told.get("judges"), told.get("other")
        shown = [f"{slot.name} {slot.sha256[:12]} ({slot.state.value})" if slot else "" for slot in (judges, other)]
        _row(table, told["device"], *shown, told["error"] or (other.reason if other else ""))
    return table


def inventory_table(title: str, inventory: Inventory) -> Table:
    """Devices, and the groups each is in."""
    table = new_table(title, "device", "host", "port", "user", "root", "host key", "groups")
    common = inventory.ssh
    for name, entry in inventory.devices.items():
        groups = [group for group in inventory.groups if name in inventory.members(group)]
        pinned = "pinned here" if entry.host_key else "in known_hosts"
        where = (entry.host, str(entry.port or common.port), entry.user or common.user or "", entry.root or common.root)
        _row(table, name, *where, pinned, ", ".join(groups))
    return table


def _named(record: dict[str, Any]) -> str:
    return f"{record['name']} {record['sha256'][:12]}".strip()


def _minute(time: str) -> str:
    return time[:16].replace("T", " ")


def bundle_table(bundle: Bundle) -> Table:
    """What is in a bundle."""
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


def new_table(title: str, *columns: str) -> Table:
    """Titles and names as plain text."""
    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _row(table: Table, *cells: str) -> None:
    """Add cells as plain text: brackets in a name are no markup."""
    table.add_row(*(Text(cell) for cell in cells))


def summary(failed: list[tuple[str, str]], total: int) -> str:
    """Several devices' errors in one line."""
    if total == 1:
        return failed[0][1]
    return f"{len(failed)} of {total} devices failed: " + "; ".join(f"{name}: {error}" for name, error in failed)
