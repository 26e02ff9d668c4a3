"""One enrolled device and the signer it trusts, and what it means that the device refuses."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from calibration.errors import InputError
from deploy.install import Device
from deploy.keys import KeyStore
from deploy.record import HISTORY, open_active, read_history
from deploy.slots import Slots

DEVICE = "press-3"


@dataclass(frozen=True)
class Line:
    """A device root enrolled with the root of `keys`; `folder` is the workstation's."""

    folder: Path
    keys: KeyStore
    device: Device

    @classmethod
    def made(cls, folder: Path, threshold: int = 1) -> Line:
        """Fresh keys, a fresh device."""
        keys = KeyStore(folder / "keys")
        keys.init(threshold)
        line = cls(folder, keys, Device(folder / "device"))
        line.device.enrol((folder / "keys" / "root.json").read_bytes(), DEVICE)
        return line

    def copy(self, bundle: Path, name: str) -> Path:
        """A bundle of this line's own, to be signed."""
        return Path(shutil.copyfile(bundle, self.folder / f"{name}.lgb"))

    def signed(self, bundle: Path, name: str, devices: tuple[str, ...] = (DEVICE,)) -> Path:
        """The same, signed by the keys as they are now."""
        path = self.copy(bundle, name)
        self.keys.sign(path, devices, 30)
        return path

    def runs(self, path: Path) -> Slots:
        """Push a bundle and confirm it, as the appliance does: it judges."""
        self.device.stage(path)
        slots = self.device.activate()
        assert slots.active_slot is not None
        return self.device.confirm(slots.active_slot.sha256)

    def tree(self) -> dict[str, bytes]:
        """Every file of the device root but its history."""
        root = self.device.root
        return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()} | {
            HISTORY: b""
        }

    def refuses(self, path: Path, error: type[InputError]) -> str:
        """Exactly this error, one row on record that names it, and not a byte changed beside; returns the message."""
        before, rows = self.tree(), read_history(self.device.root)
        with pytest.raises(InputError) as caught:
            self.device.stage(path)
        assert type(caught.value) is error, repr(caught.value)
        new = read_history(self.device.root)[len(rows) :]
        assert [line.what for line in new] == ["refuse"]
        assert new[0].reason.startswith(f"{error.__name__}: ")
        assert self.tree() == before
        if "slots/a/bundle.lgb" in before:
            open_active(self.device.root)  # what judges goes on judging
        return str(caught.value)

    def accepts(self, path: Path) -> None:
        """It is staged."""
        staged = self.device.stage(path)
        assert any(slot.state.value == "staged" for slot in (staged.a, staged.b))
        assert read_history(self.device.root)[-1].what == "stage"
