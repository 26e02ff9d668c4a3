"""The parts of TUF metadata that a signature is put together from: keys in a root, targets guarded, expiry."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from deploy.private_keys import KeyDirectoryError
from deploy.trust_record import ROLES

ROOT_DAYS = 5 * 365
SIGNING = "sign"


def guarded(targets: Metadata[Targets], signers: Sequence[CryptoSigner]) -> dict[str, str]:
    """The targets with a snapshot and a timestamp over them: file name to text."""
    version, expires = targets.signed.version, targets.signed.expires
    data = targets.to_bytes()
    pinned = MetaFile.from_data(version, data, ["sha256"])
    snapshot: Metadata[Any] = Metadata(Snapshot(version=version, expires=expires, meta={"targets.json": pinned}))
    for signer in signers:
        snapshot.sign(signer, append=True)
    inner = snapshot.to_bytes()
    over = MetaFile.from_data(version, inner, ["sha256"])
    timestamp: Metadata[Any] = Metadata(Timestamp(version=version, expires=expires, snapshot_meta=over))
    for signer in signers:
        timestamp.sign(signer, append=True)
    texts = {"targets.json": data, "snapshot.json": inner, "timestamp.json": timestamp.to_bytes()}
    return {name: text.decode() for name, text in texts.items()}


def add(root: Root, new: dict[str, list[CryptoSigner]]) -> None:
    """Name new keys, by role (root or SIGNING), in a root."""
    for signer in new["root"]:
        root.add_key(signer.public_key, "root")
    for signer in new[SIGNING]:
        for role in ROLES:
            root.add_key(signer.public_key, role)


def now() -> datetime:
    """UTC, whole seconds: what metadata can hold."""
    return datetime.now(timezone.utc).replace(microsecond=0)


def after_days(days: int) -> datetime:
    """When what is signed now expires. Raises KeyDirectoryError."""
    if not 1 <= days <= ROOT_DAYS:
        raise KeyDirectoryError(f"{days} days: use 1 to {ROOT_DAYS}")
    return now() + timedelta(days=days)
