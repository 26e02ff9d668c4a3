"""The bundle: a model and everything needed to judge with it, in one file.

Layout of an `.lgb` file::

    8 bytes   magic b"LGBUNDLE"
    4 bytes   format version, big-endian
    8 bytes   length of the payload, big-endian
    32 bytes  SHA-256 over magic, version, length and payload
    payload   a ZIP archive, members stored, fixed time stamps

Every byte of the file is covered by the digest, padding and archive headers included: hashes in a manifest alone
leave one flipped bit in seven undetected. The digest finds damage; who made the file is the signature's business.
A bundle is read whole into memory, verified, and only then parsed; nothing is ever extracted by name.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from calibration.errors import InputError
from deploy.manifest import Golden, Manifest, Variant
from deploy.onnx_check import check_self_contained

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from calibration.preprocess import Frame

MAGIC = b"LGBUNDLE"
FORMAT = 1
HEADER = 8 + 4 + 8 + 32
MAX_BYTES = 512 * 2**20
MAX_MEMBERS = 300
MAX_DIRECTORY = 2**16
"""Bytes of the archive's own list of members: zipfile reads it whole before its length can be looked at."""
NAMES = re.compile(
    r"manifest\.json|model\.(cpu|trt)\.onnx|golden/[0-9]{3}\.png|golden/expected\.json|report\.html|sbom\.cdx\.json"
)
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a ZIP can say: equal contents give equal files
GOLDENS = TypeAdapter(list[Golden])


class BundleError(InputError):
    """The file is no bundle that may be trusted with parts: keep the one in use."""


@dataclass(frozen=True)
class GoldenScores:
    """A golden frame by name, with the logits each variant gave for it: {variant: float32 (classes,)}."""

    name: str
    logits: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class GoldenFrame(GoldenScores):
    """The same, and the frame itself."""

    frame: Frame


@dataclass(frozen=True)
class Bundle:
    """An opened, fully verified bundle.

    Attributes:
        path: where it was read from (only for messages).
        sha256: of the whole file; what names a bundle on every verdict row.
        manifest: validated.
        members: the files inside, by name.
    """

    path: Path
    sha256: str
    manifest: Manifest
    members: Mapping[str, bytes]

    def model(self, variant: str) -> bytes:
        """ONNX bytes of a variant ("cpu" or "trt"). Raises BundleError where the bundle has no such variant."""
        if variant not in self.manifest.variants:
            raise BundleError(f"{self.path}: no variant {variant!r}; it has {sorted(self.manifest.variants)}")
        return self.members[self.manifest.variants[variant].model]

    def for_judging(self, variant: str) -> Bundle:
        """The bundle with no more in memory than it takes to judge with one variant: its model, which is the only one
        to ask for then if it has that variant at all, and the goldens."""
        models = [each.model for name, each in self.manifest.variants.items() if name == variant]
        kept = {name: data for name, data in self.members.items() if name in models or name.startswith("golden/")}
        return replace(self, members=MappingProxyType(kept))

    def variant(self, name: str) -> Variant:
        """Decision rule, baseline and figures of a variant."""
        self.model(name)
        return self.manifest.variants[name]

    def goldens(self) -> list[GoldenFrame]:
        """The golden frames, decoded, with their expected logits."""
        import numpy as np  # not above: who only verifies a bundle, as a device does with each push, decodes nothing

        from calibration.images import ImageError, decode_image

        expected = GOLDENS.validate_json(self.members["golden/expected.json"])
        frames = []
        for golden in expected:
            try:
                frame = decode_image(self.members[golden.frame], self.manifest.preprocess.channels, golden.frame)
            except (ImageError, KeyError) as error:
                raise BundleError(f"{self.path}: golden frame {golden.frame}: {error}") from None
            logits = {name: np.asarray(row, np.float32) for name, row in golden.logits.items()}
            frames.append(GoldenFrame(golden.frame, MappingProxyType(logits), frame))
        return frames


