"""Every attack of the TUF specification (section 1.5.2) and of Uptane's on one line: refused by its own error and one
row on record, nothing else changed; then the good bundle is accepted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from deploy import trust
from deploy.keys import KeyStore
from deploy.record import open_active, read_trust
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
from deploy.trust_record import signature_path
from tests.attacks.forge import Forgery, Impostor, put, roots, signing_keys, taken
from tests.attacks.line import Line


def test_an_arbitrary_bundle_is_refused(line: Line, bundles: list[Path]) -> None:
    """Another bundle under a good signature."""
    good = line.signed(bundles[0], "good")
    other = put(line.copy(bundles[1], "other"), taken(good))
    line.refuses(_as_long(other, good), ArbitraryBundle)
    line.accepts(good)


def _as_long(path: Path, like: Path) -> Path:
    """The same length, so that the hash alone must tell."""
    size = like.stat().st_size
    path.write_bytes(path.read_bytes()[:size].ljust(size, b"\0"))
    return path


def test_an_unsigned_bundle_is_refused(line: Line, bundles: list[Path]) -> None:
    """Whole and sound, but nobody signed it."""
    line.refuses(line.copy(bundles[1], "other"), UnsignedBundle)
    line.accepts(line.signed(bundles[0], "good"))


def test_a_replayed_signature_is_refused(line: Line, bundles: list[Path]) -> None:
    """Captured once, shown again after a newer one was accepted."""
    old, new = line.signed(bundles[0], "old"), line.signed(bundles[1], "new")
    line.runs(new)
    line.refuses(old, ReplayedSignature)
    line.accepts(line.signed(bundles[0], "again"))


def test_an_equal_version_with_other_contents_is_refused(line: Line, bundles: list[Path]) -> None:
    """Two signatures of one number: the first one accepted is the one."""
    line.runs(line.signed(bundles[0], "first"))
    line.refuses(_as_long(Forgery(1).beside(line.copy(bundles[1], "twin"), line.keys), bundles[0]), ArbitraryBundle)
    line.accepts(line.signed(bundles[1], "good"))


def test_a_rollback_is_refused(line: Line, bundles: list[Path]) -> None:
    """A fresh timestamp over an older snapshot than the one accepted."""
    line.runs(Forgery(5).beside(line.copy(bundles[0], "five"), line.keys))
    line.refuses(Forgery(6, inner=4).beside(line.copy(bundles[1], "six"), line.keys), RolledBack)
    line.accepts(Forgery(6).beside(line.copy(bundles[1], "good"), line.keys))


def test_a_frozen_signature_is_refused(line: Line, bundles: list[Path]) -> None:
    """Expired by the clock."""
    line.refuses(Forgery(1, days=-0.01).beside(line.copy(bundles[1], "frozen"), line.keys), FrozenSignature)
    line.accepts(line.signed(bundles[0], "good"))


def test_a_clock_that_went_back_does_not_thaw_a_frozen_signature(line: Line, bundles: list[Path]) -> None:
    """The floor: a device that has seen a signature of next month refuses one that had expired by then."""
    later = datetime.now(timezone.utc) + timedelta(days=40)
    line.runs(Forgery(1, days=70, signed=later).beside(line.copy(bundles[0], "later"), line.keys))
    line.refuses(Forgery(2, days=39).beside(line.copy(bundles[1], "old"), line.keys), FrozenSignature)
    line.accepts(Forgery(2, days=41).beside(line.copy(bundles[1], "good"), line.keys))
    record = read_trust(line.device.root)
    assert record is not None
    assert record.floor is not None
    assert abs(record.floor - later) < timedelta(seconds=2)


@pytest.mark.parametrize("stale", ["targets.json", "snapshot.json"])
def test_mixed_metadata_is_refused(line: Line, bundles: list[Path], stale: str) -> None:
    """One part of an older signature among those of a newer one."""
    old, new = line.signed(bundles[0], "old"), line.signed(bundles[1], "new")
    mixed = put(line.copy(bundles[0], "mixed"), {**taken(new), stale: taken(old)[stale]})
    line.refuses(mixed, MixedMetadata)
    line.accepts(new)


def test_a_fast_forward_is_refused(line: Line, bundles: list[Path]) -> None:
    """A thief's version so high that it would shut out every honest signature."""
    line.refuses(Forgery(2**63 - 1).beside(line.copy(bundles[1], "far"), line.keys), FastForward)
    line.accepts(line.signed(bundles[0], "good"))


def test_a_rotation_recovers_from_a_fast_forward_within_the_limit(line: Line, bundles: list[Path]) -> None:
    """A smaller jump is accepted, honest signatures are then too old; new keys start over, the thief's are dead."""
    thief = signing_keys(line.keys)
    future = datetime.now(timezone.utc) + timedelta(days=20)
    line.runs(Forgery(9_000, signed=future).beside(line.copy(bundles[1], "far"), line.keys))
    line.refuses(line.signed(bundles[0], "shut out"), ReplayedSignature)
    line.keys.rotate()
    line.accepts(line.signed(bundles[0], "good"))
    record = read_trust(line.device.root)
    assert record is not None
    assert record.floor is not None
    assert record.floor < future
    line.refuses(Forgery(9_500).beside(line.copy(bundles[1], "again"), line.keys, thief), RotatedKey)


def test_a_bundle_for_another_device_is_refused(line: Line, bundles: list[Path]) -> None:
    """The ids are inside the signature."""
    line.refuses(line.signed(bundles[1], "other", devices=("press-4", "press-5")), WrongDevice)
    line.accepts(line.signed(bundles[0], "good", devices=("press-4", "press-3")))


