"""Who made a bundle: the device's side of its signature, by The Update Framework (TUF, through python-tuf).

A bundle FILE travels with FILE.sig, which holds TUF metadata: every root since the first, and a timestamp, a snapshot
and targets that pin the whole archive by length and SHA-256, say for which devices it is meant, and expire. A device
that is enrolled keeps the last roots and metadata it has accepted in trust.json and refuses whatever does not follow
from them. Here nothing on the device is changed: the caller stores `Verified.record` once all else is done.

Every way to be refused has an error of its own: see deploy.refusals.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from tuf.api import exceptions as tuf
from tuf.api.metadata import Metadata, Root, Timestamp
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from calibration.errors import InputError
from deploy.bundle import MAX_BYTES, Bundle, parse_bundle
from deploy.refusals import (
    ArbitraryBundle,
    EndlessData,
    FastForward,
    FrozenSignature,
    MalformedSignature,
    MixedMetadata,
    ReplayedSignature,
    RevokedKey,
    RolledBack,
    RotatedKey,
    TrustError,
    UnsignedBundle,
    UntrustedKey,
    WrongDevice,
)
from deploy.trust_record import (
    DEVICE_ID,
    EVERY_DEVICE,
    REVOKED,
    ROLES,
    TARGET,
    Envelope,
    Terms,
    TrustRecord,
    signature_path,
)

MAX_SIGNATURE = 2**20
MAX_METADATA = 2**15
MAX_JUMP = 10_000
"""Signatures that a device may have missed. A larger step is no gap but an attempt to shut out all later ones."""
LIMITS = UpdaterConfig(
    max_root_rotations=256,
    root_max_length=MAX_METADATA,
    timestamp_max_length=MAX_METADATA,
    snapshot_max_length=MAX_METADATA,
    targets_max_length=MAX_METADATA,
)


@dataclass(frozen=True)
class Verified:
    """A signature that holds on this device.

    Attributes:
        record: what the device has to keep, once the bundle is stored.
        sha256, length: of the bundle that was signed, hex and bytes.
        terms: see Terms.
    """

    record: TrustRecord
    sha256: str
    length: int
    terms: Terms


def read_signature(bundle: Path) -> bytes:
    """The bytes of a bundle's signature. Raises UnsignedBundle, EndlessData."""
    path = signature_path(bundle)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIGNATURE + 1)
    except FileNotFoundError:
        raise UnsignedBundle(f"{bundle}: not signed ({path.name} is missing); `deploy sign` makes it") from None
    except OSError as error:
        raise UnsignedBundle(f"{path}: {error.strerror or error}; copy it again") from None
    if len(data) > MAX_SIGNATURE:
        raise EndlessData(f"{path}: larger than {MAX_SIGNATURE} bytes; no signature is")
    return data


def enrolled(root: bytes, device: str) -> TrustRecord:
    """The first record of a device that is to trust this root metadata. Raises InputError where it is none."""
    if not DEVICE_ID.fullmatch(device):
        raise InputError(f"device id {device!r}: use 1 to 64 letters, digits, '.', '_' or '-'")
    remedy = "give the root.json that `deploy keys init` made"
    try:
        record = TrustRecord(device=device, roots=(root.decode(),))
        metadata = Metadata[Root].from_bytes(root)
        if not isinstance(metadata.signed, Root):
            raise InputError(f"no root metadata but {metadata.signed.type}; {remedy}")
        metadata.signed.verify_delegate("root", metadata.signed_bytes, metadata.signatures)
    except (tuf.RepositoryError, UnicodeDecodeError) as error:
        raise InputError(f"no root metadata ({error}); {remedy}") from None
    return record


