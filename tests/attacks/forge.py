"""What a thief of signing keys, or somebody who captured signatures, can put together: metadata as they like it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from securesystemslib.signer import CryptoSigner, Key, Signature, Signer
from tuf.api.metadata import Metadata, MetaFile, Snapshot, TargetFile, Targets, Timestamp

from deploy.keys import KeyStore
from deploy.private_keys import load_signer
from deploy.trust_record import signature_path


def signing_keys(store: KeyStore) -> list[CryptoSigner]:
    """The private signing keys of a key directory, as a thief copies them."""
    return [load_signer(path) for path in sorted((store.directory / "private").glob("sign-*.pem"))]


def roots(store: KeyStore) -> dict[str, str]:
    """Its public root metadata."""
    return {path.name: path.read_text() for path in store.directory.glob("*.root.json")}


class Impostor(Signer):
    """Signs with one key in the name of another."""

    def __init__(self, signer: CryptoSigner, name: Key) -> None:
        self._signer, self._name = signer, name

    @property
    def public_key(self) -> Key:
        return self._name

    @classmethod
    def from_priv_key_uri(cls, priv_key_uri: str, public_key: Key, secrets_handler: object = None) -> Signer:
        raise NotImplementedError  # never made from a file

    def sign(self, payload: bytes) -> Signature:
        return Signature(self._name.keyid, self._signer.sign(payload).signature)


@dataclass(frozen=True)
class Forgery:
    """Metadata over a bundle; the defaults are an honest signature of one minute ago.

    version: of timestamp, snapshot and targets; the two others may be given apart. days: until it expires.
    """

    version: int = 1
    inner: int | None = None
    devices: Sequence[str] = ("*",)
    days: float = 30
    signed: datetime | None = None

    def metadata(self, bundle: bytes, signers: Sequence[Signer]) -> dict[str, str]:
        """timestamp.json, snapshot.json and targets.json, signed by all signers."""
        now = datetime.now(timezone.utc).replace(microsecond=0)
        expires, inner = now + timedelta(days=self.days), self.inner or self.version
        signed = (self.signed or now - timedelta(minutes=1)).isoformat()
        terms = {"devices": list(self.devices), "version": inner, "signed": signed}
        target = TargetFile(
            len(bundle), {"sha256": hashlib.sha256(bundle).hexdigest()}, "bundle.lgb", {"custom": terms}
        )
        targets = _signed(Metadata(Targets(version=inner, expires=expires, targets={"bundle.lgb": target})), signers)
        pinned = MetaFile.from_data(inner, targets, ["sha256"])
        snapshot = _signed(Metadata(Snapshot(version=inner, expires=expires, meta={"targets.json": pinned})), signers)
        over = MetaFile.from_data(inner, snapshot, ["sha256"])
        timestamp = _signed(Metadata(Timestamp(version=self.version, expires=expires, snapshot_meta=over)), signers)
        parts = {"targets.json": targets, "snapshot.json": snapshot, "timestamp.json": timestamp}
        return {name: data.decode() for name, data in parts.items()}

    def beside(self, path: Path, store: KeyStore, signers: Sequence[Signer] | None = None) -> Path:
        """Write the forged FILE.sig of a file; returns the file."""
        signers = signing_keys(store) if signers is None else signers
        put(path, {**roots(store), **self.metadata(path.read_bytes(), signers)})
        return path


def put(path: Path, metadata: dict[str, str]) -> Path:
    """Write FILE.sig; returns FILE."""
    signature_path(path).write_text(json.dumps({"format": 1, "metadata": metadata}))
    return path


def taken(path: Path) -> dict[str, str]:
    """The metadata of a FILE.sig."""
    found: dict[str, str] = json.loads(signature_path(path).read_text())["metadata"]
    return found


def _signed(metadata: Metadata, signers: Sequence[Signer]) -> bytes:  # type: ignore[type-arg]
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes()
