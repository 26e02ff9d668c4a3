"""A USB stick between a workstation and a line without a network: a bundle, its signature, and nothing else to trust.

::

    DIR/lineguard/bundle.lgb, bundle.lgb.sig

Whatever lies on a stick may be anybody's: the device verifies it exactly as what comes over the network.
"""

from __future__ import annotations

from pathlib import Path

from calibration.errors import InputError
from deploy import files
from deploy.bundle import Bundle, open_bundle
from deploy.install import Report
from deploy.record import BUNDLE
from deploy.trust_record import signature_path

FOLDER = "lineguard"


def packed(directory: Path) -> Path:
    """Where the bundle lies on a stick. Raises InputError where there is none."""
    path = directory / FOLDER / BUNDLE
    if not path.is_file():
        raise InputError(f"{path}: not there; make the stick with `deploy pack FILE --usb {directory}`")
    return path


def pack(file: Path, directory: Path, progress: Report, dry_run: bool = False) -> Bundle:
    """Copy a signed bundle onto a stick, synced, so that the stick may be pulled out afterwards.

    Raises:
        BundleError: the file is no good. InputError: not signed, or the stick cannot be written.
    """
    bundle = open_bundle(file)
    signature = signature_path(file)
    if not signature.is_file():
        raise InputError(f"{file}: not signed ({signature.name} is missing); `deploy sign` makes it")
    if not directory.is_dir():
        raise InputError(f"{directory}: not a directory; mount the stick first")
    if dry_run:
        return bundle
    target = directory / FOLDER / BUNDLE
    try:
        target.parent.mkdir(exist_ok=True)
        signature_path(target).unlink(missing_ok=True)  # never the new bundle beside the old signature
        files.copy_part(file, target, progress).replace(target)
        files.write_durably(signature_path(target), signature.read_bytes())
    except OSError as error:
        raise InputError(f"{error.filename or target}: {error.strerror or error}; use another stick") from None
    if open_bundle(target).sha256 != bundle.sha256:
        raise InputError(f"{target}: not what was written; use another stick")
    return bundle
