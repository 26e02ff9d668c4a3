"""What is done to a device while its disk is recorded: pushes, trials, roll-backs, enrolment; signed and unsigned."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from calibration.errors import InputError
from deploy.bundle import open_bundle
from deploy.incoming import Incoming, transfer_lock
from deploy.install import Device
from deploy.keys import KeyStore
from deploy.record import (
    STATE,
    STATE_COPY,
    HistoryLine,
    StateRecord,
    check_usable,
    read_history,
    read_record,
    read_state,
    read_trust,
    slot_path,
)
from deploy.slots import TRIES, Slots, SlotState
from deploy.trust_record import TrustRecord, signature_path
from tests.support.tiny import tiny_bundle

NAMES = ("one", "two", "three", "four")
DEVICE_ID = "press-3"
PACKET = 10_000
"""Bytes that come at once over the network."""


class LinkError(InputError):
    """The sender is gone."""


@dataclass(frozen=True)
class Stock:
    """Bundles one to four, each signed, and the root that devices are enrolled with."""

    paths: dict[str, Path]
    shas: dict[str, str]
    root: bytes

    @classmethod
    def made(cls, folder: Path) -> Stock:
        """Fresh ones, in `folder`."""
        keys = KeyStore(folder / "keys")
        keys.init()
        paths = {name: tiny_bundle(folder / f"{name}.lgb", name=name) for name in NAMES}
        for path in paths.values():
            keys.sign(path, (DEVICE_ID,), 30)
        shas = {name: open_bundle(path).sha256 for name, path in paths.items()}
        return cls(paths, shas, (folder / "keys" / "root.json").read_bytes())


@dataclass(frozen=True)
class Facts:
    """What a device root says of itself; `record` is None before its first push."""

    record: StateRecord | None
    trust: TrustRecord | None
    history: tuple[HistoryLine, ...]

    @classmethod
    def of(cls, root: Path) -> Facts:
        """As it is now."""
        there = any((root / name).exists() for name in (STATE, STATE_COPY))
        return cls(read_record(root) if there else None, read_trust(root), tuple(read_history(root)))

    @property
    def generation(self) -> int:
        """Changes so far."""
        return self.record.generation if self.record else -1

    @property
    def active(self) -> str:
        """The hash of the bundle that judges; "" where none does."""
        slot = self.record.slots().active_slot if self.record else None
        return slot.sha256 if slot else ""

    @property
    def shas(self) -> set[str]:
        """Of all bundles on record."""
        return {slot.sha256 for slot in (self.record.a, self.record.b) if slot.sha256} if self.record else set()


Act = Callable[[Device, Stock], object]


def _stage(name: str) -> Act:
    return lambda device, stock: device.stage(stock.paths[name])


def _confirm(name: str) -> Act:
    return lambda device, stock: device.confirm(stock.shas[name])


def _reject(name: str) -> Act:
    return lambda device, stock: device.reject(stock.shas[name], "golden 3 deviates")


def _push(name: str) -> Act:
    """What is missing still, as a push that is repeated finds out."""

    def act(device: Device, stock: Stock) -> None:
        slots, sha256 = read_state(device.root) if check_usable(device.root) else Slots(), stock.shas[name]
        holder = slots.find(sha256)
        if holder is None or slots[holder].state is not SlotState.STAGED:
            if holder is not None and holder == slots.active:
                return
            device.stage(stock.paths[name])
        device.activate(sha256)

    return act


def receive(device: Device, stock: Stock, name: str, signed: bool, upto: int | None = None) -> Incoming:
    """Take a bundle as one that comes over the network: what is there already is sent again only where it differs.

    Args:
        upto: bytes after which the connection is cut; None sends all.

    Raises:
        LinkError: it was cut.
    """
    data = stock.paths[name].read_bytes()
    incoming = Incoming(device.root, stock.shas[name], len(data), 0)
    have, digest = incoming.begin(signature_path(stock.paths[name]).read_bytes() if signed else None)
    at = have if digest == hashlib.sha256(data[:have]).hexdigest() else 0

    def read(most: int) -> bytes:
        nonlocal at
        chunk = data[at : min(at + min(most, PACKET), len(data) if upto is None else upto)]
        if not chunk:
            raise LinkError("the connection was cut")
        at += len(chunk)
        return chunk

    incoming.receive(at, read)
    return incoming


def _sent(name: str, signed: bool) -> Act:
    """As `deploy serve` does it."""

    def act(device: Device, stock: Stock) -> None:
        with transfer_lock(device.root, 0.0):
            incoming = receive(device, stock, name, signed)
            device.stage(incoming.path, take=True)
            incoming.clear()
            device.activate(stock.shas[name])

    return act


def _sent_in_part(name: str, signed: bool, upto: int) -> Act:
    def act(device: Device, stock: Stock) -> None:
        with suppress(LinkError), transfer_lock(device.root, 0.0):
            receive(device, stock, name, signed, upto)

    return act


def _sent_twice(signed: bool) -> tuple[Act, ...]:
    return _sent_in_part("three", signed, 30_000), _sent("three", signed), _confirm("three")


def _attempt(name: str) -> Act:
    return lambda device, stock: device.attempt(stock.shas[name])


def _activate(device: Device, _stock: Stock) -> object:
    return device.activate()


def _rollback(device: Device, _stock: Stock) -> object:
    return device.rollback("by hand")


def _enrol(device: Device, stock: Stock) -> object:
    return device.enrol(stock.root, DEVICE_ID)


def _damage(device: Device, stock: Stock) -> None:
    path = slot_path(device.root, "a")
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def _repair(device: Device, stock: Stock) -> object:
    return device.repair(stock.paths["one"])


_FULL = (_stage("one"), _activate, _confirm("one"), _stage("two"), _activate, _confirm("two"))
_CYCLE = (_stage("three"), _activate, _confirm("three"), _rollback)
_FAILS = (_stage("three"), _activate, _reject("three"))


@dataclass(frozen=True)
class Scene:
    """Acts that are recorded, on a device that others have prepared.

    Attributes:
        damaged: whether slot a is damaged until the first act has been acknowledged.
        kill: end the process at one operation of the first act, then do it again. The disk keeps its power meanwhile.
    """

    name: str
    before: tuple[Act, ...]
    acts: tuple[Act, ...]
    damaged: bool = False
    kill: bool = False


SCENES: tuple[Scene, ...] = (
    Scene("sent, cut, resumed", _FULL, _sent_twice(signed=False)),
    Scene("sent, cut, resumed, enrolled", (_enrol, *_FULL), _sent_twice(signed=True)),
    Scene("trial until the loop-breaker", _FULL, (_stage("three"), _activate, *(_attempt("three"),) * (TRIES + 1))),
    Scene("first push", (), (_stage("one"), _activate, _confirm("one"))),
    Scene("first push, enrolled", (_enrol,), (_stage("one"), _activate, _confirm("one"))),
    Scene("first push killed, then again", (), (_push("one"), _confirm("one")), kill=True),
    Scene("push and roll back", _FULL, _CYCLE),
    Scene("push and roll back, enrolled", (_enrol, *_FULL), _CYCLE),
    Scene("trial fails", _FULL, _FAILS),
    Scene("trial fails, enrolled", (_enrol, *_FULL), _FAILS),
    Scene("second bundle fails", _FULL[:3], (_stage("two"), _activate, _reject("two"), _stage("three"), _activate)),
    Scene("staged twice", _FULL, (_stage("one"), _stage("three"), _reject("three"), _push("one"))),
    Scene("enrolment", (*_FULL, _stage("three")), (_enrol, _stage("three"), _activate, _confirm("three"))),
    Scene("repair of the earlier bundle", (*_FULL, _damage), (_repair, _push("three")), damaged=True),
    Scene("staging killed, then again", _FULL, (_stage("three"), _activate), kill=True),
    Scene("push killed, then again", _FULL, (_push("three"), _confirm("three")), kill=True),
    Scene("push killed, then again, enrolled", (_enrol, *_FULL), (_push("three"), _confirm("three")), kill=True),
)
