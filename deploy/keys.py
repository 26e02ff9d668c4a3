"""The signer's side of trust: key directories, their rotation, and signing bundles. Runs on the workstation.

::

    DIR/root.json         the newest root metadata: what devices are enrolled with; public
    DIR/N.root.json       every root since the first; public, travels with each signature
    DIR/signed.json       the number of the last signature
    DIR/private/*.pem     private keys (PKCS#8, Ed25519), mode 0600; root-*.pem belong off this machine

Roles are those of TUF. `root` names all keys; `targets` pins bundles; both ask for the threshold of signatures.
`snapshot` and `timestamp` guard against mixtures and freezing and take one signature by any signing key, so that two
signers can sign one after the other, each on a machine of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api import exceptions as tuf
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from deploy import files
from deploy.bundle import open_bundle
from deploy.private_keys import KeyDirectoryError, encoded, load_signer, new_signer
from deploy.trust_record import DEVICE_ID, EVERY_DEVICE, REVOKED, ROLES, TARGET, Envelope, Terms, signature_path
from deploy.tuf_parts import ROOT_DAYS, SIGNING, add, after_days, guarded, now


@dataclass(frozen=True)
class Changed:
    """A new root.

    Attributes:
        version: of the root metadata. threshold: signatures that root and targets ask for.
        added, removed: key ids, hex.
    """

    version: int
    threshold: int
    added: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True)
class Signed:
    """A signature as it stands.

    Attributes:
        file: FILE.sig. sha256, length: of the whole bundle. terms: see Terms. expires: UTC.
        signatures, needed: over the targets; with fewer than needed, devices refuse it.
    """

    file: Path
    sha256: str
    length: int
    terms: Terms
    expires: datetime
    signatures: int
    needed: int


class KeyStore:
    """A key directory. Methods that cannot do their work raise InputError and leave it as it was."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._private = directory / "private"

    def init(self, threshold: int = 1, dry_run: bool = False) -> Changed:
        """Make `threshold` root keys and as many signing keys. The directory must not exist, or be empty."""
        if not 1 <= threshold <= 8:
            raise KeyDirectoryError(f"threshold {threshold}: use 1 to 8 signers")
        if self.directory.exists() and (not self.directory.is_dir() or any(self.directory.iterdir())):
            raise KeyDirectoryError(f"{self.directory}: exists; keys are never overwritten, name a new directory")
        new = {role: [new_signer() for _ in range(threshold)] for role in ("root", SIGNING)}
        root = Root(version=1, expires=after_days(ROOT_DAYS), consistent_snapshot=False)
        add(root, new)
        root.roles["root"].threshold = root.roles["targets"].threshold = threshold
        with self._changing(dry_run):
            return self._publish(root, new, [], (), dry_run)

    def rotate(self, with_root: bool = False, dry_run: bool = False) -> Changed:
        """Replace all signing keys, and with `with_root` the root keys too. Also renews the root's expiry."""
        self.root()
        with self._changing(dry_run):
            old = self.root().signed
            retired = set(old.roles["targets"].keyids) | (set(old.roles["root"].keyids) if with_root else set())
            return self._replace(retired, [], dry_run)

    def revoke(self, key: str, dry_run: bool = False) -> Changed:
        """Replace one key, known by the first digits of its id, and name it in the root as revoked."""
        self.root()
        with self._changing(dry_run):
            found = [name for name in self.root().signed.keys if len(key) >= 6 and name.startswith(key)]
            if len(found) != 1:
                raise KeyDirectoryError(f"key {key!r}: give at least 6 digits of one id that `deploy keys show` lists")
            return self._replace(set(found), found, dry_run)

    def root(self) -> Metadata[Root]:
        """The newest root. Raises InputError where the directory holds none."""
        path = self.directory / "root.json"
        try:
            return Metadata[Root].from_bytes(path.read_bytes())
        except OSError as error:
            raise KeyDirectoryError(
                f"{path}: {error.strerror or error}; `deploy keys init` makes a key directory"
            ) from None
        except tuf.RepositoryError as error:
            raise KeyDirectoryError(f"{path}: damaged ({error}); restore it from a backup") from None

    def sign(self, bundle: Path, devices: Sequence[str], days: int, dry_run: bool = False) -> Signed:
        """Write FILE.sig with the signing keys that are here.

        Where FILE.sig pins this very bundle, for the same devices, and still lacks signatures, ours are added.
        """
        for device in devices:
            if device != EVERY_DEVICE and not DEVICE_ID.fullmatch(device):
                raise KeyDirectoryError(f"device {device!r}: use ids as given at enrolment, or '*' for every device")
        self.root()
        opened = open_bundle(bundle)
        length = bundle.stat().st_size
        with self._changing(dry_run):
            root = self.root().signed
            signers = self._signers(root, "targets")
            if not signers:
                raise KeyDirectoryError(
                    f"{self._private}: no current signing key here; copy one in, or `deploy keys rotate`"
                )
            targets = self._begun(bundle, root, opened.sha256, devices)
            if targets is None:
                number = self._number() + 1
                terms = Terms(devices=tuple(devices), version=number, signed=now())
                target = TargetFile(
                    length, {"sha256": opened.sha256}, TARGET, {"custom": terms.model_dump(mode="json")}
                )
                targets = Metadata(Targets(version=number, expires=after_days(days), targets={TARGET: target}))
            for signer in signers:
                targets.sign(signer, append=True)
            if not dry_run:
                files.write_durably(
                    self.directory / "signed.json", _json({"number": max(self._number(), targets.signed.version)})
                )
                envelope = Envelope(metadata={**self._roots(), **guarded(targets, signers)})
                files.write_durably(signature_path(bundle), envelope.model_dump_json(indent=1).encode())
        made = root.get_verification_result("targets", targets.signed_bytes, targets.signatures)
        final = Terms.model_validate(targets.signed.targets[TARGET].custom)
        return Signed(
            signature_path(bundle),
            opened.sha256,
            length,
            final,
            targets.signed.expires,
            len(made.signed),
            made.threshold,
        )

    def _replace(self, retired: set[str], revoked: list[str], dry_run: bool) -> Changed:
        old = self.root()
        root = deepcopy(old.signed)
        root.version += 1
        root.expires = after_days(ROOT_DAYS)
        new: dict[str, list[CryptoSigner]] = {"root": [], SIGNING: []}
        for role, name in (("root", "root"), ("targets", SIGNING)):
            for key in retired & set(old.signed.roles[role].keyids):
                new[name].append(new_signer())
                for each in ("root",) if role == "root" else ROLES:
                    root.revoke_key(key, each)
        add(root, new)
        root.unrecognized_fields[REVOKED] = [*root.unrecognized_fields.get(REVOKED, []), *revoked]
        return self._publish(root, new, self._signers(old.signed, "root"), tuple(sorted(retired)), dry_run, old.signed)

    def _publish(
        self,
        root: Root,
        new: dict[str, list[CryptoSigner]],
        signers: list[CryptoSigner],
        retired: tuple[str, ...],
        dry_run: bool,
        before: Root | None = None,
    ) -> Changed:
        """Sign a root and write it: private keys first, so that no root names a key that nobody has."""
        metadata = Metadata(root)
        for signer in (*signers, *new["root"]):
            metadata.sign(signer, append=True)
        try:
            for trusting in (before, root):
                if trusting is not None:
                    trusting.verify_delegate("root", metadata.signed_bytes, metadata.signatures)
        except tuf.UnsignedMetadataError:
            raise KeyDirectoryError(
                f"{self._private}: fewer root keys than the {root.roles['root'].threshold} needed; copy them in"
            ) from None
        if not dry_run:
            for role, fresh in new.items():
                for signer in fresh:
                    name = f"{role}-{signer.public_key.keyid[:12]}.pem"
                    files.write_durably(self._private / name, encoded(signer))
            data = metadata.to_bytes()
            files.write_durably(self.directory / f"{root.version}.root.json", data)
            files.write_durably(self.directory / "root.json", data)
            for key in retired:
                for path in self._private.glob(f"*-{key[:12]}.pem"):
                    path.unlink()
        added = tuple(signer.public_key.keyid for fresh in new.values() for signer in fresh)
        return Changed(root.version, root.roles["root"].threshold, added, retired)

    def _signers(self, root: Root, role: str) -> list[CryptoSigner]:
        """The private keys of a role that are here."""
        found = []
        for key in root.roles[role].keyids:
            name = "root" if role == "root" else SIGNING
            path = self._private / f"{name}-{key[:12]}.pem"
            if path.exists():
                signer = load_signer(path)
                if signer.public_key.keyid != key:
                    raise KeyDirectoryError(f"{path}: not the key of that name; restore it from a backup")
                found.append(signer)
        return found

    def _begun(self, bundle: Path, root: Root, digest: str, devices: Sequence[str]) -> Metadata[Targets] | None:
        """The targets of a signature that others have begun and that lacks some still."""
        try:
            envelope = Envelope.model_validate_json(signature_path(bundle).read_bytes())
            targets = Metadata[Targets].from_bytes(envelope.metadata["targets.json"].encode())
            target = targets.signed.targets[TARGET]
            made = root.get_verification_result("targets", targets.signed_bytes, targets.signatures)
            terms = Terms.model_validate(target.custom)
        except (OSError, ValueError, KeyError, AttributeError, tuf.RepositoryError):
            return None  # none, or none of ours: it is written anew
        same = target.hashes.get("sha256") == digest and terms.devices == tuple(devices)
        waiting = same and made.signed and not made.verified and not targets.signed.is_expired()
        return targets if waiting else None

    def _number(self) -> int:
        path = self.directory / "signed.json"
        try:
            number = json.loads(path.read_bytes())["number"] if path.exists() else 0
        except (ValueError, TypeError, KeyError):
            number = -1
        if not isinstance(number, int) or number < 0:
            raise KeyDirectoryError(
                f'{path}: damaged; write {{"number": N}} with N the last signature\'s version'
            ) from None
        return number

    def _roots(self) -> dict[str, str]:
        newest = self.root().signed.version
        return {f"{n}.root.json": (self.directory / f"{n}.root.json").read_text() for n in range(1, newest + 1)}

    @contextmanager
    def _changing(self, dry_run: bool) -> Iterator[None]:
        """The directory's lock, and file errors as InputError. A dry run makes and locks nothing."""
        try:
            if dry_run:
                yield
                return
            files.make_directory(self.directory)
            files.make_directory(self._private)
            with files.exclusive(self.directory / ".lock", 5.0) as got:
                if not got:
                    raise KeyDirectoryError(f"{self.directory}: BUSY, somebody else is using these keys; try again")
                yield
        except OSError as error:
            raise KeyDirectoryError(f"{error.filename or self.directory}: {error.strerror or error}") from None


def _json(value: object) -> bytes:
    return (json.dumps(value) + "\n").encode()
