"""The bundle: nothing but the whole, unchanged, consistent file is accepted."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.bundle import EPOCH, FORMAT, HEADER, MAGIC, BundleError, open_bundle, parse_bundle, write_bundle
from tests.support.tiny import CLASSES, tiny_contents, tiny_model, tiny_spec

HERE = Path("test.lgb")
Members = dict[str, bytes]


@pytest.fixture(scope="module")
def good(bundles: list[Path]) -> bytes:
    """The bytes of a good bundle."""
    return bundles[0].read_bytes()


@pytest.fixture(scope="module")
def members(good: bytes) -> Mapping[str, bytes]:
    """Its files, manifest.json included."""
    return parse_bundle(good, HERE).members


def seal(payload: bytes, version: int = FORMAT) -> bytes:
    """A payload with a valid header and digest: what an attacker without a key can always make."""
    head = MAGIC + version.to_bytes(4, "big") + len(payload).to_bytes(8, "big")
    return head + hashlib.sha256(head + payload).digest() + payload


def pack(files: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A sealed archive of any files."""
    payload = io.BytesIO()
    with zipfile.ZipFile(payload, "w", compression) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name, EPOCH), data, compression)
    return seal(payload.getvalue())


def remade(members: Mapping[str, bytes], edit: Callable[[dict[str, Any]], None], rehash: bool = True) -> bytes:
    """The bundle with its manifest edited as JSON; `files` again in order unless told otherwise."""
    files = dict(members)
    manifest = json.loads(files["manifest.json"])
    if rehash:
        manifest["files"] = {n: hashlib.sha256(d).hexdigest() for n, d in files.items() if n != "manifest.json"}
    edit(manifest)
    files["manifest.json"] = json.dumps(manifest).encode()
    return pack(sorted(files.items()))


def refusal(data: bytes) -> str:
    """The error that `data` is refused with."""
    with pytest.raises(BundleError) as caught:
        parse_bundle(data, HERE)
    assert str(caught.value).startswith("test.lgb: ")
    return str(caught.value)


def test_what_was_written_is_read_back(good: bytes, members: Mapping[str, bytes]) -> None:
    """Manifest, model, goldens; the name of the bundle is the hash of its file."""
    manifest, contents = tiny_contents(name="one")
    bundle = parse_bundle(good, HERE)
    assert bundle.sha256 == hashlib.sha256(good).hexdigest()
    assert bundle.manifest.model_copy(update={"files": {}}) == manifest
    assert bundle.model("cpu") == contents["model.cpu.onnx"]
    assert bundle.variant("cpu").rule.classes == CLASSES
    assert dict(members).keys() == contents.keys() | {"manifest.json"}
    goldens = bundle.goldens()
    assert len(goldens) == 8
    assert goldens[0].frame.shape == (64, 96)
    assert goldens[0].logits["cpu"].dtype == np.float32
    with pytest.raises(TypeError):
        bundle.members["manifest.json"] = b""  # type: ignore[index]


def test_a_variant_that_is_not_there_is_a_clear_error(good: bytes) -> None:
    """It says which there are."""
    with pytest.raises(BundleError, match=r"no variant 'trt'; it has \['cpu'\]"):
        parse_bundle(good, HERE).variant("trt")


def test_equal_contents_give_equal_files(tmp_path: Path) -> None:
    """Byte for byte, whatever the order of the members and the time of day."""
    manifest, contents = tiny_contents()
    first = write_bundle(tmp_path / "a.lgb", manifest, contents)
    second = write_bundle(tmp_path / "sub" / "b.lgb", manifest, dict(reversed(contents.items())))
    assert first == second
    assert (tmp_path / "a.lgb").read_bytes() == (tmp_path / "sub" / "b.lgb").read_bytes()
    assert not list(tmp_path.rglob("*.part"))


def test_one_flipped_bit_in_any_byte_is_refused(good: bytes) -> None:
    """Every byte of the file once: none is left uncovered."""
    data = bytearray(good)
    bits = random.Random(1)
    accepted = []
    for i in range(len(data)):
        bit = 1 << bits.randrange(8)
        data[i] ^= bit
        try:
            parse_bundle(bytes(data), HERE)
            accepted.append(i)
        except BundleError:
            pass
        data[i] ^= bit
    assert accepted == []
    parse_bundle(bytes(data), HERE)


