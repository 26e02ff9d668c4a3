"""What a device root keeps on record, and reading it: no locks, nothing is changed here.

::

    DIR/state.json       which slot judges and what each holds (strict; written whole or not at all)
    DIR/state.copy.json  the same, written after it: read where state.json is damaged or gone
    DIR/slots/a, b       bundle.lgb
    DIR/history.jsonl    one line per step: when, who, what
    DIR/trust.json       whose signatures are trusted (deploy.trust); absent until the device is enrolled
    DIR/lock             held while anything changes
    DIR/incoming/        what is being sent here over the network (deploy.incoming); never judged from
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from calibration.errors import InputError
from deploy.bundle import Bundle, open_bundle
from deploy.files import PART, digest_of
from deploy.slots import SLOT_NAMES, Slot, SlotName, Slots, SlotState
from deploy.trust_record import TrustRecord

BUNDLE = "bundle.lgb"
STATE, STATE_COPY, HISTORY, TRUST, LOCK, SLOTS = (
    "state.json",
    "state.copy.json",
    "history.jsonl",
    "trust.json",
    "lock",
    "slots",
)
INCOMING = "incoming"
_OURS = {STATE, STATE + PART, STATE_COPY, STATE_COPY + PART, HISTORY, TRUST, TRUST + PART, LOCK, SLOTS, INCOMING}


class DeviceError(InputError):
    """The device root is not usable, or the step is not possible on it; what judges goes on judging."""


class DeviceBusy(DeviceError):  # noqa: N818  the name says what happened
    """Somebody else is changing this device: try again later."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class SlotRecord(_Strict):
    """A slot as state.json keeps it. `since` (UTC) is when it came into its state."""

    state: SlotState = SlotState.EMPTY
    sha256: str = ""
    name: str = ""
    size: int = Field(default=0, ge=0)
    reason: str = ""
    attempts: int = Field(default=0, ge=0)
    since: str = ""

    def slot(self) -> Slot:
        """The pure value."""
        return Slot(self.state, self.sha256, self.name, self.size, self.reason, self.attempts)


class StateRecord(_Strict):
    """state.json. `generation` counts the changes; `enrolled` is set for good once signatures are asked for."""

    version: Literal[1] = 1
    generation: int = Field(default=0, ge=0)
    enrolled: bool = False
    active: SlotName | None = None
    a: SlotRecord = SlotRecord()
    b: SlotRecord = SlotRecord()

    def slots(self) -> Slots:
        """The pure value. Raises ValueError where the record contradicts itself."""
        return Slots(self.a.slot(), self.b.slot(), self.active)


class HistoryLine(_Strict):
    """One step. It is written before the step, so a step without its line cannot be; `generation` tells whether
    the step was carried out: a line above the state's generation was cut short. A bundle that was refused is a line
    too, `refuse`, of the generation it left as it was; `reason` begins with the name of the error."""

    time: str
    who: str
    what: str
    generation: int
    slot: SlotName | None
    sha256: str
    name: str
    reason: str


def read_state(root: Path) -> Slots:
    """What the slots of a device root hold.

    Raises:
        DeviceError: `root` is no device root, or its state.json is damaged.
    """
    return read_record(root).slots()


def read_record(root: Path) -> StateRecord:
    """As `read_state`, with the generation and times. Its copy is read where state.json is damaged or gone."""
    try:
        return read_record_file(root, STATE)
    except DeviceError as error:
        try:
            return read_record_file(root, STATE_COPY)
        except DeviceError:
            raise error from None


def read_record_file(root: Path, name: str) -> StateRecord:
    """STATE or STATE_COPY. Raises DeviceError as `read_state`."""
    path = root / name
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DeviceError(f"{root}: not a device root (no {STATE}); `deploy push FILE file:{root}` makes one") from None
    except OSError as error:
        raise DeviceError(f"{path}: {error.strerror or error}") from None
    remedy = "restore it from a backup, or move the whole directory away and push again"
    try:
        raw = json.loads(data)
        if isinstance(raw, dict) and raw.get("version") != 1:
            raise DeviceError(f"{path}: version {raw.get('version')!r}; this program reads version 1")
        record = StateRecord.model_validate_json(data)
        record.slots()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DeviceError(f"{path}: damaged: {where}: {first['msg']}; {remedy}") from None
    except DeviceError:
        raise
    except ValueError as error:
        raise DeviceError(f"{path}: damaged ({error}); {remedy}") from None
    return record


def read_trust(root: Path) -> TrustRecord | None:
    """Whose signatures the device trusts; None where it is not enrolled and signatures are not checked.

    Raises:
        DeviceError: trust.json is damaged, or gone though the device was enrolled. It is never taken for not enrolled.
    """
    path, remedy = root / TRUST, "restore it from a backup, or move the whole directory away and enrol it again"
    try:
        return TrustRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        if has_state(root) and read_record(root).enrolled:
            raise DeviceError(f"{path}: missing, though this device is enrolled; {remedy}") from None
        return None
    except OSError as error:
        raise explained(error, root) from None
    except ValidationError as error:
        raise DeviceError(f"{path}: damaged: {error.errors()[0]['msg']}; {remedy}") from None


