"""`deploy keys`, `deploy sign`, `deploy enrol`: who may put a bundle on a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from calibration.cli_support import emit, example, json_option, key_values
from calibration.errors import InputError
from deploy.install import Device
from deploy.record import TRUST, check_usable, read_trust
from deploy.trust_record import EVERY_DEVICE

if TYPE_CHECKING:  # python-tuf costs a tenth of a second, which `deploy serve` would pay on every device
    from deploy.keys import Changed, KeyStore

_directory = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
_dry_run = click.option("--dry-run", is_flag=True, help="Print what would be done; change nothing.")


@click.group("keys", epilog=example("deploy keys init keys"))
def keys_group() -> None:
    """Make, replace and revoke the keys that sign bundles.

    Private keys lie in DIR/private, readable by you alone, encrypted when LINEGUARD_PASSPHRASE is set. Keep root-*.pem
    somewhere else than the machine that signs every day: they are what recovers from a stolen signing key.
    """


@keys_group.command("init", epilog=example("deploy keys init keys --threshold 2"))
@_directory
@click.option("--threshold", default=1, show_default=True, help="How many signers it takes.")
@_dry_run
@json_option
def init_command(directory: Path, threshold: int, dry_run: bool, as_json: bool) -> None:
    """Make a key directory: DIR/root.json is what devices are enrolled with."""
    _told("made", directory, _store(directory).init(threshold, dry_run), dry_run, as_json)


@keys_group.command("rotate", epilog=example("deploy keys rotate keys --dry-run"))
@_directory
@click.option("--with-root", is_flag=True, help="Replace the root keys too.")
@_dry_run
@json_option
def rotate_command(directory: Path, with_root: bool, dry_run: bool, as_json: bool) -> None:
    """Replace the signing keys and renew the root. Devices learn of it from the next signed push."""
    _told("rotated", directory, _store(directory).rotate(with_root, dry_run), dry_run, as_json)


@keys_group.command("revoke", epilog=example("deploy keys revoke keys 3f9a1c04"))
@_directory
@click.argument("key", metavar="KEYID")
@_dry_run
@json_option
def revoke_command(directory: Path, key: str, dry_run: bool, as_json: bool) -> None:
    """Replace one key that must not be trusted any more; KEYID is the beginning of its id."""
    _told("revoked", directory, _store(directory).revoke(key, dry_run), dry_run, as_json)


@keys_group.command("show", epilog=example("deploy keys show keys"))
@_directory
@json_option
def show_command(directory: Path, as_json: bool) -> None:
    """List the current keys and what each may sign."""
    root = _store(directory).root().signed
    held = {key: "root" if key in root.roles["root"].keyids else "signing" for key in root.keys}
    result = {
        "version": root.version,
        "expires": root.expires.isoformat(),
        "threshold": root.roles["targets"].threshold,
        "keys": held,
    }
    rows = {"root version": root.version, "expires": result["expires"], "threshold": result["threshold"]}
    emit(result, as_json, key_values(str(directory), {**rows, **{f"key {key}": role for key, role in held.items()}}))


@click.command("sign", epilog=example("deploy sign solar.lgb --keys keys --devices press-3,press-4 --days 30"))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--keys", "directory", required=True, type=click.Path(path_type=Path), help="A key directory.")
@click.option("--devices", default=EVERY_DEVICE, show_default=True, help="Ids of the devices, with commas between.")
@click.option("--days", default=30, show_default=True, help="How long new devices may take it; it never stops one.")
@_dry_run
@json_option
def sign_command(file: Path, directory: Path, devices: str, days: int, dry_run: bool, as_json: bool) -> None:
    """Sign a bundle: writes FILE.sig, which must travel beside FILE.

    Where it takes two signers, the second one signs the same FILE with its FILE.sig on a machine of their own.
    """
    signed = _store(directory).sign(file, tuple(devices.split(",")), days, dry_run)
    missing = signed.needed - signed.signatures
    rows: dict[str, object] = {
        "signature": signed.file,
        "bundle": signed.sha256,
        "devices": ", ".join(signed.terms.devices),
        "version": signed.terms.version,
        "expires": signed.expires.isoformat(),
        "signatures": f"{signed.signatures} of {signed.needed}"
        + (f"; {missing} more signer(s) must sign this file" if missing > 0 else ""),
    }
    result = {**vars(signed), "expires": signed.expires.isoformat(), "dry_run": dry_run}
    emit(result, as_json, key_values("Would sign" if dry_run else "Signed", rows))


@click.command("enrol", epilog=example("deploy enrol file:/var/lib/lineguard --root keys/root.json --id press-3"))
@click.argument("device", metavar="DEVICE")
@click.option("--root", "root_file", required=True, type=click.Path(path_type=Path), help="root.json of the keys.")
@click.option("--id", "device_id", required=True, help="The device's id; signatures name the devices they are for.")
@_dry_run
@json_option
def enrol_command(device: str, root_file: Path, device_id: str, dry_run: bool, as_json: bool) -> None:
    """Let DEVICE take only signed bundles, from now on and for good.

    Do this where nobody can come between, at the device or when it is set up: it is the one step that trusts blindly.
    """
    from deploy.trust import enrolled

    scheme, _, directory = device.partition(":")
    if scheme != "file" or not directory:
        raise InputError(f"device {device!r}: enrol it where it is, as file:DIR")
    try:
        root = root_file.read_bytes()
    except OSError as error:
        raise InputError(f"{root_file}: {error.strerror or error}; give the root.json of a key directory") from None
    path = Path(directory).expanduser()
    record = enrolled(root, device_id)
    check_usable(path)
    if not dry_run:
        Device(path).enrol(root, device_id)
    elif (held := read_trust(path)) is not None:
        raise InputError(f"{path / TRUST}: enrolled already, as {held.device}")
    result: dict[str, Any] = {"device": device, "id": record.device, "dry_run": dry_run}
    emit(result, as_json, key_values("Would enrol" if dry_run else "Enrolled", {"device": device, "id": record.device}))


def _store(directory: Path) -> KeyStore:
    from deploy.keys import KeyStore

    return KeyStore(directory)


def _told(what: str, directory: Path, changed: Changed, dry_run: bool, as_json: bool) -> None:
    emit(
        {"directory": directory, "dry_run": dry_run, "root": changed},
        as_json,
        _table(what, directory, changed, dry_run),
    )


def _table(what: str, directory: Path, changed: Changed, dry_run: bool) -> Table:
    rows: dict[str, object] = {"root": directory / f"{changed.version}.root.json", "signers needed": changed.threshold}
    rows |= {f"new key {i}": key for i, key in enumerate(changed.added, 1)}
    rows |= {f"gone key {i}": key for i, key in enumerate(changed.removed, 1)}
    return key_values(f"Keys {'would be ' if dry_run else ''}{what}", rows)
