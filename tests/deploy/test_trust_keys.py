"""Key directories: what is made, what is refused, and that devices follow a rotation."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest

from calibration.errors import InputError
from deploy import trust
from deploy.keys import KeyStore
from deploy.private_keys import PASSPHRASE, KeyDirectoryError, load_signer
from deploy.refusals import RotatedKey, UntrustedKey
from deploy.trust_record import TrustRecord, signature_path


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyStore:
    """One signer's keys, not encrypted."""
    monkeypatch.delenv(PASSPHRASE, raising=False)
    store = KeyStore(tmp_path / "keys")
    store.init()
    return store


@pytest.fixture
def bundle(tmp_path: Path, bundles: list[Path]) -> Path:
    """A bundle of this test's own."""
    return Path(shutil.copyfile(bundles[0], tmp_path / "one.lgb"))


def enrolled(store: KeyStore) -> TrustRecord:
    """What a device keeps that was enrolled with the keys as they are."""
    return trust.enrolled((store.directory / "root.json").read_bytes(), "press-3")


def private(store: KeyStore, role: str = "") -> list[Path]:
    """Files of private keys."""
    return sorted((store.directory / "private").glob(f"{role}*.pem"))


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a directory."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_private_keys_are_their_owners_alone(store: KeyStore) -> None:
    """Directory 0700, files 0600."""
    assert stat.S_IMODE((store.directory / "private").stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in private(store)] == [0o600, 0o600]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_private_key_that_others_may_read_is_refused(store: KeyStore, bundle: Path, mode: int) -> None:
    """With the remedy; nothing is signed."""
    private(store, "sign")[0].chmod(mode)
    with pytest.raises(KeyDirectoryError, match="chmod 600"):
        store.sign(bundle, ("*",), 30)
    assert not signature_path(bundle).exists()


