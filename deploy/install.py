"""The file work on a device root of this machine: stage, activate, confirm, reject, roll back.

A bundle is on trial until the appliance, having passed its goldens on this machine, confirms it; `push` only watches.
The two never import one another: they meet in the state kept in the root (see deploy.record).
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable
from pathlib import Path

from calibration.text import one_line
from deploy import files
from deploy.bundle import Bundle, BundleError, open_bundle
from deploy.record import (
    BUNDLE,
    TRUST,
    DeviceBusy,
    DeviceError,
    active_bundle,
    check_usable,
    explained,
    holds,
    open_active,
    read_history,
    read_record,
    read_state,
    read_trust,
    slot_path,
)
from deploy.refusals import TrustError
from deploy.slots import SLOT_NAMES, Slot, SlotName, Slots, SlotState
from deploy.steps import Steps, encoded
from deploy.trust_record import TrustRecord

__all__ = [
    "Device",
    "DeviceBusy",
    "DeviceError",
    "active_bundle",
    "open_active",
    "read_history",
    "read_record",
    "read_state",
    "slot_path",
]

HEADROOM = 16 * 2**20
"""Bytes that must stay free beside a new bundle: for the state, the history and the appliance's own files."""

Report = Callable[[int, int], None]


def somebody() -> str:
    """Who acts, for the history: user@machine."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a user id without an entry in the password file
        user = f"uid{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


class Device:
    """The file work on one device root. Every method holds its lock and raises before it changes anything.

    Args:
        root: the directory; `stage` makes it when it is missing.
        who: for the history; user@machine when None.
        wait_s: how long to wait for another process's lock before DeviceBusy.
        headroom: bytes that must stay free beside a new bundle.
    """

    def __init__(self, root: Path, who: str | None = None, wait_s: float = 0.0, headroom: int = HEADROOM) -> None:
        self.root = root
        self._steps = Steps(root, who or somebody(), wait_s)
        self.headroom = headroom

    def enrol(self, root: bytes, device: str) -> None:
        """From now on take only bundles signed by the keys of this root metadata, for this device id or for all.

        What judges goes on judging; a bundle that is staged unsigned is rejected.

        Raises:
            DeviceError: enrolled already: only a rotated root in a signed push changes whom a device trusts.
            InputError: no root metadata, or no device id.
        """
        from deploy import trust  # python-tuf costs a quarter of a second: only where signatures are looked at

        record = trust.enrolled(root, device)
        self._steps.prepare()
        with self._steps.locked():
            state = self._steps.record_or_new()
            self._check_not_enrolled()
            for name in SLOT_NAMES:  # first, so that a power cut leaves no unsigned bundle staged on an enrolled device
                slots = state.slots()
                if slots[name].state is SlotState.STAGED:
                    slots = slots.reject(slots[name].sha256, "staged unsigned before this device was enrolled")
                    state = self._steps.step(state, slots, "reject", name, slots[name])
            files.write_durably(self.root / TRUST, encoded(record))
            enrolled = state.model_copy(update={"enrolled": True})
            self._steps.step(enrolled, state.slots(), "enrol", None, Slot(), f"as {device}")

    def verify(self, path: Path) -> None:
        """Whether `stage` would trust this bundle; changes nothing, notes nothing. Raises as `stage`."""
        from deploy import trust

        record = read_trust(self.root)
        if record is None:
            return
        try:
            trust.open_verified(path, trust.verify(record, trust.read_signature(path)))
        except OSError as error:  # no room for python-tuf's working files
            raise explained(error, self.root) from None

    def stage(self, path: Path, progress: Report | None = None, take: bool = False) -> Slots:
        """Verify a bundle and its signature, copy it into the spare slot, verify the copy.

        With `take` the file itself becomes the slot's, and is gone from `path`: for what came over the network, which
        lies on the same file system and belongs to nobody else. A bundle that is staged already, or lies rejected or
        confirmed in the spare slot, is not brought again. On a device that is not enrolled the signature is not looked
        at. On one that is, each refusal is a line of history.

        Raises:
            TrustError: not signed for this device by keys it trusts; its kinds are in deploy.refusals.
            BundleError: the file is no good, or changed while it was copied.
            DeviceError: not a device root, no room, no permission. SlotError: no slot is spare.
            DeviceBusy: somebody else is at it.
        """
        check_usable(self.root)
        unsigned = None if read_trust(self.root) else open_bundle(path)  # a bad file is to make no device root
        self._steps.prepare()
        with self._steps.locked():
            record = self._steps.record_or_new()
            bundle, accepted, size = self._admitted(path, unsigned, record.generation)
            before = record.slots()
            target = before.target(bundle.sha256)
            after = before.stage(bundle.sha256, bundle.manifest.name, size)
            if not holds(self.root, target, bundle.sha256):
                part = self._brought(path, target, bundle.sha256, size, progress, take)
                if before[target].state is not SlotState.EMPTY:
                    record = self._steps.write(record, before.cleared(bundle.sha256))
                files.put_in_place(part, slot_path(self.root, target))
            else:
                files.settle(slot_path(self.root, target))
            if accepted is not None:  # before the state: what is staged can never be replayed against
                files.write_durably(self.root / TRUST, encoded(accepted))
                record = record.model_copy(update={"enrolled": True})  # a power cut may have ended the enrolment early
            self._steps.step(record, after, "stage", target, after[target])
            return after

    def repair(self, path: Path, progress: Report | None = None, take: bool = False) -> Slots:
        """Put a whole copy of a bundle back into the slot that holds it damaged. What judges stays what judges.

        Needs no signature: the copy is, byte for byte, what was accepted before, and no expiry may stop it. `take` is
        as in `stage`.

        Raises:
            DeviceError: no slot holds this bundle. Otherwise as `stage`.
        """
        bundle = open_bundle(path)
        with self._steps.locked():
            record = read_record(self.root)
            slots = record.slots()
            holder = slots.find(bundle.sha256)
            if holder is None:
                raise DeviceError(f"{self.root}: no slot holds this bundle; push it")
            if not holds(self.root, holder, bundle.sha256):
                part = self._brought(path, holder, bundle.sha256, slots[holder].size, progress, take)
                files.put_in_place(part, slot_path(self.root, holder))
                self._steps.step(record, slots, "repair", holder, slots[holder])
            return slots

    def activate(self, sha256: str | None = None) -> Slots:
        """The staged bundle judges, on trial. Its file is verified first.

        Args:
            sha256: the bundle that is expected to be staged; None takes whichever is.

        Raises:
            DeviceBusy: another bundle was staged meanwhile. Otherwise as `stage`.
        """
        with self._steps.locked():
            record = read_record(self.root)
            after = record.slots().activate()
            if sha256 is not None and after.active_slot is not None and after.active_slot.sha256 != sha256:
                raise DeviceBusy(f"{self.root}: BUSY, another bundle was staged meanwhile; push again")
            if after.active is not None and not holds(self.root, after.active, after[after.active].sha256):
                raise DeviceError(f"{slot_path(self.root, after.active)}: damaged since it was staged; push it again")
            self._steps.step(record, after, "activate", after.active, after.active_slot)
            return after

    def confirm(self, sha256: str) -> Slots:
        """The bundle on trial has stood it: called by the appliance. Raises SlotError, DeviceError."""
        return self._answer("confirm", sha256, lambda slots: slots.confirm(sha256))

    def attempt(self, sha256: str) -> Slots:
        """The appliance begins to judge with the bundle on trial; it may be rejected instead, see Slots.attempt."""
        return self._answer("attempt", sha256, lambda slots: slots.attempt(sha256))

    def pause(self, sha256: str) -> Slots:
        """The appliance was stopped in good order during the trial. Raises SlotError, DeviceError."""
        return self._answer("pause", sha256, lambda slots: slots.pause(sha256))

    def reject(self, sha256: str, reason: str) -> Slots:
        """The staged bundle, or the one on trial, must not judge; the last confirmed one judges again, if any.

        Called by the appliance, which then reads `active_bundle` again. Raises SlotError, DeviceError.
        """
        return self._answer("reject", sha256, lambda slots: slots.reject(sha256, one_line(reason)[:300]))

    def rollback(self, reason: str) -> Slots:
        """The bundle confirmed before the active one judges again. Its file is verified first.

        Raises:
            NoEarlierBundle: there is none. DeviceError: it is damaged, or as `stage`.
        """
        with self._steps.locked():
            record = read_record(self.root)
            before = record.slots()
            after = before.rollback(one_line(reason)[:300])
            if after.active is not None and not holds(self.root, after.active, after[after.active].sha256):
                raise DeviceError(
                    f"{slot_path(self.root, after.active)}: the earlier bundle is damaged; push a good one instead"
                )
            left = before.active
            self._steps.step(record, after, "rollback", left, after[left] if left else None)
            return after

    def _answer(self, what: str, sha256: str, change: Callable[[Slots], Slots]) -> Slots:
        """What the appliance says of a bundle."""
        with self._steps.locked():
            record = read_record(self.root)
            before = record.slots()
            after = change(before)
            holder = before.find(sha256)
            slot = after[holder] if holder else None
            rejected = slot is not None and slot.state is SlotState.REJECTED
            self._steps.step(record, after, "reject" if rejected else what, holder, slot)
            return after

    def _check_not_enrolled(self) -> None:
        record = read_trust(self.root)
        if record is not None:
            raise DeviceError(
                f"{self.root}: enrolled already, as {record.device}; "
                "whom it trusts changes only through `deploy keys rotate` and a signed push"
            )

    def _admitted(self, path: Path, unsigned: Bundle | None, generation: int) -> tuple[Bundle, TrustRecord | None, int]:
        """The bundle, trusted, what to keep of its signature, and its size in bytes. A refusal goes on record."""
        record = read_trust(self.root)
        if record is None:
            return unsigned or open_bundle(path), None, path.stat().st_size
        from deploy import trust

        digest = ""
        try:
            verified = trust.verify(record, trust.read_signature(path))
            digest = verified.sha256
            return trust.open_verified(path, verified), verified.record, verified.length
        except (TrustError, BundleError) as error:
            reason = one_line(f"{type(error).__name__}: {error}")[:300]
            self._steps.note("refuse", generation, None, Slot(), reason, digest)
            raise

    def _brought(
        self, path: Path, target: SlotName, sha256: str, size: int, progress: Report | None, take: bool
    ) -> Path:
        """A verified file for the slot, durable but not yet in its place."""
        for name in SLOT_NAMES:  # left by a power cut
            slot_path(self.root, name).with_name(BUNDLE + files.PART).unlink(missing_ok=True)
        if not take:
            return self._copied(path, target, sha256, size, progress or _silent)
        files.sync_file(path)
        return path

    def _copied(self, path: Path, target: SlotName, sha256: str, size: int, progress: Report) -> Path:
        """A copy beside the slot's bundle, and verified as a copy."""
        free = files.free_bytes(self.root)
        needed = size + self.headroom
        if free < needed:
            raise DeviceError(f"{self.root}: {free >> 20} MiB free, {(needed >> 20) + 1} MiB needed; free some space")
        part = slot_path(self.root, target).with_name(BUNDLE + files.PART)

        def bounded(done: int, total: int) -> None:
            if done > size:
                raise BundleError(f"{path}: grew while it was copied; push it again")
            progress(done, total)

        try:
            files.copy_part(path, slot_path(self.root, target), bounded)
            if files.digest_of(part) != sha256:
                raise BundleError(f"{path}: changed while it was copied; push it again")
        except (OSError, BundleError):
            part.unlink(missing_ok=True)
            raise
        return part


def _silent(_done: int, _total: int) -> None:
    """Progress that nobody watches."""