def verify(record: TrustRecord, signature: bytes) -> Verified:
    """Follow a signature from what a device trusts, as TUF's client workflow prescribes (specification, section 5).

    Expiry is told by this machine's clock and by the floor, whichever is later.

    Raises:
        TrustError: one of its kinds. `record` stays as it was.
    """
    envelope = parse_envelope(signature)
    with tempfile.TemporaryDirectory(prefix="lineguard-trust-") as folder:
        for role in ROLES:
            if role in record.metadata:
                Path(folder, f"{role}.json").write_text(record.metadata[role])
        parts = _Parts(envelope.metadata)
        try:
            root = record.roots[-1].encode()
            updater = Updater(folder, "sig:/", fetcher=parts, config=LIMITS, bootstrap=root)
            updater.refresh()
            target = updater.get_targetinfo(TARGET)
        except (tuf.RepositoryError, tuf.DownloadError) as error:
            raise _explained(error, parts, record, Path(folder)) from None
        accepted = {role: Path(folder, f"{role}.json").read_text() for role in ("root", *ROLES)}
    if target is None or target.length > MAX_BYTES or "sha256" not in target.hashes:
        raise MalformedSignature("the signature pins no bundle; sign it again")
    try:
        terms = Terms.model_validate(target.custom)
    except ValidationError as error:
        raise MalformedSignature(f"the signature's terms: {error.errors()[0]['msg']}; sign it again") from None
    following = _following(record, accepted, parts.roots(), terms)
    if record.device not in terms.devices and EVERY_DEVICE not in terms.devices:
        raise WrongDevice(f"signed for {', '.join(terms.devices)}, this is {record.device}; sign it for this device")
    return Verified(following, target.hashes["sha256"], target.length, terms)


def open_verified(path: Path, verified: Verified) -> Bundle:
    """Read the bundle that was signed: the very bytes that were verified are the ones parsed.

    Raises:
        EndlessData, ArbitraryBundle: it is another file. BundleError: signed, but no bundle.
    """
    try:
        with path.open("rb") as file:
            data = file.read(verified.length + 1)
    except OSError as error:
        raise ArbitraryBundle(f"{path}: {error.strerror or error}") from None
    return parse_verified(data, verified, path)


def parse_verified(data: bytes, verified: Verified, path: Path) -> Bundle:
    """As `open_verified`, of bytes in memory; `path` is used in messages only."""
    if len(data) > verified.length:
        raise EndlessData(f"{path}: longer than the {verified.length} bytes that were signed; copy it again")
    if len(data) < verified.length or hashlib.sha256(data).hexdigest() != verified.sha256:
        raise ArbitraryBundle(f"{path}: not the bundle that was signed; copy or sign it again")
    return parse_bundle(data, path, verified.sha256)


def parse_envelope(signature: bytes) -> Envelope:
    """The metadata in a signature, unverified. Raises MalformedSignature, EndlessData."""
    if len(signature) > MAX_SIGNATURE:
        raise EndlessData(f"a signature of more than {MAX_SIGNATURE} bytes; no signature is")
    try:
        return Envelope.model_validate_json(signature)
    except ValidationError as error:
        raise MalformedSignature(f"no signature file ({error.errors()[0]['msg']}); sign the bundle again") from None


class _Parts(FetcherInterface):
    """Hands the metadata of an envelope to python-tuf, and remembers which file was asked for last."""

    def __init__(self, metadata: Mapping[str, str]) -> None:
        self._metadata = metadata
        self.asked = "1.root.json"

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.rpartition("/")[2]
        if name not in self._metadata:
            raise tuf.DownloadHTTPError(f"{name} is missing", 404)
        self.asked = name
        return iter([self._metadata[name].encode()])

    def roots(self) -> dict[int, str]:
        """Root metadata by version, unverified."""
        found = {re.fullmatch(r"([1-9][0-9]{0,5})\.root\.json", name): text for name, text in self._metadata.items()}
        return {int(match[1]): text for match, text in found.items() if match}

    def last(self) -> Metadata[Any]:
        """The file asked for last. Raises RepositoryError where it cannot be read."""
        return Metadata.from_bytes(self._metadata.get(self.asked, "").encode())