def test_flips_are_refused_through_the_file_too(good: bytes, tmp_path: Path) -> None:
    """A sample of them, header, payload and end of the archive."""
    path = tmp_path / "bad.lgb"
    for at in (0, 8, 11, 12, 19, 20, 51, 52, 10_000, len(good) - 1):
        data = bytearray(good)
        data[at] ^= 1
        path.write_bytes(bytes(data))
        with pytest.raises(BundleError, match=r"bad\.lgb"):
            open_bundle(path)


def test_every_prefix_is_refused(good: bytes) -> None:
    """All of the header and the end, each 97th byte in between, and the empty file."""
    lengths = {*range(HEADER + 100), *range(0, len(good), 97), *range(len(good) - 200, len(good))}
    for length in lengths:
        refusal(good[:length])


def test_trailing_bytes_and_joined_bundles_are_refused(good: bytes) -> None:
    """Behind, before, twice."""
    for data in (good + b"\0", good + b"\n", b"\0" + good, good + good, good[:HEADER] + good):
        refusal(data)


@given(data=st.binary(max_size=400))
def test_noise_is_refused(data: bytes) -> None:
    """With and without the magic word."""
    assert "not a Lineguard bundle" in refusal(data)
    refusal(MAGIC + data)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=400))
def test_a_sealed_payload_of_noise_is_refused(data: bytes) -> None:
    """A valid digest over anything at all ends in a BundleError and no other error."""
    refusal(seal(data))


@settings(max_examples=300, deadline=None)
@given(edits=st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=8), end=st.booleans())
def test_a_resealed_damaged_archive_never_raises_another_error(
    edits: list[tuple[int, int]], end: bool, bundles: list[Path]
) -> None:
    """The archive's own structure broken under a valid digest: refused, or read as what it says, never a crash."""
    payload = bytearray(bundles[0].read_bytes()[HEADER:])
    region = 1500 if end else len(payload)  # the central directory is at the end
    for at, value in edits:
        payload[-1 - at % region] = value
    with contextlib.suppress(BundleError):
        parse_bundle(seal(bytes(payload)), HERE)


def test_a_missing_file_a_directory_and_a_huge_file_are_clear_errors(tmp_path: Path) -> None:
    """Each in one line; the huge one is not read to its end."""
    with pytest.raises(BundleError, match="give a bundle made by"):
        open_bundle(tmp_path / "none.lgb")
    with pytest.raises(BundleError, match="Is a directory"):
        open_bundle(tmp_path)
    with (tmp_path / "huge.lgb").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(BundleError, match="not a Lineguard bundle"):
        open_bundle(tmp_path / "huge.lgb")


def test_another_format_version_is_named(good: bytes) -> None:
    """A newer bundle asks for a newer program, not for another copy."""
    assert "bundle format 2; this program reads format 1" in refusal(seal(good[HEADER:], version=2))


@pytest.mark.parametrize(
    "name",
    [
        "../model.cpu.onnx",
        "/etc/passwd",
        "golden/../manifest.json",
        "golden/1.png",
        "golden/0000.png",
        "golden/",
        "MANIFEST.JSON",
        "manifest.json\n",
        "model.cpu.onnx.data",
        "weights.pkl",
        "golden\\000.png",
        "golden/٠٠٠.png",
        "x" * 300,
        "",
    ],
)
def test_a_member_that_is_not_on_the_list_is_refused(members: Mapping[str, bytes], name: str) -> None:
    """Paths out of the bundle, twins in another case, external model data, digits of another script."""
    others = [(other, data) for other, data in members.items() if other != "manifest.json"]
    message = refusal(pack([*others, (name, b"x")]))
    assert "no place in a bundle" in message


def test_a_name_that_occurs_twice_is_refused(members: Mapping[str, bytes]) -> None:
    """What a check reads must be what a later reader finds."""
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = pack([*members.items(), ("model.cpu.onnx", b"another")])
    assert "occurs twice" in refusal(data)


def test_too_many_members_are_refused(members: Mapping[str, bytes]) -> None:
    """Before any is read."""
    extra = [(f"golden/{i:03d}.png", b"") for i in range(8, 400)]
    assert "405 members" in refusal(pack([*members.items(), *extra]))


