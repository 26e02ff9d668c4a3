"""The bundle: nothing but the whole, unchanged, consistent file is accepted."""

from __future__ import annotations

import contextlib
import hashlib
import random
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.bundle import HEADER, MAGIC, BundleError, open_bundle, parse_bundle, write_bundle
from tests.deploy.sealed import HERE, pack, refusal, seal
from tests.support.tiny import CLASSES, tiny_contents


@pytest.fixture(scope="module")
def good(bundles: list[Path]) -> bytes:
    """The bytes of a good bundle."""
    return bundles[0].read_bytes()


@pytest.fixture(scope="module")
def members(good: bytes) -> Mapping[str, bytes]:
    """Its files, manifest.json included."""
    return parse_bundle(good, HERE).members


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


def test_who_judges_holds_one_model_and_the_goldens(good: bytes) -> None:
    """Of two models the other one is let go, and the report; what is judged with is the same."""
    bundle = parse_bundle(good, HERE)
    cpu = bundle.manifest.variants["cpu"]
    variants = {"cpu": cpu, "trt": cpu.model_copy(update={"model": "model.trt.onnx"})}
    bundle = replace(
        bundle,
        manifest=bundle.manifest.model_copy(update={"variants": variants}),
        members={**bundle.members, "model.trt.onnx": b"another"},
    )
    kept = bundle.for_judging("cpu")
    goldens = {name for name in bundle.members if name.startswith("golden/")}
    assert kept.members.keys() == goldens | {"model.cpu.onnx"}
    assert (kept.sha256, kept.variant("cpu")) == (bundle.sha256, bundle.variant("cpu"))
    assert [golden.name for golden in kept.goldens()] == [golden.name for golden in bundle.goldens()]
    assert bundle.for_judging("gpu").members.keys() == goldens


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


def test_an_archive_behind_other_bytes_is_refused(good: bytes) -> None:
    assert "list of members is not where the archive ends" in refusal(seal(b"#!/bin/sh\n" + good[52:]))


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


def test_what_would_be_refused_is_not_written(tmp_path: Path) -> None:
    """A name off the list, a missing report, another model than the rule's: no file, not even a part of one."""
    manifest, contents = tiny_contents()
    for name, data in (("notes.txt", b"x"), ("model.cpu.onnx", b"x")):
        with pytest.raises(BundleError):
            write_bundle(tmp_path / "bad.lgb", manifest, {**contents, name: data})
    with pytest.raises(BundleError, match=r"report\.html is missing"):
        write_bundle(tmp_path / "bad.lgb", manifest, {n: d for n, d in contents.items() if n != "report.html"})
    assert list(tmp_path.iterdir()) == []
