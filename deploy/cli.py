"""`deploy`: bundles onto devices and back off them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from calibration.cli_support import Cli, completion_help, emit, example, json_option, key_values, warn
from calibration.errors import InputError
from calibration.text import one_line
from deploy import cli_show as show
from deploy.bundle import open_bundle
from deploy.cli_bootstrap import bootstrap_command
from deploy.cli_keys import enrol_command, keys_group, sign_command
from deploy.cli_triton import triton_command
from deploy.inventory import Ways, read_inventory
from deploy.rollout import JOBS, PushReport, Rollout, on_each, push, rollback
from deploy.usb import pack, packed

BUSY = 75
"""Exit code where every failed device was being changed by somebody else: the same command may work later."""
INVENTORY = "devices.toml"

F = TypeVar("F", bound=Callable[..., Any])


@click.group(cls=Cli, epilog=completion_help("deploy"))
@click.version_option(package_name="lineguard")
def main() -> None:
    """Get a bundle onto a device, and back off it.

    A device is written file:DIR, a device root on this machine; ssh://USER@HOST:PORT/DIR; or as the name of a device or
    group in an inventory. Its SSH host key must be known beforehand.

    Exit codes: 0 done; 2 something failed; 75 BUSY, somebody else is changing the device: try again.
    """


cli = main
main.add_command(keys_group)
main.add_command(sign_command)
main.add_command(enrol_command)
main.add_command(triton_command)
main.add_command(bootstrap_command)

_devices = click.argument("devices", metavar="DEVICE...", nargs=-1, required=True)
_inventory = click.option(
    "--inventory",
    type=click.Path(path_type=Path),
    help=f"TOML file of devices and groups.  [default: {INVENTORY}, where there is one]",
)


def _reaching(command: F) -> F:
    """The options of every command that reaches devices."""
    known = click.option("--known-hosts", type=click.Path(path_type=Path), help="Host keys, as OpenSSH keeps them.")
    identity = click.option("--identity", type=click.Path(path_type=Path), help="Private key to log in with.")
    jobs = click.option("--jobs", default=JOBS, show_default=True, type=click.IntRange(1), help="Devices at once.")
    return jobs(identity(known(_inventory(command))))


def _ways(inventory: Path | None, known_hosts: Path | None, identity: Path | None) -> Ways:
    if inventory is None and Path(INVENTORY).exists():
        inventory = Path(INVENTORY)
    return Ways(inventory, known_hosts, identity)


@main.command("push", epilog=example("deploy push solar.lgb press-1 hall-2 --canary 1 --wait 120"))
@click.argument("file", type=click.Path(path_type=Path))
@_devices
@click.option("--dry-run", is_flag=True, help="Print what would be done; change nothing.")
@click.option("--retry", is_flag=True, help="Push even a bundle that the device has rejected before.")
@click.option("--canary", default=0, metavar="N", help="So many devices first, the others once these confirmed it.")
@click.option("--wait", "wait_s", default=0.0, metavar="SECONDS", help="Watch each trial; a failed one stops all.")
@_reaching
@json_option
def push_command(
    file: Path, devices: tuple[str, ...], dry_run: bool, retry: bool, canary: int, wait_s: float, jobs: int,
    inventory: Path | None, known_hosts: Path | None, identity: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Verify a bundle, copy it to each DEVICE and put it on trial there.

    A device that was enrolled takes only what `deploy sign` has signed for it: FILE.sig must lie beside FILE.

    The appliance on the device confirms it once its golden frames and its probation have passed, or goes back to the
    bundle before. --wait sees which. A transfer that was cut goes on where it stopped when it is pushed again.
    """
    rollout = Rollout(jobs, canary, wait_s)
    with show.bars() as watch:
        report = push(file, devices, watch, dry_run, retry, rollout, _ways(inventory, known_hosts, identity))
    _told(report, as_json)


@main.command("install", epilog=example("deploy install --from /media/stick file:/var/lib/lineguard"))
@click.argument("device", metavar="DEVICE")
@click.option("--from", "directory", required=True, type=click.Path(path_type=Path), help="A stick of `deploy pack`.")
@click.option("--dry-run", is_flag=True, help="Print what would be done; change nothing.")
@click.option("--retry", is_flag=True, help="Install even a bundle that the device has rejected before.")
@json_option
def install_command(device: str, directory: Path, dry_run: bool, retry: bool, as_json: bool) -> None:
    """Put the bundle of a USB stick on trial on DEVICE, verified as if it had been pushed."""
    with show.bars() as watch:
        report = push(packed(directory), (device,), watch, dry_run, retry)
    _told(report, as_json)