def test_a_name_that_is_no_utf_8_is_refused() -> None:
    """Though the archive says that it is."""
    payload = bytearray(pack([("golden/é.png", b"x")])[HEADER:])
    for _ in range(2):
        at = payload.index("é".encode())
        payload[at : at + 2] = b"\xff\xff"
    assert "not readable" in refusal(seal(bytes(payload)))


def test_compressed_members_are_refused_unread(members: Mapping[str, bytes]) -> None:
    """A bomb of 100 MB in 100 kB costs nothing."""
    for compression in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        assert "is compressed" in refusal(pack([("report.html", bytes(1000))], compression))
    bomb = pack([("report.html", bytes(100_000_000))], zipfile.ZIP_DEFLATED)
    assert len(bomb) < 200_000
    assert "is compressed" in refusal(bomb)


def test_a_member_that_claims_to_be_larger_than_the_file_is_refused(members: Mapping[str, bytes]) -> None:
    """Sizes in the directory that are not true."""
    payload = bytearray(pack([("report.html", b"12345")])[HEADER:])
    directory = payload.rindex(b"PK\x01\x02")
    payload[directory + 20 : directory + 28] = struct.pack("<II", 2**31, 2**31)
    refusal(seal(bytes(payload)))


def test_members_that_overlap_are_refused() -> None:
    """Three names for the same bytes: a small archive that would fill the memory."""
    payload = bytearray(pack([(f"golden/{i:03d}.png", bytes(1000 if i == 0 else 0)) for i in range(3)])[HEADER:])
    first = at = payload.index(b"PK\x01\x02")
    while (at := payload.find(b"PK\x01\x02", at + 1)) > 0:
        payload[at + 16 : at + 28] = payload[first + 16 : first + 28]  # checksum and sizes
        payload[at + 42 : at + 46] = payload[first + 42 : first + 46]  # offset
    assert "claim more bytes than the archive has" in refusal(seal(bytes(payload)))


def test_no_manifest_is_a_clear_error(members: Mapping[str, bytes]) -> None:
    """The empty archive too."""
    assert "no manifest.json inside" in refusal(pack([("report.html", b"")]))
    assert "no manifest.json inside" in refusal(pack([]))


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"3", b"null", b"\xff\xfe{", b"[" * 100_000, b'{"schema_version": NaN}'],
    ids=["empty", "cut", "list", "number", "null", "no text", "endless nesting", "NaN"],
)
def test_a_manifest_that_is_no_manifest_is_a_clear_error(members: Mapping[str, bytes], text: bytes) -> None:
    """Not JSON, not an object, nested without end."""
    assert "manifest" in refusal(pack([*{**members, "manifest.json": text}.items()]))


@pytest.mark.parametrize("missing", ["golden/expected.json", "report.html", "sbom.cdx.json", "model.cpu.onnx"])
def test_a_missing_member_is_named(members: Mapping[str, bytes], missing: str) -> None:
    """Left out of the archive and of the manifest's list."""
    files = {name: data for name, data in members.items() if name != missing}
    message = refusal(remade(files, lambda manifest: None))
    assert missing in message or "another model" in message


def test_a_member_swapped_for_another_is_named(members: Mapping[str, bytes]) -> None:
    """The archive whole and sealed, but the report is not the one the manifest names."""
    files = {**members, "report.html": b"all is well"}
    message = refusal(remade(files, lambda manifest: None, rehash=False))
    assert "report.html is not the file that manifest.json names" in message


def test_an_extra_golden_frame_is_named(members: Mapping[str, bytes]) -> None:
    """Nothing rides along."""
    files = {**members, "golden/200.png": b"x"}
    assert "golden/200.png" in refusal(remade(files, lambda manifest: None, rehash=False))


def test_mix_and_match_of_model_and_rule_is_refused(members: Mapping[str, bytes]) -> None:
    """Another model, hashes in order: its thresholds were not fitted on it."""
    files = {**members, "model.cpu.onnx": tiny_model(gain=60.0)}
    assert "the decision rule was fitted on another model" in refusal(remade(files, lambda manifest: None))


def test_mix_and_match_of_preprocessing_and_rule_is_refused(members: Mapping[str, bytes]) -> None:
    """Another geometry than the rule was fitted with."""

    def edit(manifest: dict[str, Any]) -> None:
        manifest["preprocess"]["fit"] = "pad"

    assert tiny_spec().fit == "stretch"
    assert "fitted on another preprocessing" in refusal(remade(members, edit))