def slot_path(root: Path, name: SlotName) -> Path:
    """Where the bundle of a slot lies."""
    return root / SLOTS / name / BUNDLE


def active_bundle(root: Path) -> Path:
    """The bundle file that judges on this device. Raises DeviceError where there is none."""
    return slot_path(root, _active(root, read_state(root)))


def _active(root: Path, slots: Slots) -> SlotName:
    if slots.active is None:
        rejected = next((slots[n].reason for n in SLOT_NAMES if slots[n].state is SlotState.REJECTED), "")
        told = f" (the last one was rejected: {rejected})" if rejected else ""
        raise DeviceError(f"{root}: no bundle is active on this device{told}; push one")
    return slots.active


def open_active(root: Path) -> Bundle:
    """The active bundle, verified, and the very one that the state names.

    Raises:
        DeviceError: none is active, or another bundle lies in its slot. BundleError: it is damaged.
    """
    return open_active_slot(root)[0]


def open_active_slot(root: Path) -> tuple[Bundle, Slot]:
    """As `open_active`, with its slot of the same moment: whether it is on trial must be told of this very bundle."""
    slots = read_state(root)
    name = _active(root, slots)
    slot, path = slots[name], slot_path(root, name)
    bundle = open_bundle(path)
    if bundle.sha256 != slot.sha256:
        raise DeviceError(f"{path}: not the bundle that {root / STATE} names; push it again")
    return bundle, slot


def read_history(root: Path) -> list[HistoryLine]:
    """The steps taken, oldest first. A line torn by a power cut is left out."""
    try:
        text = (root / HISTORY).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DeviceError(f"{root / HISTORY}: {error.strerror or error}") from None
    lines = []
    for line in text.splitlines():
        try:
            lines.append(HistoryLine.model_validate_json(line))
        except ValidationError:
            continue
    return lines


@dataclass(frozen=True)
class DeviceStatus:
    """All there is to tell of a device.

    Attributes:
        record: state.json.
        intact: per slot that is not empty, whether its file is the bundle that the record names, every byte of it.
        history: the last steps, oldest first.
    """

    record: StateRecord
    intact: Mapping[SlotName, bool]
    history: tuple[HistoryLine, ...]


def read_status(root: Path, steps: int = 5) -> DeviceStatus:
    """The state of a device, its files verified, and its last `steps` steps. Raises DeviceError as `read_state`."""
    record = read_record(root)
    slots = record.slots()
    intact = {n: holds(root, n, slots[n].sha256) for n in SLOT_NAMES if slots[n].state is not SlotState.EMPTY}
    return DeviceStatus(record, intact, tuple(read_history(root)[-steps:]) if steps > 0 else ())


def holds(root: Path, name: SlotName, sha256: str) -> bool:
    """Whether the file in a slot is this bundle, every byte of it: what has its hash was verified once."""
    try:
        return digest_of(slot_path(root, name)) == sha256
    except OSError:
        return False


def has_state(root: Path) -> bool:
    """Whether state.json or its copy is there, whole or not."""
    return (root / STATE).exists() or (root / STATE_COPY).exists()


def check_usable(root: Path) -> bool:
    """Whether a device root is there (True), or one may be made here (False): nothing is there, or next to nothing.

    What a first push leaves behind that was cut short is next to nothing.

    Raises:
        DeviceError: something else is there, or bundles without their state.
    """
    try:
        if has_state(root):
            return True
        if not root.exists():
            return False
        if not root.is_dir():
            raise DeviceError(f"{root}: not a directory; name the directory of a device")
        strange = sorted({item.name for item in root.iterdir()} - _OURS)
    except OSError as error:
        raise explained(error, root) from None
    if strange:
        raise DeviceError(
            f"{root}: holds other things ({strange[0]}) and no {STATE}; name a device root or an empty directory"
        )
    if any(slot_path(root, name).exists() for name in SLOT_NAMES):
        raise DeviceError(
            f"{root}: {STATE} is missing but bundles are there; "
            "restore it from a backup, or move the whole directory away and push again"
        )
    return False


def explained(error: OSError, root: Path) -> DeviceError:
    """A file error as what the user can do about it."""
    remedies = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some space",
        errno.EFBIG: "raise the limit on the size of files",
        errno.EACCES: "run as the user who owns the device root",
        errno.EPERM: "run as the user who owns the device root",
        errno.EROFS: "the file system is mounted read-only",
    }
    remedy = remedies.get(error.errno or 0, "check the device root")
    return DeviceError(f"{error.filename or root}: {error.strerror or error}; {remedy}")