@main.command("pack", epilog=example("deploy pack solar.lgb --usb /media/stick"))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--usb", "directory", required=True, type=click.Path(path_type=Path), help="Where the stick is mounted.")
@click.option("--dry-run", is_flag=True, help="Verify only; write nothing.")
@json_option
def pack_command(file: Path, directory: Path, dry_run: bool, as_json: bool) -> None:
    """Put a signed bundle FILE on a USB stick, for a line without a network."""
    with show.bars() as watch, watch(str(directory)) as report:
        bundle = pack(file, directory, report, dry_run)
    told = {"file": file, "usb": directory, "name": bundle.manifest.name, "sha256": bundle.sha256, "dry_run": dry_run}
    rows = {"bundle": f"{bundle.manifest.name} {bundle.sha256[:12]}", "on": directory}
    emit(told, as_json, key_values("Would pack" if dry_run else "Packed", rows))


@main.command("rollback", epilog=example("deploy rollback press-1 --reason 'too many overkills'"))
@_devices
@click.option("--reason", default="rolled back by hand", show_default=True, help="For the device's history.")
@click.option("--dry-run", is_flag=True, help="Print what would be done; change nothing.")
@_reaching
@json_option
def rollback_command(
    devices: tuple[str, ...], reason: str, dry_run: bool, jobs: int,
    inventory: Path | None, known_hosts: Path | None, identity: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Let the bundle that each DEVICE had confirmed before judge again."""
    outcomes = rollback(devices, reason, dry_run, jobs, _ways(inventory, known_hosts, identity))
    result = {"dry_run": dry_run, "devices": [show.outcome_json(outcome) for outcome in outcomes]}
    emit(result, as_json, show.outcome_table("Rollback", outcomes, dry_run))
    _fail([show.outcome_json(outcome) for outcome in outcomes])


@main.command("status", epilog=example("deploy status file:/var/lib/lineguard --json"))
@_devices
@click.option("--history", "steps", default=5, show_default=True, help="How many of the last steps to show.")
@_reaching
@json_option
def status_command(
    devices: tuple[str, ...], steps: int, jobs: int,
    inventory: Path | None, known_hosts: Path | None, identity: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Show what each DEVICE holds, whether it is intact, and the last steps of its history."""
    reached = _ways(inventory, known_hosts, identity).reach(devices)
    states = on_each(reached, lambda device: show.status_json(device, steps), jobs)
    if as_json:
        emit({"devices": states}, as_json)
    else:
        for state in states:
            emit(state, as_json, show.status_table(state) if "slots" in state else None)
    _fail(states)


@main.command("list", epilog=example("deploy list hall-1 --json"))
@_devices
@_reaching
@json_option
def list_command(
    devices: tuple[str, ...], jobs: int,
    inventory: Path | None, known_hosts: Path | None, identity: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """List who has what: one line for each DEVICE, with the bundle that judges and the other one it holds."""
    found = on_each(_ways(inventory, known_hosts, identity).reach(devices), show.list_json, jobs)
    emit({"devices": found}, as_json, show.list_table(found))
    _fail(found)


@main.command("inventory", epilog=example("deploy inventory --inventory devices.toml"))
@_inventory
@json_option
def inventory_command(inventory: Path | None, as_json: bool) -> None:
    """Check an inventory and show its devices and groups. Nothing is reached."""
    path = inventory or Path(INVENTORY)
    found = read_inventory(path)
    emit(found, as_json, show.inventory_table(str(path), found))


@main.command("serve", epilog=example("deploy serve /var/lib/lineguard"))
@click.argument("root", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "_as_json", is_flag=True, help="Accepted as everywhere; what is said here is JSON in any case.")
def serve_command(root: Path, _as_json: bool) -> None:
    """Answer one `deploy push` on standard input and output, for the device root DIR. SSH starts this, people do not.

    In authorized_keys a key can be tied to it: restrict,command="deploy serve /var/lib/lineguard" ssh-ed25519 AAAA...
    """
    from deploy.serve import serve

    serve(root)


@main.command("inspect", epilog=example("deploy inspect solar.lgb"))
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def inspect_command(file: Path, as_json: bool) -> None:
    """Verify a bundle FILE and show what is in it (--json: its whole manifest)."""
    bundle = open_bundle(file)
    sizes = {name: len(data) for name, data in sorted(bundle.members.items())}
    result = {"file": file, "sha256": bundle.sha256, "manifest": bundle.manifest, "sizes": sizes}
    emit(result, as_json, show.bundle_table(bundle))


def _told(report: PushReport, as_json: bool) -> None:
    title = f"{report.name}  {report.sha256[:12]}"
    emit(show.push_json(report), as_json, show.outcome_table(title, report.devices, report.dry_run))
    for outcome in report.devices:
        if outcome.enrolled is False and not report.failed:
            warn(f"{outcome.address} is not enrolled: signatures are not checked; `deploy enrol` switches that on")
    _fail([show.outcome_json(outcome) for outcome in report.devices])


def _fail(devices: list[dict[str, Any]]) -> None:
    """End with what went wrong, if anything did: BUSY where waiting is all there is to do, else 2."""
    failed = [told for told in devices if told["error"]]
    if not failed:
        return
    message = show.summary([(told["device"], told["error"]) for told in failed], len(devices))
    if all(told["kind"] == "DeviceBusy" for told in failed):
        click.echo(f"error: {one_line(message)}", err=True)
        click.get_current_context().exit(BUSY)
    raise InputError(message)