@pytest.mark.parametrize("classes", [["scratch", "ok"], ["ok", "dent"]])
def test_mix_and_match_of_labels_and_rule_is_refused(members: Mapping[str, bytes], classes: list[str]) -> None:
    """Labels swapped or renamed in the manifest alone."""

    def edit(manifest: dict[str, Any]) -> None:
        manifest["classes"] = classes

    assert "its classes are not those of the manifest" in refusal(remade(members, edit))


def rule_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """The decision rule inside a manifest."""
    found: dict[str, Any] = manifest["variants"]["cpu"]["rule"]
    return found


@pytest.mark.parametrize("field", ["ok_below", "defect_above", "temperature"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, 2, "0,9", "0.5", None, True, [0.5], 0])
def test_a_threshold_that_is_no_number_in_range_is_refused(
    members: Mapping[str, bytes], field: str, value: object
) -> None:
    """NaN, infinity, -1, 2, text, null, truth values: refused with the field's place. A temperature of 2 is fine."""
    if (field, value) in (("temperature", 2), ("ok_below", 0)):
        return
    message = refusal(remade(members, lambda manifest: rule_of(manifest).update({field: value})))
    assert "variants.cpu.rule" in message


EDITS: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("unknown field", lambda m: m.update(colour="red"), "colour"),
    ("unknown field of the rule", lambda m: rule_of(m).update(margin=0.1), "variants.cpu.rule"),
    ("unknown field of the preprocessing", lambda m: m["preprocess"].update(mean=3), "preprocess"),
    ("schema version 2", lambda m: m.update(schema_version=2), "schema_version is 2; this program reads 1"),
    ("schema version '1'", lambda m: m.update(schema_version="1"), "schema_version is '1'"),
    ("schema version true", lambda m: m.update(schema_version=True), "schema_version is True"),
    ("no schema version", lambda m: m.pop("schema_version"), "schema_version is None"),
    ("no classes", lambda m: m.update(classes=[]), "classes"),
    ("one class", lambda m: m.update(classes=["ok"]), "classes"),
    ("a class twice", lambda m: m.update(classes=["ok", "ok"]), "a name occurs twice"),
    ("no OK class", lambda m: m.update(ok_class="fine"), "none of the classes"),
    ("ESC in a class name", lambda m: m.update(classes=["ok", "\x1b]52;c;aGk=\x07"]), "printable"),
    ("bidi override in a class name", lambda m: m.update(classes=["ok", "a\u202eb"]), "printable"),
    ("empty class name", lambda m: m.update(classes=["ok", ""]), "printable"),
    ("endless class name", lambda m: m.update(classes=["ok", "x" * 65]), "printable"),
    ("ESC in the bundle's name", lambda m: m.update(name="\x1b[2J"), "printable"),
    ("a time without a zone", lambda m: m.update(created="2026-01-01T00:00:00"), "created"),
    ("batch 0", lambda m: m.update(max_batch=0), "max_batch"),
    ("no variant", lambda m: m.update(variants={}), "variants"),
    ("a variant under another name", lambda m: m.update(variants={"gpu": m["variants"]["cpu"]}), "gpu"),
    ("a path for a model", lambda m: m["variants"]["cpu"].update(model="/tmp/m.onnx"), "model"),  # noqa: S108
    ("negative baseline", lambda m: m["variants"]["cpu"]["baseline"].update(counts=[-1, 2]), "counts"),
    ("empty baseline", lambda m: m["variants"]["cpu"]["baseline"].update(counts=[0, 0]), "counts"),
    ("another number of bins", lambda m: m["variants"]["cpu"]["baseline"].update(counts=[1, 2]), "counts"),
    ("a metric that is NaN", lambda m: m["metrics"]["accuracy"].update(low=float("nan")), "metrics.accuracy"),
    ("a metric that is text", lambda m: m["metrics"]["accuracy"].update(low="0.5"), "metrics.accuracy"),
    ("an unknown field of a metric", lambda m: m["metrics"]["accuracy"].update(sd=0.5), "metrics.accuracy"),
    ("a seed that is text", lambda m: m["provenance"].update(seed="1"), "seed"),
    ("agreement of 1.1", lambda m: m["variants"]["cpu"]["parity"].update(agreement=1.1), "agreement"),
    ("a file's hash in capitals", lambda m: m["files"].update({"report.html": "A" * 64}), "files"),
    ("input of 0 pixels", lambda m: m["preprocess"].update(height=0), "preprocess"),
    ("two channels", lambda m: m["preprocess"].update(channels=2), "preprocess"),
    ("frame range upside down", lambda m: m["preprocess"].update(frame_heights=[9, 3]), "preprocess"),
]


