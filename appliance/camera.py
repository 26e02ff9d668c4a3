"""The camera process: trigger, read, preprocess straight into shared memory, tell the supervisor."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import cv2
import zmq

from appliance.counting import SEEN, CountNote, PartCount
from appliance.ear import ALIVE_MS, Ear
from appliance.evidence import CLASSES
from appliance.ring import Ring, checksum
from appliance.sources import Shot, ShotError, Source, open_source
from appliance.sources.checks import is_dead
from appliance.sources.live import PICTURE_MS, LiveSource
from appliance.sources.triggers import Trigger, TriggerQueue
from appliance.wire import (
    COUNT,
    CREDIT,
    END,
    EVIDENCE,
    HELLO,
    KEEP,
    LOOKED_AT,
    STOP,
    SWITCH,
    TRIGGER,
    FrameNote,
    MissNote,
    has_message,
    pack_json,
    unpack_credit,
    unpack_json,
    unpack_keep,
)
from appliance.words import Reason
from calibration.appearance import appearance
from calibration.histogram import bin_of
from calibration.preprocess import Frame, GeometryError, PreprocessSpec

if TYPE_CHECKING:
    from appliance.evidence_writer import EvidenceWriter

GATHER_NS = 10_000_000
"""Notes of frames wait at most so long for others, and never while the camera itself waits."""

TELL_NS = 500_000_000
"""Between two messages about evidence."""

FINISH_NS, WRITE_OUT_S = 2_000_000_000, 0.5
"""After its last frame a camera waits so long for the verdicts, and for its evidence to be written."""


def run_camera(settings: dict[str, Any], channel: zmq.Socket[bytes]) -> None:
    """Serve one camera until its source ends or the supervisor says stop."""
    cv2.setNumThreads(1)
    spec = PreprocessSpec.from_json(settings["preprocess"])
    ring = Ring(settings["ring"], settings["slots"], spec.shape, settings["first"])
    source = open_source(settings["source"], spec.channels, settings["start"])
    count = PartCount(settings["start"], CountNote(*settings["count"]) if settings.get("count") else None)
    with ExitStack() as opened:
        triggers = None
        if isinstance(source, LiveSource):
            from appliance.sources.open_live import outside_triggers

            triggers = opened.enter_context(outside_triggers(source, settings["source"]))
        evidence = None
        if settings.get("evidence"):
            from appliance.evidence_writer import EvidenceWriter

            evidence = EvidenceWriter(settings["evidence"])
        seen = settings.get("seen", ())
        CameraLoop(channel, ring, spec, source, count, evidence, seen, settings["bundle"], triggers).run()


class CameraLoop:
    """Triggers in order, each ending in exactly one FRAME or MISSED message."""

    def __init__(
        self,
        channel: zmq.Socket[bytes],
        ring: Ring,
        spec: PreprocessSpec,
        source: Source,
        count: PartCount,
        evidence: EvidenceWriter | None = None,
        seen: Sequence[int] = (),
        bundle: str = "",
        triggers: TriggerQueue | None = None,
    ) -> None:
        """`count` numbers the triggers. Where evidence is kept, frames are held until their verdicts. `seen`:
        checksums of the last frames of the process before this one. `triggers`: where they come from outside."""
        self._channel, self._ring, self._spec, self._source = channel, ring, spec, source
        self._free: deque[int] = deque()
        self._count = count
        self._seen = deque(seen, maxlen=SEEN)
        self._notes: list[bytes] = []
        self._since_ns = 0
        self._stopped = False
        self._evidence = evidence
        self._held: dict[int, tuple[Frame, int, int, int, str]] = {}
        self._bundle = bundle
        self._told: list[Any] = [0, 0, ""]
        self._tell_ns = 0
        self._triggers = triggers
        self._ear = Ear(channel, source, triggers)

    def run(self) -> None:
        """Say hello, wait for the first credit (the supervisor's go), shoot until the end, say so."""
        self._channel.send(pack_json(HELLO, os.getpid()))
        while not self._stopped and not self._free:
            self._listen(None)
        first = time.monotonic_ns()
        shots = 0
        while (trigger := self._next_trigger(first, shots)) is not None:
            shot = self._shoot(trigger)
            if shot is None:
                break
            self._take(self._counted(shot, trigger.at_ns), trigger.at_ns)
            self._count.trigger += 1
            shots += 1
        self._note(END)
        self._deliver()
        if self._evidence is not None:
            self._finish(self._evidence)

    def _finish(self, evidence: EvidenceWriter) -> None:
        """The verdicts of the last frames are still to come: wait for them, or for another stop."""
        self._stopped = False
        until = time.monotonic_ns() + FINISH_NS
        while self._held and not self._stopped and (left := until - time.monotonic_ns()) > 0:
            self._listen(-(-left // 1_000_000))
        evidence.close(WRITE_OUT_S)
        self._tell_ns = 0
        self._deliver()

    def _shoot(self, trigger: Trigger) -> Shot | None:
        """The shot of a trigger; a live camera's picture is chosen by the time of its trigger."""
        if not isinstance(self._source, LiveSource):
            return self._source.shoot()
        shot = self._source.at(trigger.at_ns)
        return shot and replace(shot, number=trigger.number, serial=trigger.serial, lot=trigger.lot)

    def _next_trigger(self, first: int, shots: int) -> Trigger | None:
        """Wait for the next trigger; None when told to stop.

        At a set rate triggers come when they are due, ready or not; a source that falls behind shows as latency.
        """
        self._listen(0)
        if self._triggers is not None or (isinstance(self._source, LiveSource) and self._source.fps <= 0):
            return self._asked()
        return self._paced(first, shots)

    def _asked(self) -> Trigger | None:
        """Wait for a trigger from outside, or for a live camera that runs free to give a picture."""
        assert isinstance(self._source, LiveSource)  # noqa: S101  no other is triggered so
        while not self._stopped:
            trigger = self._source.triggered() if self._triggers is None else self._triggers.take()
            if trigger is not None:
                return trigger
            self._listen(PICTURE_MS if self._triggers is None else ALIVE_MS)
        return None

    def _paced(self, first: int, shots: int) -> Trigger | None:
        if self._source.fps <= 0:
            while not self._free and not self._stopped:
                self._listen(None)
            return None if self._stopped else Trigger(time.monotonic_ns())
        due = first + round(shots * 1e9 / self._source.fps)
        while not self._stopped and (wait := due - time.monotonic_ns()) > 0:
            self._listen(-(-wait // 1_000_000) if wait > 1_000_000 else 1)
        return None if self._stopped else Trigger(due)

    def _listen(self, timeout_ms: int | None) -> None:
        """Take what the supervisor sent; wait for it at most so long."""
        self._ear.say_alive()
        if timeout_ms != 0:
            self._deliver()
            if not self._ear.wait(timeout_ms):
                return
        while has_message(self._channel):
            message = self._channel.recv()
            if message[:1] == CREDIT:
                slots = unpack_credit(message)
                self._free.extend(slot for slot in slots if slot in self._ring)
                for slot in slots:
                    self._held.pop(slot, None)
            elif message[:1] == KEEP:
                self._keep(message)
            elif message[:1] == SWITCH:
                self._switch(unpack_json(message))
            elif message[:1] == TRIGGER and self._triggers is not None:
                self._triggers.offer(Trigger(*unpack_json(message)))
            elif message[:1] == STOP:
                self._stopped = True

    def _counted(self, shot: Shot, triggered: int) -> Shot:
        """The shot, after a note for every part that the line counted and nobody looked at; one that refuses to be read
        where the line's count says nothing of this part."""
        if shot.number is None:
            return shot
        begun = self._count.begin(shot.number)
        if begun is not None:
            self._note(pack_json(COUNT, begun))
        gap = self._count.gap(shot.number)
        if gap is None:
            self._note(pack_json(COUNT, [self._count.trigger, self._count.offset]))
            text = f"the line's count went to {shot.number}: nobody knows which part this is"
            return replace(shot, read=partial(_refuse, text))
        for _ in range(gap):
            text = "the part passed unseen: the line has counted it, no camera has shot it"
            self._note(MissNote(self._count.trigger, triggered, Reason.NO_FRAME, "", text).pack())
            self._count.trigger += 1
        return shot

    def _take(self, shot: Shot, triggered: int) -> None:
        try:
            if not self._free:
                raise ShotError(Reason.OVERFLOW, "no free slot: parts come faster than they are judged")
            frame, crc = self._expose(shot, self._free[0])
        except ShotError as error:
            note = MissNote(self._count.trigger, triggered, error.reason, shot.name, str(error), shot.serial, shot.lot)
            self._note(note.pack())
            return
        slot = self._free.popleft()
        if self._evidence is not None:
            self._held[slot] = (frame, self._count.trigger, triggered, crc, self._bundle)
        now = time.monotonic_ns()
        trigger = self._count.trigger
        tag = trigger if shot.number is None else shot.number
        looks = self._looks(slot) if trigger % LOOKED_AT == 0 else None
        self._note(FrameNote(trigger, slot, crc, triggered, now, shot.name, shot.serial, shot.lot, tag, looks).pack())

    def _looks(self, slot: int) -> tuple[int, int]:
        """Bins of brightness and sharpness of the frame in a slot."""
        brightness, sharpness = appearance(self._ring.slot(slot))
        return bin_of(brightness), bin_of(sharpness)

    def _note(self, message: bytes) -> None:
        """Tell the supervisor; while the next frame is in work anyway, a few notes share one delivery."""
        now = time.monotonic_ns()
        if not self._notes:
            self._since_ns = now
        self._notes.append(message)
        if now >= self._since_ns + GATHER_NS:
            self._deliver()

    def _deliver(self) -> None:
        self._tell_evidence()
        if self._notes:
            self._channel.send_multipart(self._notes)
            self._notes = []

    def _tell_evidence(self) -> None:
        """How much evidence was stored and dropped, now and then and where it has changed."""
        now = time.monotonic_ns()
        if self._evidence is None or now < self._tell_ns:
            return
        told = [self._evidence.written, self._evidence.dropped, self._evidence.trouble]
        if told != self._told:
            self._told, self._tell_ns = told, now + TELL_NS
            self._notes.append(pack_json(EVIDENCE, told))

    def _expose(self, shot: Shot, slot: int) -> tuple[Frame, int]:
        """Read and preprocess into a slot; the frame and the tensor's checksum. Raises ShotError."""
        frame = shot.read()
        tensor = self._ring.slot(slot)
        try:
            self._spec.apply(frame, out=tensor)
        except GeometryError as error:
            raise ShotError(Reason.FORMAT, str(error)) from None
        if is_dead(frame):
            raise ShotError(Reason.BAD_IMAGE, f"all pixels are {frame.reshape(-1)[0]}: lens cap, light or sensor")
        crc = checksum(tensor)
        if self._source.live and crc in self._seen:
            raise ShotError(Reason.FROZEN, "a picture shown before: a frozen camera, or a driver that mixes frames up")
        self._seen.append(crc)
        return frame, crc

    def _switch(self, told: dict[str, Any]) -> None:
        """From the next trigger on frames are preprocessed for another bundle, into memory of its own; said when done.

        That memory is the supervisor's, which keeps it open until then.
        """
        self._spec, self._bundle = PreprocessSpec.from_json(told["preprocess"]), told["bundle"]
        descriptor = os.open(told["path"], os.O_RDWR | os.O_CLOEXEC)
        self._ring = Ring(descriptor, told["slots"], self._spec.shape, told["first"])
        self._free = deque(told["credit"])
        self._notes.append(pack_json(SWITCH, told["first"]))
        self._deliver()

    def _keep(self, message: bytes) -> None:
        """Hand frames on to be stored as evidence."""
        for slot, seq, kind in unpack_keep(message):
            held = self._held.get(slot)
            if self._evidence is not None and held is not None:
                self._evidence.offer(CLASSES[kind], seq, *held)


def _refuse(why: str) -> Frame:
    raise ShotError(Reason.TRIGGER, why)
