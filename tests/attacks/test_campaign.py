"""`make attacks` on fewer bytes: it finds nothing on the product, and finds a verifier that looks at less."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from deploy import trust
from deploy.bundle import HEADER, Bundle, _sealed, parse_bundle
from deploy.record import read_trust
from tests.attacks import campaign
from tests.attacks.line import Line

BYTES = range(0, 44_000, 97)


@pytest.fixture
def good(line: Line, bundles: list[Path]) -> Path:
    """A signed bundle."""
    return line.signed(bundles[0], "good")


def accepted(line: Line, good: Path) -> int:
    """Flips of a good bundle's bytes that were accepted, of some of them."""
    record = read_trust(line.device.root)
    assert record is not None
    whole, verified = good.read_bytes(), trust.verify(record, trust.read_signature(good))
    taken = 0
    for at in BYTES:
        flipped = whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]
        taken += not campaign.refuses(lambda b=flipped: trust.parse_verified(b, verified, good))  # type: ignore[misc]
    return taken


def test_no_flip_is_accepted(line: Line, good: Path) -> None:
    """Of every 97th byte."""
    assert accepted(line, good) == 0


def test_a_verifier_of_the_members_alone_is_found_out(line: Line, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant checks the hashes in the manifest and no digest of the whole: flips in headers go unnoticed."""

    def members_alone(data: bytes, verified: trust.Verified, path: Path) -> Bundle:
        return parse_bundle(_sealed(data[HEADER:]), path)

    monkeypatch.setattr(trust, "parse_verified", members_alone)
    assert accepted(line, good) > 0


def test_what_a_device_takes_or_does_not_record_is_counted(line: Line, good: Path) -> None:
    """A good bundle, pushed as if it were an attack, is an acceptance; a bad one is none."""
    bad = line.copy(good, "bad")
    bad.write_bytes(bad.read_bytes()[:-1])
    assert campaign._staged(line, bad) == 0
    assert campaign._staged(line, good) == 1
    assert campaign._through_device(line, good, random.Random(1)) == 0
