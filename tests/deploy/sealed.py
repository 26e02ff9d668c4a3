"""Bundles put together by hand: sealed payloads of any content, and what opening them says."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from deploy.bundle import EPOCH, FORMAT, MAGIC, BundleError, parse_bundle

HERE = Path("test.lgb")
Members = dict[str, bytes]


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
