"""The supervisor's side of one camera process: its slots, its credit, its restarts."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from appliance.channels import WorkerChannel
from appliance.counting import SEEN, CountNote
from appliance.messages import Evidence
from appliance.ring import Ring
from appliance.wire import (
    ALIVE,
    COUNT,
    END,
    EVIDENCE,
    FRAME,
    HELLO,
    MISSED,
    STOP,
    SWITCH,
    FrameNote,
    MissNote,
    WireError,
    pack_credit,
    pack_json,
    pack_keep,
    unpack_evidence,
    unpack_json,
)
from appliance.workers import RestartLimit, Worker
from calibration.preprocess import PreprocessSpec

BACK_OFF_NS = (200_000_000, 1_000_000_000, 3_000_000_000)
GRACE_NS = 100_000_000
"""What a process said before it died may still be on its way for so long."""


class CameraLink:
    """One camera.

    Attributes:
        name: from station.toml.
        triggers: seen so far; a restarted process goes on from there.
        count: where the line's own count stands, in this run or from the runs before; None where nobody counts.
        ended: its source has no more frames.
        trouble: what is wrong with it; empty when nothing is.
        evidence: frames stored and dropped in this run.
        looping: restarted too often.
        switching: told to preprocess for another bundle, and may still be at a frame for the one before.
    """

    def __init__(
        self, name: str, index: int, settings: dict[str, Any], slots: Iterable[int], ring: Ring, channel: WorkerChannel
    ) -> None:
        """`settings`: what the camera process needs but start and ring; `slots`: those of the ring that are its own."""
        self.name = name
        self._index, self._settings, self._ring, self._channel = index, settings, ring, channel
        self._free = set(slots)
        self._own = frozenset(self._free)
        self._credited: set[int] = set()
        self.switching = False
        self._keep: list[tuple[int, int, int]] = []
        self._evidence_before = Evidence()
        self._limit = RestartLimit()
        self._generation = 0
        self._worker: Worker | None = None
        self._ready = self._open = self._stopping = False
        self._gone_ns: int | None = None
        self._restart_ns: int | None = None
        self._heard_ns: int | None = None
        self._hang_ns = int(settings.get("hang_s", 5.0) * 1e9)
        self._news = ""
        self.triggers = 0
        self.count: CountNote | None = None
        self._unfinished: tuple[int, ...] = ()
        self._seen: deque[int] = deque(maxlen=SEEN)
        self.ended = False
        self.looping = False
        self.trouble = ""
        self.evidence = Evidence()

    @property
    def worker(self) -> Worker | None:
        """Its process, if one runs."""
        return self._worker

    @property
    def ready(self) -> bool:
        """Whether its process has its source open and waits for credit."""
        return self._ready

    def resume(self, count: CountNote | None, unfinished: tuple[int, ...], seen: Iterable[int]) -> None:
        """Before the first start: where the line's count stood, the triggers up to there without a row, and checksums
        of the last frames, oldest first."""
        self.count, self._unfinished = count, unfinished
        self._seen.extend(seen)

    def take_unfinished(self) -> tuple[int, ...]:
        """Those triggers, once."""
        taken, self._unfinished = self._unfinished, ()
        return taken

    def start(self) -> None:
        """Start a process for it."""
        self._generation += 1
        settings = {**self._settings, "start": self.triggers, "count": self.count, "seen": list(self._seen)}
        identity = f"camera-{self._index}-{self._generation}"
        self._worker = Worker("camera", identity, self._channel.endpoint, settings, self._ring.descriptor)
        self._channel.watch(self._worker, self)

    def describe(self) -> str:
        """For people: how it is."""
        if self.ended:
            return "ended"
        return self.trouble or ("running" if self._ready else "starting")

    def limit(self, slots: int) -> None:
        """Use no more than so many slots; before `open`."""
        self._free = set(sorted(self._free)[:slots])
        self._own = frozenset(self._free)

    def switch(self, settings: dict[str, Any], slots: Iterable[int], ring: Ring) -> None:
        """Its frames after the one that it is at are for another bundle: preprocessed as `settings` say, into these
        slots of `ring`. A process whose source has to be opened in another way is ended and started again."""
        channels = [PreprocessSpec.from_json(each["preprocess"]).channels for each in (self._settings, settings)]
        self._settings, self._ring = {**self._settings, **settings}, ring
        self._own = frozenset(slots)
        self._free = {slot for slot in self._free if slot not in self._own} | self._own
        if self._worker is None or self.ended:
            return
        if not self._ready or channels[0] != channels[1]:
            self.break_off("started again for another bundle")
            return
        path = f"/proc/{os.getpid()}/fd/{ring.descriptor}"
        told = {name: self._settings[name] for name in ("preprocess", "slots", "first", "bundle")}
        credit = sorted(self._own) if self._open else []  # in the same message: no trigger falls between the two
        self._channel.send(self._worker.identity, pack_json(SWITCH, {**told, "path": path, "credit": credit}))
        self._credited.update(credit)
        self._free.difference_update(credit)
        self.switching = True

    def revive(self) -> None:
        """An operator has repaired it: it may be started again as if it had never failed."""
        self.looping, self._limit = False, RestartLimit()
        if self._worker is None and not self._stopping and not self.ended:
            self._restart_ns = 0

    def open(self) -> None:
        """Let it trigger: from now on it gets credit."""
        self._open = True
        self.flush()

    def stop(self) -> None:
        """Ask it to end after the frame it is at."""
        self._stopping = True
        if self._worker is None or not self._ready:  # it has shot nothing yet, and does not listen either
            self.ended = True
            self.break_off("stopped")
        else:
            self._channel.send(self._worker.identity, STOP)

    def tell(self, data: bytes) -> bool:
        """Send something to its process; False where none listens."""
        return self._worker is not None and self._ready and self._channel.send(self._worker.identity, data)

    def release(self, slot: int, seq: int = 0, kind: int | None = None) -> None:
        """The engine is done with one of its slots; its frame shall be kept as evidence of row `seq`, in the class with
        index `kind`, where that is given."""
        self._free.add(slot)
        if kind is not None:
            self._keep.append((slot, seq, kind))

    def flush(self) -> None:
        """Hand it all its free slots."""
        if self._free and self._ready and self._open and self._worker is not None:
            if self._keep:  # before the slots: with them the camera forgets the frames
                self._channel.send(self._worker.identity, pack_keep(self._keep))
                self._keep = []
            self._channel.send(self._worker.identity, pack_credit(sorted(self._free)))
            self._credited |= self._free & self._own
            self._free = set()

    def message(self, data: bytes) -> FrameNote | MissNote | CountNote | None:
        """Take one message of its process; the trigger or the change of the line's count it tells of, if any.

        Raises:
            WireError: no message of ours, a slot it had no credit for, or a trigger out of order.
        """
        kind = data[:1]
        if self._heard_ns is not None:
            self._heard_ns = time.monotonic_ns()
        if kind == FRAME:
            frame = FrameNote.unpack(data)
            self._count(frame.trigger)
            if frame.slot not in self._credited:
                raise WireError(f"a frame in slot {frame.slot}, which it had no credit for")
            self._credited.remove(frame.slot)
            self._seen.append(frame.crc)
            return frame
        if kind == MISSED:
            miss = MissNote.unpack(data)
            self._count(miss.trigger)
            return miss
        if kind == COUNT:
            return self._counts(unpack_json(data))
        if kind == HELLO:
            self._ready = True
            self.trouble = ""
            self.flush()
        elif kind == SWITCH:
            self._credited &= self._own
            self.switching = unpack_json(data) != self._ring.first
        elif kind == ALIVE:
            self._heard_ns = time.monotonic_ns()
            before, self.trouble = self.trouble, str(unpack_json(data))[:300]
            self._news = self._news if before else self.trouble
        elif kind == EVIDENCE:
            written, dropped, trouble = unpack_evidence(data)
            of = self._evidence_before
            self.evidence = Evidence(written=of.written + written, dropped=of.dropped + dropped, trouble=trouble)
        elif kind == END and len(data) == 1:
            self.ended = True
        elif kind == END:
            self.trouble = str(unpack_json(data))[:300]
        else:
            raise WireError(f"a message of kind {kind!r}")
        return None

    def gone(self, now_ns: int) -> None:
        """Its process has ended."""
        self._gone_ns = now_ns

    def check(self, now_ns: int) -> str:
        """Restart it where that is due; what has happened to it just now, empty if nothing."""
        if self._gone_ns is not None and now_ns >= self._gone_ns + GRACE_NS:
            return self._lost(now_ns)
        if self._restart_ns is not None and now_ns >= self._restart_ns and not self._stopping:
            self._restart_ns = None
            self.start()
        if self._worker is not None and self._heard_ns is not None and now_ns >= self._heard_ns + self._hang_ns:
            self._heard_ns = None
            self.break_off(f"hung in its driver for {self._hang_ns / 1e9:g} s")
        news, self._news = self._news, ""
        return news and f"camera {self.name}: {news}"

    def break_off(self, why: str) -> None:
        """Kill its process; `check` sees to the rest."""
        if self._worker is not None:
            self.trouble = why
            self._worker.kill()

    def close(self, timeout_s: float) -> None:
        """End its process, which `stop` has asked to end."""
        if self._worker is not None:
            self._worker.end(timeout_s)
            self._channel.unwatch(self._worker)
            self._worker = None

    def _count(self, trigger: int) -> None:
        if trigger != self.triggers:
            raise WireError(f"trigger {trigger} where {self.triggers} was due")
        self.triggers += 1
        if self.count is not None:
            self.count = self.count._replace(trigger=self.triggers)

    def _counts(self, told: Any) -> CountNote:
        try:
            note = CountNote(*map(int, told))
        except (TypeError, ValueError) as error:
            raise WireError(f"count message: {error}") from None
        if note.trigger < max(self.triggers, self.count.trigger if self.count else 0):
            raise WireError(f"a count that goes back to trigger {note.trigger}")
        self.count, self.triggers = note, note.trigger
        return note

    def _lost(self, now_ns: int) -> str:
        """The process is gone: its slots are free, since nobody writes to them any more."""
        assert self._worker is not None  # noqa: S101  only a watched process can be gone
        code = self._worker.exit_code()
        self._channel.unwatch(self._worker)
        self._worker, self._gone_ns, self._ready, self._heard_ns = None, None, False, None
        self._keep, self._evidence_before = [], self.evidence  # its frames went with it
        self._free = (self._free | self._credited) & self._own
        self._credited, self.switching = set(), False
        if self.ended:
            return ""
        if self._stopping:
            self.ended = True
            return ""
        self.trouble = self.trouble or f"its process ended with code {code}"
        if not self._limit.allows(now_ns):
            self.looping = True
        else:
            self._restart_ns = now_ns + BACK_OFF_NS[min(self._generation, len(BACK_OFF_NS)) - 1]
        return f"camera {self.name}: {self.trouble}"
