"""`appliance run`: one station from its lock to its summary."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from appliance.config import Station
from appliance.desk import Summary
from appliance.engine_link import Model
from appliance.engines.protocol import missing, most_parts, variant_of
from appliance.lock import station_lock
from appliance.paths import StationPaths, make_directories
from appliance.quarantine import open_store
from appliance.sources import open_source
from appliance.store import Store, StoreError
from appliance.supervisor import Progress, Supervisor
from appliance.switching import NO_BUNDLE
from appliance.vigil import keep_vigil
from calibration.errors import InputError
from calibration.preprocess import GeometryError
from deploy.bundle import Bundle, BundleError, open_bundle
from deploy.install import Device, somebody
from deploy.record import DeviceError, has_state, open_active, read_state
from deploy.slots import Slot, SlotError, SlotState

LOCK_WAIT_S = 0.2
"""While parts are judged, another process's transaction is not waited for longer: the rows are tried again."""


class SelfTestError(InputError):
    """The engine of this machine does not give the scores recorded in the bundle: it must not judge."""


@dataclass(frozen=True)
class Chosen:
    """A bundle, and the device root it came from (None for a plain file) while it is on trial there. instead: why it
    is not the one that was active; empty where it was."""

    bundle: Bundle
    trial_root: Path | None
    instead: str = ""


def run_station(station: Station, max_seconds: float | None = None, progress: Progress | None = None) -> Summary:
    """Own the station, prove the bundle, judge until the end, leave nothing behind.

    A bundle on trial in a device root that fails its goldens is rejected there, and the one confirmed before it is
    proven in its place. A device root without a bundle that may judge is a fault: nothing is judged, and the station
    waits for a push, or for an operator's reset.

    Raises:
        InputError: anything about configuration, sources, database or bundle; SelfTestError among them.
    """
    paths = StationPaths.of(station.station.data)
    make_directories(paths)
    known = paths.lock.exists()
    with station_lock(paths.lock):
        store = _opened(paths, known)
        try:
            store.audit_configuration(somebody(), station.model_dump_json())
            while True:
                outcome = _once(station, store, max_seconds, progress)
                if isinstance(outcome, Summary):
                    return outcome
                if outcome is not None:
                    ended = keep_vigil(station, store, *outcome, max_seconds)
                    if ended is not None:
                        return ended
        except StoreError as error:
            raise InputError(f"{error}; make room on its disk and start again") from None
        finally:
            store.close()


def _once(
    station: Station, store: Store, max_seconds: float | None, progress: Progress | None
) -> Summary | tuple[str, str] | None:
    """Run with the bundle that is to judge. Else why the device root has none, and the SHA-256 of the active one that
    may not, or "" without; None where it has another one now."""
    root = station.station.bundle
    try:
        chosen = choose_bundle(root)
    except (BundleError, DeviceError) as error:
        if not root.is_dir() or not has_state(root):
            raise
        slot = read_state(root).active_slot  # a damaged record is for nobody to wait over
        return f"{NO_BUNDLE}: {error}", slot.sha256 if slot else ""
    chosen = replace(chosen, bundle=chosen.bundle.for_judging(variant_of(station.engine.kind)))
    if chosen.instead:
        name = chosen.bundle.manifest.name
        store.alert("BUNDLE", f"bundle {name} judges again, the one pushed after it cannot: {chosen.instead}")
    outcome = _with_bundle(station, chosen, store, max_seconds, progress)
    if isinstance(outcome, Summary):
        return outcome
    store.audit("daemon", "bundle refused", chosen.bundle.sha256, outcome)
    name = chosen.bundle.manifest.name
    if chosen.trial_root is not None:
        store.alert("BUNDLE", f"bundle {name} on trial was rejected: {outcome}")
        Device(root, who=f"appliance {station.station.name}", wait_s=5.0).reject(chosen.bundle.sha256, outcome)
        return None
    problem = f"its goldens do not pass on this machine: {outcome}"
    if root.is_dir():
        return f"{NO_BUNDLE}: bundle {name}: {problem}; push one", chosen.bundle.sha256
    raise SelfTestError(f"{chosen.bundle.path}: {problem}; use a bundle exported for this kind of machine")


def _opened(paths: StationPaths, known: bool) -> Store:
    """The station's database. Raises InputError."""
    try:
        store = open_store(paths, known)
        store.wait_at_most(LOCK_WAIT_S)
    except (StoreError, OSError) as error:
        raise InputError(f"{paths.database}: {error}; make room on its disk, and let this user write to it") from None
    return store


def choose_bundle(path: Path, repair: bool = True) -> Chosen:
    """The bundle that has to judge: a file, or the active one of a device root.

    Args:
        path: of either.
        repair: whether the attempt at a trial is counted in the device root, and a damaged bundle left there for the
            one confirmed before it; else nothing is changed.

    Raises:
        BundleError, DeviceError: there is none that may be trusted, in neither slot.
    """
    if not path.is_dir():
        return Chosen(open_bundle(path), None)
    slot = read_state(path).active_slot
    if slot is not None and slot.state is SlotState.TRIAL and repair:
        slot = Device(path, who="appliance", wait_s=5.0).attempt(slot.sha256).active_slot
    on_trial = slot is not None and slot.state is SlotState.TRIAL
    try:
        return Chosen(open_active(path), path if on_trial else None)
    except (BundleError, DeviceError) as error:
        if slot is None or not repair:
            raise
        _leave(path, slot, error)
        return Chosen(open_active(path), None, str(error))


def _leave(path: Path, slot: Slot, error: InputError) -> None:
    """The active bundle's file is damaged: the bundle confirmed before it judges again. Raises `error` where there is
    none, or none that is whole; a confirmed bundle is then still the one that a repair puts back."""
    device = Device(path, who="appliance", wait_s=5.0)
    if slot.state is SlotState.TRIAL:
        device.reject(slot.sha256, str(error))
        return
    try:
        device.rollback(f"its file is damaged: {error}")
    except (SlotError, DeviceError):
        raise error from None


def _with_bundle(
    station: Station, chosen: Chosen, store: Store, max_seconds: float | None, progress: Progress | None
) -> Summary | str:
    """Prove one bundle and run, with it and those pushed meanwhile; the reason when it is not proven."""

    def opened(bundle: Bundle) -> tuple[Station, Model]:
        variant = variant_of(station.engine.kind)
        return fitted(station, bundle), Model(bundle.for_judging(variant), variant)

    try:
        supervisor = Supervisor(station, chosen.bundle, opened, store)
    except GeometryError as error:
        return f"its own goldens are not what its preprocessing takes: {error}"
    try:
        return supervisor.prove() or supervisor.run(max_seconds, progress)
    finally:
        supervisor.close()


def fitted(station: Station, bundle: Bundle) -> Station:
    """The station with its batch no larger than bundle and engine take; all its sources can be opened.

    Raises:
        InputError: a source that cannot be opened, or an engine that is not installed. BundleError: no variant for it.
    """
    if problem := missing(station.engine.kind):
        raise InputError(f"engine.kind: {problem}")
    bundle.variant(variant_of(station.engine.kind))
    for name, camera in station.camera.items():
        try:
            open_source(camera.model_dump(mode="json"), bundle.manifest.preprocess.channels)
        except InputError as error:
            raise InputError(f"camera.{name}: {error}") from None
    manifest = bundle.manifest
    size = most_parts(station.engine.kind, manifest.views, min(station.batch.size, manifest.max_batch))
    return station.model_copy(update={"batch": station.batch.model_copy(update={"size": size})})