def write_bundle(path: Path, manifest: Manifest, members: Mapping[str, bytes]) -> str:
    """Write a bundle, whole or not at all (a temporary file renamed into place).

    Args:
        path: the `.lgb` file to make.
        manifest: its `files` are filled in here from `members`.
        members: all files but manifest.json.

    Returns:
        SHA-256 of the file, hex.

    Raises:
        BundleError: a name that is not allowed, or contents that `open_bundle` would refuse.
    """
    files = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(members.items())}
    manifest = manifest.model_copy(update={"files": files})
    everything = {"manifest.json": manifest.model_dump_json(indent=1).encode(), **members}
    payload = io.BytesIO()
    with zipfile.ZipFile(payload, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(everything):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), everything[name])
    data = _sealed(payload.getvalue())
    parse_bundle(data, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(data)
    temporary.replace(path)
    return hashlib.sha256(data).hexdigest()


def _sealed(payload: bytes) -> bytes:
    head = MAGIC + FORMAT.to_bytes(4, "big") + len(payload).to_bytes(8, "big")
    return head + hashlib.sha256(head + payload).digest() + payload


def open_bundle(path: Path) -> Bundle:
    """Read and verify a bundle, every byte of it.

    Raises:
        BundleError: missing, truncated, changed, too large, of another format version, with a manifest that does
            not validate, or with a model or rule that does not belong to it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(HEADER)
            if data.startswith(MAGIC):  # another file, however large, is not read to its end
                data += file.read(MAX_BYTES + 1 - HEADER)
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror or error}; give a bundle made by `trainer release`") from None
    return parse_bundle(data, path)


def parse_bundle(data: bytes, path: Path, sha256: str | None = None) -> Bundle:
    """Verify a bundle that is in memory.

    Args:
        data: the whole file.
        path: used in messages only.
        sha256: of `data`, hex, where it is known; None has it computed.

    Raises:
        BundleError: as open_bundle.
    """
    _check_sealed(data, path)
    members = _members(data, path)
    try:
        raw: Any = json.loads(members["manifest.json"])
        version = raw.get("schema_version") if isinstance(raw, dict) else None
        if version != 1 or isinstance(version, bool):
            raise BundleError(f"{path}: manifest schema_version is {version!r}; this program reads 1")
        manifest = Manifest.model_validate_json(members["manifest.json"])
    except KeyError:
        raise BundleError(f"{path}: no manifest.json inside; make the bundle again") from None
    except RecursionError:
        raise BundleError(f"{path}: manifest.json is nested without end; make the bundle again") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{path}: manifest.json, {where}: {first['msg']}; make the bundle again") from None
    except ValueError as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{path}: manifest.json is not valid JSON ({error})") from None
    _check_members(manifest, members, path)
    return Bundle(path, sha256 or hashlib.sha256(data).hexdigest(), manifest, MappingProxyType(members))


def _check_sealed(data: bytes, path: Path) -> None:
    if len(data) > MAX_BYTES:
        raise BundleError(f"{path}: larger than {MAX_BYTES // 2**20} MiB; no bundle is")
    if len(data) < HEADER or data[:8] != MAGIC:
        raise BundleError(f"{path}: not a Lineguard bundle; give a .lgb file made by `trainer release`")
    version = int.from_bytes(data[8:12], "big")
    found = hashlib.sha256(data[:20])
    found.update(memoryview(data)[HEADER:])
    if found.digest() != data[20:HEADER] or int.from_bytes(data[12:20], "big") != len(data) - HEADER:
        raise BundleError(f"{path}: damaged (its checksum does not match); copy or make the bundle again")
    if version != FORMAT:
        raise BundleError(f"{path}: bundle format {version}; this program reads format {FORMAT}")


def _members(data: bytes, path: Path) -> dict[str, bytes]:
    """The archive's files. Names, number, kind and sizes are checked before anything is read.

    zipfile is given the whole bundle, and looks for the archive behind its header: a copy without it costs as much as
    a hash does.
    """
    _check_directory(data, path)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _check_entries(entries, len(data) - HEADER, path)
            return {entry.filename: archive.read(entry) for entry in entries}
    except BundleError:
        raise
    # zipfile lets through whatever its own parsing of a hostile archive stumbles over
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        ArithmeticError,
        EOFError,
        OSError,
        RuntimeError,
        ValueError,
    ) as error:
        raise BundleError(f"{path}: the archive inside is not readable ({error})") from None


def _check_directory(data: bytes, path: Path) -> None:
    """The end record is the last 22 bytes (no comment, no ZIP64), so that its numbers are those zipfile goes by."""
    end = data[max(HEADER, len(data) - 22) :]
    if len(end) < 22 or end[:4] != b"PK\x05\x06" or end[20:] != b"\0\0" or data[-42:-38] == b"PK\x06\x07":
        raise BundleError(f"{path}: the archive inside is not readable; make the bundle again")
    directory, begins = int.from_bytes(end[12:16], "little"), int.from_bytes(end[16:20], "little")
    if HEADER + begins + directory + len(end) != len(data):
        raise BundleError(f"{path}: its list of members is not where the archive ends; refused")
    if directory > MAX_DIRECTORY:
        raise BundleError(f"{path}: its list of members is longer than {MAX_DIRECTORY} bytes; refused")


def _check_entries(entries: Sequence[zipfile.ZipInfo], size: int, path: Path) -> None:
    names = [entry.filename for entry in entries]
    if len(entries) > MAX_MEMBERS or len(set(names)) != len(names):
        raise BundleError(f"{path}: {len(entries)} members, or a name that occurs twice; refused")
    for entry in entries:
        if not NAMES.fullmatch(entry.filename):
            raise BundleError(f"{path}: member {entry.filename[:80]!r} has no place in a bundle")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise BundleError(f"{path}: member {entry.filename} is compressed; bundles store their files")
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            raise BundleError(f"{path}: member {entry.filename} is no ordinary file; refused")
    # members that overlap could make a small archive fill the memory
    if sum(entry.file_size for entry in entries) > size:
        raise BundleError(f"{path}: its members claim more bytes than the archive has; refused")


def _check_members(manifest: Manifest, members: Mapping[str, bytes], path: Path) -> None:
    """Everything in the manifest belongs to the files beside it: no mix of one model with another's thresholds."""
    actual = {name: hashlib.sha256(data).hexdigest() for name, data in members.items() if name != "manifest.json"}
    if actual != dict(manifest.files):
        wrong = sorted(set(actual.items()) ^ set(manifest.files.items()))[0][0]
        raise BundleError(f"{path}: {wrong} is not the file that manifest.json names")
    for required in ("golden/expected.json", "report.html", "sbom.cdx.json"):
        if required not in members:
            raise BundleError(f"{path}: {required} is missing; make the bundle again")
    for name, variant in manifest.variants.items():
        if actual.get(variant.model) != variant.rule.model_sha256:
            raise BundleError(f"{path}: variant {name}: the decision rule was fitted on another model")
        if variant.rule.preprocess_sha256 != manifest.preprocess.sha256:
            raise BundleError(f"{path}: variant {name}: the decision rule was fitted on another preprocessing")
        if variant.rule.classes != manifest.classes or variant.rule.ok_class != manifest.ok_class:
            raise BundleError(f"{path}: variant {name}: its classes are not those of the manifest")
        try:
            check_self_contained(members[variant.model])
        except ValueError as error:
            raise BundleError(f"{path}: {variant.model} {error}; export the model again") from None
    _check_goldens(manifest, members, path)


def _check_goldens(manifest: Manifest, members: Mapping[str, bytes], path: Path) -> None:
    """The device can check every variant of the bundle on its golden frames."""
    try:
        goldens = GOLDENS.validate_json(members["golden/expected.json"])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{path}: golden/expected.json, {where}: {first['msg']}; make the bundle again") from None
    if not goldens:
        raise BundleError(f"{path}: no golden frames; a bundle that cannot be checked is refused")
    for golden in goldens:
        if golden.frame not in members or set(golden.logits) != set(manifest.variants):
            raise BundleError(f"{path}: golden {golden.frame}: its frame or a variant's logits are missing")
        if golden.label not in manifest.classes:
            raise BundleError(f"{path}: golden {golden.frame}: its label {golden.label!r} is none of the classes")
        if any(len(row) != len(manifest.classes) for row in golden.logits.values()):
            raise BundleError(f"{path}: golden {golden.frame}: logits do not match the {len(manifest.classes)} classes")