def test_a_passphrase_encrypts_private_keys(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, or with another one, they sign nothing."""
    monkeypatch.setenv(PASSPHRASE, "correct horse")
    store = KeyStore(tmp_path / "keys")
    store.init()
    assert all(b"ENCRYPTED" in path.read_bytes() for path in private(store))
    store.sign(bundle, ("*",), 30)
    monkeypatch.setenv(PASSPHRASE, "battery staple")
    with pytest.raises(KeyDirectoryError, match="not its passphrase"):
        store.sign(bundle, ("*",), 30)
    monkeypatch.delenv(PASSPHRASE)
    with pytest.raises(KeyDirectoryError, match=f"set {PASSPHRASE}"):
        store.sign(bundle, ("*",), 30)


def test_keys_are_never_overwritten(store: KeyStore) -> None:
    """A second init of the same directory."""
    before = contents(store.directory)
    with pytest.raises(KeyDirectoryError, match="never overwritten"):
        store.init()
    assert contents(store.directory) == before


def test_dry_runs_change_nothing(store: KeyStore, bundle: Path, tmp_path: Path) -> None:
    """Of init, rotate, revoke and sign."""
    before = contents(tmp_path)
    KeyStore(tmp_path / "others").init(2, dry_run=True)
    store.rotate(with_root=True, dry_run=True)
    store.revoke(next(iter(store.root().signed.keys)), dry_run=True)
    store.sign(bundle, ("*",), 30, dry_run=True)
    assert contents(tmp_path) == before
    assert not (tmp_path / "others").exists()


def test_every_signature_has_the_next_number(store: KeyStore, bundle: Path) -> None:
    """So that devices can tell older from newer."""
    assert [store.sign(bundle, ("*",), 30).terms.version for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("with_root", [False, True])
def test_a_device_follows_rotations_it_has_missed(store: KeyStore, bundle: Path, with_root: bool) -> None:
    """Three roots on; the private keys replaced are gone."""
    record, old = enrolled(store), private(store, "sign")
    for _ in range(3):
        store.rotate(with_root)
    store.sign(bundle, ("press-3",), 30)
    verified = trust.verify(record, trust.read_signature(bundle))
    assert len(verified.record.roots) == 4
    assert trust.open_verified(bundle, verified).manifest.name == "one"
    assert not old[0].exists()
    assert len(private(store)) == 2


def test_a_rotation_without_root_keys_is_refused(store: KeyStore) -> None:
    """They are to be kept elsewhere, and brought for this."""
    private(store, "root")[0].unlink()
    before = contents(store.directory)
    with pytest.raises(KeyDirectoryError, match="fewer root keys than the 1 needed"):
        store.rotate()
    assert contents(store.directory) == before


@pytest.mark.parametrize("key", ["", "abc", "zzzzzzzz"])
def test_revoking_an_unknown_or_ambiguous_key_is_refused(store: KeyStore, key: str) -> None:
    """Too short, or no such key."""
    with pytest.raises(KeyDirectoryError, match="at least 6 digits of one id"):
        store.revoke(key)


def test_two_signers_sign_one_after_the_other_on_machines_of_their_own(tmp_path: Path, bundle: Path) -> None:
    """Each holds one signing key; the first signature alone is refused by a device, both are accepted."""
    both = KeyStore(tmp_path / "both")
    both.init(2)
    record = enrolled(both)
    machines = []
    for i in (0, 1):
        machine = KeyStore(Path(shutil.copytree(both.directory, tmp_path / f"machine{i}")))
        private(machine, "sign")[1 - i].unlink()
        for path in private(machine, "root"):
            path.unlink()
        machines.append(machine)
    first = machines[0].sign(bundle, ("press-3",), 30)
    assert (first.signatures, first.needed) == (1, 2)
    with pytest.raises(UntrustedKey, match=r"2 signature\(s\)"):
        trust.verify(record, trust.read_signature(bundle))
    second = machines[1].sign(bundle, ("press-3",), 30)
    assert (second.signatures, second.terms) == (2, first.terms)
    assert trust.verify(record, trust.read_signature(bundle)).terms.version == 1


def test_a_signature_for_other_devices_is_begun_anew(tmp_path: Path, bundle: Path) -> None:
    """The second signer never adds a name to terms they did not ask for."""
    store = KeyStore(tmp_path / "both")
    store.init(2)
    away = private(store, "sign")[0].rename(tmp_path / "away.pem")
    store.sign(bundle, ("*",), 30)
    shutil.move(away, store.directory / "private" / f"sign-{load_signer(away).public_key.keyid[:12]}.pem")
    signed = store.sign(bundle, ("press-3",), 30)
    assert signed.terms.devices == ("press-3",)
    assert signed.terms.version == 2


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        ("root.json", b"{}", "damaged"),
        ("signed.json", b"[]", "damaged"),
        ("signed.json", b'{"number": -4}', "damaged"),
    ],
)
def test_a_damaged_key_directory_is_a_clear_error(
    store: KeyStore, bundle: Path, file: str, data: bytes, message: str
) -> None:
    """The file is named."""
    (store.directory / file).write_bytes(data)
    with pytest.raises(KeyDirectoryError, match=rf"{file}: {message}"):
        store.sign(bundle, ("*",), 30)


def test_a_directory_without_keys_is_not_made_one(tmp_path: Path, bundle: Path) -> None:
    """A name typed wrongly."""
    with pytest.raises(KeyDirectoryError, match="deploy keys init"):
        KeyStore(tmp_path / "kyes").sign(bundle, ("*",), 30)
    assert not (tmp_path / "kyes").exists()


@pytest.mark.parametrize(("devices", "days"), [(("press 3",), 30), (("",), 30), (("*",), 0), (("*",), 10_000)])
def test_terms_that_make_no_sense_are_refused(
    store: KeyStore, bundle: Path, devices: tuple[str, ...], days: int
) -> None:
    """No ids, no days."""
    with pytest.raises(KeyDirectoryError, match="use"):
        store.sign(bundle, devices, days)
    assert not signature_path(bundle).exists()


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff\xfe{}", b"[" * 10_000])
def test_a_device_is_not_enrolled_with_what_is_no_root(data: bytes) -> None:
    """Nothing, nothing inside, another encoding, nesting."""
    with pytest.raises(InputError, match="give the root"):
        trust.enrolled(data, "press-3")


def test_a_device_is_not_enrolled_with_other_metadata_or_an_unsigned_root(store: KeyStore, bundle: Path) -> None:
    """A timestamp, and a root whose signature was taken off."""
    store.sign(bundle, ("*",), 30)
    parts = json.loads(signature_path(bundle).read_text())["metadata"]
    with pytest.raises(InputError, match="no root metadata but timestamp"):
        trust.enrolled(parts["timestamp.json"].encode(), "press-3")
    bare = json.loads(parts["1.root.json"])
    bare["signatures"] = []
    with pytest.raises(InputError, match="no root metadata"):
        trust.enrolled(json.dumps(bare).encode(), "press-3")


def test_a_copy_of_the_old_keys_signs_nothing_a_device_takes(store: KeyStore, bundle: Path, tmp_path: Path) -> None:
    """The thief has the whole directory as it was, root keys left out."""
    record = enrolled(store)
    stolen = KeyStore(Path(shutil.copytree(store.directory, tmp_path / "stolen")))
    store.rotate()
    store.sign(bundle, ("*",), 30)
    record = trust.verify(record, trust.read_signature(bundle)).record
    stolen.sign(bundle, ("*",), 30)
    with pytest.raises(RotatedKey):
        trust.verify(record, trust.read_signature(bundle))
