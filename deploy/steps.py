"""The record of a device root while it is changed: its lock, its directories, its history and its state.

The history is written before the state, so that no step is without its line; see deploy.record for the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from pydantic import BaseModel

from calibration.text import one_line
from deploy import files
from deploy.record import (
    HISTORY,
    LOCK,
    SLOTS,
    STATE,
    STATE_COPY,
    DeviceBusy,
    DeviceError,
    HistoryLine,
    SlotRecord,
    StateRecord,
    check_usable,
    explained,
    has_state,
    read_record,
    read_record_file,
    slot_path,
)
from deploy.slots import SLOT_NAMES, Slot, SlotName, Slots


class Steps:
    """How one process changes one device root, as `who`. All but `locked` and `prepare` ask that the lock is held."""

    def __init__(self, root: Path, who: str, wait_s: float) -> None:
        self.root, self.who, self.wait_s = root, who, wait_s

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The root's lock; a full disk or a missing permission inside becomes a DeviceError."""
        if not self.root.is_dir():
            raise DeviceError(f"{self.root}: not a device root; `deploy push FILE file:{self.root}` makes one")
        try:
            with files.exclusive(self.root / LOCK, self.wait_s) as got:
                if not got:
                    raise DeviceBusy(f"{self.root}: BUSY, somebody else is changing this device; try again later")
                self._heal()
                yield
        except OSError as error:
            raise explained(error, self.root) from None

    def prepare(self) -> None:
        """Make the directories. A directory that holds other things is refused, not filled."""
        check_usable(self.root)
        try:
            for directory in (self.root, self.root / SLOTS, *(slot_path(self.root, n).parent for n in SLOT_NAMES)):
                files.make_directory(directory)
        except OSError as error:
            raise explained(error, self.root) from None

    def record_or_new(self) -> StateRecord:
        if has_state(self.root):
            return read_record(self.root)
        record = StateRecord()
        self._keep(record)
        return record

    def _keep(self, record: StateRecord) -> None:
        """The state, and after it its copy: whatever befalls one of them, the other is whole."""
        for name in (STATE, STATE_COPY):
            files.write_durably(self.root / name, encoded(record))

    def _heal(self) -> None:
        """Write state.json anew from its copy where it is damaged or gone, and say so in the history."""
        if not has_state(self.root):
            return
        try:
            read_record_file(self.root, STATE)
        except DeviceError as error:
            record = read_record(self.root)
            self.note("restore", record.generation, None, Slot(), one_line(str(error))[:300], "")
            files.write_durably(self.root / STATE, encoded(record))

    def step(
        self, record: StateRecord, after: Slots, what: str, name: SlotName | None, slot: Slot | None, reason: str = ""
    ) -> StateRecord:
        """Carry out one change: the history says so first, then the state."""
        told = slot or Slot()
        self.note(what, record.generation + 1, name, told, reason or told.reason, told.sha256)
        return self.write(record, after)

    def note(self, what: str, generation: int, name: SlotName | None, told: Slot, reason: str, sha256: str) -> None:
        """One line of history."""
        line = HistoryLine(
            time=_now(),
            who=self.who,
            what=what,
            generation=generation,
            slot=name,
            sha256=sha256,
            name=told.name,
            reason=reason,
        )
        files.append_durably(self.root / HISTORY, line.model_dump_json().encode())

    def write(self, record: StateRecord, slots: Slots) -> StateRecord:
        old = record.slots()
        kept: dict[SlotName, SlotRecord] = {"a": record.a, "b": record.b}
        changed = {
            name: kept[name] if slots[name] == old[name] else SlotRecord(**asdict(slots[name]), since=_now())
            for name in SLOT_NAMES
        }
        new = StateRecord(
            generation=record.generation + 1,
            enrolled=record.enrolled,
            active=slots.active,
            a=changed["a"],
            b=changed["b"],
        )
        self._keep(new)
        return new


def encoded(record: BaseModel) -> bytes:
    """A record as its file holds it."""
    return (record.model_dump_json(indent=1) + "\n").encode()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