@pytest.mark.parametrize(("edit", "told"), [e[1:] for e in EDITS], ids=[e[0] for e in EDITS])
def test_a_manifest_with_one_thing_wrong_is_refused(
    members: Mapping[str, bytes], edit: Callable[[dict[str, Any]], Any], told: str
) -> None:
    """The message names the place."""
    assert told in refusal(remade(members, edit))


def test_markup_and_other_scripts_are_allowed_in_names(members: Mapping[str, bytes]) -> None:
    """Names are text: what a screen does with brackets is the screen's business."""

    def edit(manifest: dict[str, Any]) -> None:
        manifest["name"] = "Lötstellen [red] 検査"

    assert parse_bundle(remade(members, edit), HERE).manifest.name == "Lötstellen [red] 検査"


def goldens_edited(members: Mapping[str, bytes], edit: Callable[[list[dict[str, Any]]], Any]) -> bytes:
    """The bundle with golden/expected.json edited and all hashes in order."""
    expected = json.loads(members["golden/expected.json"])
    edit(expected)
    return remade({**members, "golden/expected.json": json.dumps(expected).encode()}, lambda manifest: None)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda g: g.clear(), "no golden frames"),
        (lambda g: g[0].update(frame="golden/900.png"), "golden/900.png"),
        (lambda g: g[0].update(frame="../x.png"), "frame"),
        (lambda g: g[0].update(logits={}), "variant's logits are missing"),
        (lambda g: g[0].update(logits={"cpu": [1.0]}), "do not match the 2 classes"),
        (lambda g: g[0].update(logits={"cpu": [1.0, float("nan")]}), "golden/expected.json"),
        (lambda g: g[0].update(logits={"cpu": [1.0, "2"]}), "golden/expected.json"),
        (lambda g: g[0].update(label="dent"), "dent"),
        (lambda g: g[0].update(weight=2), "golden/expected.json"),
        (lambda g: g.append(3), "golden/expected.json"),
    ],
    ids=["none", "no frame", "path", "no logits", "one logit", "NaN", "text", "label", "unknown field", "number"],
)
def test_wrong_goldens_are_refused(
    members: Mapping[str, bytes], edit: Callable[[list[dict[str, Any]]], Any], told: str
) -> None:
    """A bundle that could not be checked on the device is none."""
    assert told in refusal(goldens_edited(members, edit))


def test_goldens_that_are_no_list_are_refused(members: Mapping[str, bytes]) -> None:
    """Any other JSON, or none."""
    for text in (b"", b"3", b"null", b'{"a": 1}'):
        message = refusal(remade({**members, "golden/expected.json": text}, lambda manifest: None))
        assert "golden" in message


def test_a_golden_frame_that_is_no_picture_is_named(members: Mapping[str, bytes]) -> None:
    """Found when the goldens are read, that is before the bundle may judge."""
    bundle = parse_bundle(remade({**members, "golden/003.png": b"noise"}, lambda manifest: None), HERE)
    with pytest.raises(BundleError, match=r"golden frame golden/003.png"):
        bundle.goldens()


def test_what_would_be_refused_is_not_written(tmp_path: Path) -> None:
    """A name off the list, a missing report, another model than the rule's: no file, not even a part of one."""
    manifest, contents = tiny_contents()
    for name, data in (("notes.txt", b"x"), ("model.cpu.onnx", b"x")):
        with pytest.raises(BundleError):
            write_bundle(tmp_path / "bad.lgb", manifest, {**contents, name: data})
    with pytest.raises(BundleError, match=r"report\.html is missing"):
        write_bundle(tmp_path / "bad.lgb", manifest, {n: d for n, d in contents.items() if n != "report.html"})
    assert list(tmp_path.iterdir()) == []
