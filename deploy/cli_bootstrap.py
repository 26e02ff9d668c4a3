"""`deploy bootstrap`: the appliance onto a bare device."""

from __future__ import annotations

import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import click
from rich.table import Table
from rich.text import Text

from calibration.cli_support import emit, example, json_option, progress
from calibration.errors import InputError
from deploy import wheelhouse
from deploy.bootstrap import Facts, Goods, apply, plan, read_facts, read_wheels
from deploy.ssh_target import SshTarget

_file = click.Path(path_type=Path)


@click.command("bootstrap", epilog=example("deploy bootstrap ssh://root@10.1.0.3 --push-key ~/.ssh/push.pub --dry-run"))
@click.argument("device", metavar="DEVICE")
@click.option("--wheelhouse", "wheels", type=_file, help="Directory of wheels; without it one is made with pip here.")
@click.option("--station", type=_file, help="station.toml for the device.")
@click.option("--push-key", type=_file, help="Public key that may push to the device and do nothing else there.")
@click.option("--root", type=_file, help="root.json of a key directory: the device takes only signed bundles.")
@click.option("--id", "device_id", help="The device's id, with --root.")
@click.option("--gpu", is_flag=True, help="Install the GPU engine, and let the service use the GPU.")
@click.option("--network", is_flag=True, help="Let the service reach network cameras and outputs; see docs/devices.md.")
@click.option("--known-hosts", type=_file, default=Path("~/.ssh/known_hosts"), help="Host keys, as OpenSSH keeps them.")
@click.option("--identity", type=_file, help="Private key to log in with.")
@click.option("--dry-run", is_flag=True, help="Look at the device and print the plan; change nothing.")
@json_option
def bootstrap_command(
    device: str, wheels: Path | None, station: Path | None, push_key: Path | None, root: Path | None,
    device_id: str | None, gpu: bool, network: bool, known_hosts: Path, identity: Path | None, dry_run: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Install the appliance on DEVICE, ssh://root@HOST[:PORT]: a Debian with systemd and python3-venv.

    The device needs no network but this connection.

    Doing it again with a newer release installs that beside the old one and changes over at the end.
    """
    if (root is None) != (device_id is None):
        raise InputError("--root and --id go together: whose signatures, and by what name of the device")
    from deploy.ssh_root import SshRoot  # asyncssh: not where `deploy serve` starts

    remote = SshRoot(_target(device, known_hosts, identity))
    facts = read_facts(remote)
    goods = Goods(
        wheels=_wheels(wheels, "gpu" if gpu else "cpu", facts),
        units=wheelhouse.units(),
        station=None if station is None else _bytes(station),
        push_key="" if push_key is None else _public(push_key),
        root=None if root is None else _bytes(root),
        device=device_id or "",
        extra="gpu" if gpu else "cpu",
        network=network,
        gpu=gpu,
    )
    steps = plan(facts, goods)
    if not dry_run:
        with progress("bootstrap") as report:
            apply(remote, steps, goods, report)
    titles = [step.title for step in steps]
    table = Table(
        title=Text(f"{'Would do' if dry_run else 'Done'} on {device}"), title_justify="left", show_header=False
    )
    for title in titles:
        table.add_row(Text(title))
    emit({"device": device, "dry_run": dry_run, "facts": vars(facts), "steps": titles}, as_json, table)


def _target(device: str, known_hosts: Path, identity: Path | None) -> SshTarget:
    try:
        parts = urlsplit(device)
        port = parts.port or 22
    except ValueError as error:
        raise InputError(f"device {device!r}: {error}") from None
    if parts.scheme != "ssh" or not parts.hostname or parts.password or parts.path not in ("", "/"):
        raise InputError(f"device {device!r}: write ssh://root@HOST or ssh://root@HOST:PORT")
    user = parts.username or "root"
    return SshTarget(device, parts.hostname, port, user, "/", known_hosts=known_hosts, identity=identity)


def _wheels(folder: Path | None, extra: str, facts: Facts) -> dict[str, bytes]:
    if folder is not None:
        return read_wheels(folder)
    with tempfile.TemporaryDirectory() as made:
        wheelhouse.build_wheelhouse(Path(made), extra, facts.python, facts.machine)
        return read_wheels(Path(made))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None


def _public(path: Path) -> str:
    """A public key, one line. Raises InputError where it is none: a private one must not leave this machine."""
    words = _bytes(path.expanduser()).decode(errors="replace").strip()
    if "\n" in words or not words.startswith(("ssh-ed25519 ", "ecdsa-sha2-", "sk-ssh-ed25519", "ssh-rsa ")):
        raise InputError(f"{path}: not a public key; name the .pub file")
    return words