def _explained(error: Exception, parts: _Parts, record: TrustRecord, folder: Path) -> TrustError:
    """An error of python-tuf as the attack it stopped and what to do."""
    role = parts.asked.removesuffix(".json").rpartition(".")[2]
    if isinstance(error, tuf.DownloadLengthMismatchError):
        return EndlessData(f"{parts.asked} is larger than any is; sign the bundle again")
    if isinstance(error, tuf.ExpiredMetadataError):
        return FrozenSignature(f"{error}; check this device's clock, then sign the bundle again (keys rotate for root)")
    if isinstance(error, tuf.UnsignedMetadataError):
        return _untrusted(parts, record, Metadata[Root].from_file(str(folder / "root.json")).signed, role)
    if isinstance(error, tuf.LengthOrHashMismatchError):
        return MixedMetadata(f"{parts.asked} is of another signature; copy FILE.sig again")
    if isinstance(error, tuf.BadVersionNumberError):
        new = parts.last().signed
        if role == "timestamp":
            held = Metadata[Timestamp].from_bytes(record.metadata["timestamp"].encode()).signed.version
            if new.version < held:
                return ReplayedSignature(f"signature {new.version} is older than {held}, accepted here; sign it anew")
            return RolledBack("the signature names an older state than the one accepted here; sign the bundle anew")
        promised = Metadata[Timestamp].from_file(str(folder / "timestamp.json")).signed.snapshot_meta.version
        if role == "snapshot" and new.version == promised:
            return RolledBack("the signature names an older state than the one accepted here; sign the bundle anew")
        return MixedMetadata(f"{parts.asked} is of another signature; copy FILE.sig again")
    return MalformedSignature(f"{parts.asked}: {error}; copy FILE.sig again, or sign the bundle again")


def _untrusted(parts: _Parts, record: TrustRecord, root: Root, role: str) -> UntrustedKey:
    try:
        signers = set(parts.last().signatures)
    except tuf.RepositoryError:
        signers = set()
    revoked = signers & set(root.unrecognized_fields.get(REVOKED, []))
    if revoked:
        return RevokedKey(f"{role} is signed by key {min(revoked)[:12]}, which was revoked; sign with a current key")
    known = [Metadata[Root].from_bytes(text.encode()).signed for text in record.roots]
    replaced = signers & {key for old in known for key in old.keys} - set(root.keys)
    if replaced:
        return RotatedKey(f"{role} is signed by key {min(replaced)[:12]}, which was replaced; sign with a current key")
    needed = root.get_delegated_role(role).threshold
    return UntrustedKey(f"{role} has not the {needed} signature(s) this device asks for; sign with keys it trusts")


def _following(record: TrustRecord, accepted: Mapping[str, str], roots: Mapping[int, str], terms: Terms) -> TrustRecord:
    """The record after this signature. Raises FrozenSignature by the floor, and FastForward."""
    root = Metadata[Root].from_bytes(accepted["root"].encode()).signed
    first = Metadata[Root].from_bytes(record.roots[-1].encode()).signed.version
    goes_on = _still_trusted(record, root)
    floor = max(terms.signed, record.floor) if goes_on and record.floor else terms.signed
    for role, text in accepted.items():
        expires = Metadata.from_bytes(text.encode()).signed.expires
        if expires <= floor:
            raise FrozenSignature(
                f"{role} expired {expires:%Y-%m-%d %H:%M} UTC, and it is {floor:%Y-%m-%d %H:%M} at least; "
                "sign the bundle again"
            )
    for role in ROLES:
        new, held = _version(accepted[role]), _version(record.metadata[role]) if goes_on else 0
        if new > held + MAX_JUMP:
            raise FastForward(f"{role} {new} follows {held}, too far; if a signer made it so, `deploy keys rotate`")
    chain = (*record.roots, *(roots[n] for n in range(first + 1, root.version + 1)))
    kept = {role: accepted[role] for role in ROLES}
    return record.model_copy(update={"floor": floor, "roots": chain, "metadata": kept})


def _still_trusted(record: TrustRecord, root: Root) -> bool:
    """Whether the last metadata holds under this root: versions and times of a key that is gone bind nobody.

    So a device recovers from a fast-forward attack (TUF specification, 5.3.11).
    """
    for role in ("timestamp", "snapshot"):
        if role not in record.metadata:
            return False
        held: Metadata[Any] = Metadata.from_bytes(record.metadata[role].encode())
        if not root.get_verification_result(role, held.signed_bytes, held.signatures):
            return False
    return True


def _version(text: str) -> int:
    return int(Metadata.from_bytes(text.encode()).signed.version)