def test_a_stolen_key_is_worth_nothing_once_rotated(line: Line, bundles: list[Path]) -> None:
    """The device has learnt the new root; the thief signs with the old key, under old and new roots."""
    thief, before = signing_keys(line.keys), roots(line.keys)
    line.keys.rotate()
    line.runs(line.signed(bundles[0], "first"))
    stolen = line.copy(bundles[1], "stolen")
    line.refuses(Forgery(7).beside(stolen, line.keys, thief), RotatedKey)
    line.refuses(put(stolen, {**before, **Forgery(7).metadata(stolen.read_bytes(), thief)}), RotatedKey)
    line.accepts(line.signed(bundles[1], "good"))


def test_a_revoked_key_is_refused(line: Line, bundles: list[Path]) -> None:
    """Named in the root as revoked, at the first sight of that root already."""
    thief = signing_keys(line.keys)
    line.keys.revoke(thief[0].public_key.keyid[:12])
    line.refuses(Forgery(7).beside(line.copy(bundles[1], "stolen"), line.keys, thief), RevokedKey)
    line.accepts(line.signed(bundles[0], "good"))


def test_a_key_nobody_named_is_refused(line: Line, bundles: list[Path], tmp_path: Path) -> None:
    """A stranger's keys and roots, whole and consistent in themselves."""
    stranger = KeyStore(tmp_path / "stranger")
    stranger.init()
    line.refuses(Forgery(1).beside(line.copy(bundles[1], "strange"), stranger), UntrustedKey)
    line.accepts(line.signed(bundles[0], "good"))


def test_a_root_that_the_old_root_did_not_sign_is_refused(line: Line, bundles: list[Path], tmp_path: Path) -> None:
    """A stranger's second root behind our first one."""
    stranger = KeyStore(tmp_path / "stranger")
    stranger.init()
    stranger.rotate()
    path = line.copy(bundles[1], "strange")
    chain = {**roots(stranger), "1.root.json": roots(line.keys)["1.root.json"]}
    line.refuses(put(path, {**chain, **Forgery(1).metadata(path.read_bytes(), signing_keys(stranger))}), UntrustedKey)
    line.accepts(line.signed(bundles[0], "good"))


def test_endless_data_is_refused_by_length(line: Line, bundles: list[Path]) -> None:
    """A bundle that goes on after what was signed, a signature without end, and one part of it without end."""
    good = line.signed(bundles[0], "good")
    longer = put(line.copy(bundles[0], "longer"), taken(good))
    with longer.open("ab") as file:
        file.truncate(2**33)  # a hole: reading it to its end would take minutes
    line.refuses(longer, EndlessData)
    signature_path(longer).write_bytes(b" " * (trust.MAX_SIGNATURE + 1))
    line.refuses(longer, EndlessData)
    line.refuses(put(longer, {**taken(good), "timestamp.json": "x" * (trust.MAX_METADATA + 1)}), EndlessData)
    line.accepts(good)


def test_one_thief_of_two_signers_is_not_enough(tmp_path: Path, bundles: list[Path]) -> None:
    """Threshold two: one signature, or the same one under two names, is refused; both are accepted."""
    line = Line.made(tmp_path, threshold=2)
    first, second = signing_keys(line.keys)
    path = line.copy(bundles[1], "half")
    line.refuses(Forgery(1).beside(path, line.keys, [first]), UntrustedKey)
    line.refuses(Forgery(1).beside(path, line.keys, [first, Impostor(first, second.public_key)]), UntrustedKey)
    line.accepts(Forgery(1).beside(path, line.keys, [first, second]))


def _no_json(metadata: dict[str, str]) -> str:
    return "{" * 9


def _nested(metadata: dict[str, str]) -> str:
    return '{"format": 1, "metadata": {"timestamp.json": "%s"}}' % ("[" * 20_000)


def _part_missing(metadata: dict[str, str]) -> str:
    return '{"format": 1, "metadata": {}}'


def _surrogate(metadata: dict[str, str]) -> str:
    return '{"format": 1, "metadata": {"timestamp.json": "\\ud800"}}'


@pytest.mark.parametrize("broken", [_no_json, _nested, _part_missing, _surrogate])
def test_a_signature_file_that_is_none_is_refused(
    line: Line, bundles: list[Path], broken: Callable[[dict[str, str]], str]
) -> None:
    """Noise, nesting, nothing."""
    good = line.signed(bundles[0], "good")
    bad = line.copy(bundles[0], "bad")
    signature_path(bad).write_text(broken(taken(good)))
    line.refuses(bad, MalformedSignature)
    line.accepts(good)


def test_what_judges_goes_on_when_every_key_has_expired(line: Line, bundles: list[Path]) -> None:
    """Expiry stops installing alone: the active bundle still opens, confirms, is repaired and rolled back to."""
    line.runs(line.signed(bundles[0], "one"))
    line.runs(line.signed(bundles[1], "two"))
    line.refuses(Forgery(9, days=-1).beside(line.copy(bundles[0], "late"), line.keys), FrozenSignature)
    assert open_active(line.device.root).manifest.name == "two"
    active = line.device.root / "slots" / "b" / "bundle.lgb"
    active.write_bytes(b"damaged")
    line.device.repair(bundles[1])
    assert open_active(line.device.root).manifest.name == "two"
    line.device.rollback("by hand")
    assert open_active(line.device.root).manifest.name == "one"


def test_every_refusal_has_an_error_of_its_own() -> None:
    """No two attacks share one."""
    kinds = [ArbitraryBundle, EndlessData, FastForward, FrozenSignature, MixedMetadata, ReplayedSignature, RevokedKey]
    kinds += [RolledBack, RotatedKey, UnsignedBundle, WrongDevice]
    assert len(set(kinds)) == 11
    assert all(issubclass(kind, TrustError) for kind in kinds)
