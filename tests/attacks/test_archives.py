"""A malicious signer's archives: signed by the right key for this device, and refused all the same, before a byte is
written; the sound one of the same making is accepted. So too where no signature is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.bundle import BundleError
from deploy.install import Device
from tests.attacks.archives import tricks
from tests.attacks.forge import Forgery
from tests.attacks.line import Line

TRICKS = dict(tricks())
BAD = [name for name in TRICKS if name != "sound"]


@pytest.mark.parametrize("name", BAD)
def test_a_signed_trick_is_refused_and_the_sound_one_accepted(line: Line, name: str) -> None:
    """One row on record; not a byte of the device root changed."""
    path = line.folder / "trick.lgb"
    path.write_bytes(TRICKS[name])
    line.refuses(Forgery(1).beside(path, line.keys), BundleError)
    path.write_bytes(TRICKS["sound"])
    line.accepts(Forgery(1).beside(path, line.keys))


@pytest.mark.parametrize("name", BAD)
def test_an_unsigned_trick_makes_no_device_root(tmp_path: Path, name: str) -> None:
    """A device that is not enrolled: nothing is there afterwards."""
    path = tmp_path / "trick.lgb"
    path.write_bytes(TRICKS[name])
    with pytest.raises(BundleError, match=r"trick\.lgb"):
        Device(tmp_path / "device").stage(path)
    assert not (tmp_path / "device").exists()
