"""The simulated camera: a source of the production camera process, which obeys the plan and keeps the journal."""

from __future__ import annotations

import time
from collections import deque
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from appliance.sources import Shot, ShotError
from appliance.words import Reason
from calibration.images import ImageError, decode_image
from calibration.preprocess import Frame
from tests.faults.simulator.plan import Plan, may_pass, pool, stamped
from tests.faults.simulator.world import CameraOrder, Event, Kind, Word, World

STALL_S = 30.0
REMEMBERED = 8


class UnpluggedError(RuntimeError):
    """What a driver raises when its camera is gone."""


class SimulatedCamera:
    """A Source: a live sensor that counts its parts.

    Attributes:
        damage: what is to be done to the next tensor after its checksum, see `damaged_checksum`.
    """

    live = True

    def __init__(self, world: World, plan: Plan, fps: float, late_s: float) -> None:
        """`late_s`: how long a late frame takes, in seconds."""
        self.fps = fps
        self._world, self._plan, self._late_s = world, plan, late_s
        self._pool = pool()
        self._last: deque[Frame] = deque(maxlen=REMEMBERED)
        self.damage = Kind.CLEAN

    def shoot(self) -> Shot | None:
        """See Source.shoot."""
        order = CameraOrder(self._world.take(Word.CAMERA))
        if order:
            self._world.carried_out(order)
        if order == CameraOrder.UNPLUG:
            raise UnpluggedError("the camera is gone")
        if order == CameraOrder.STALL:
            time.sleep(STALL_S)
        while True:
            kind, index = self._plan.draw(self._world.parts)
            kind = Kind(self._world.take(Word.FRAME)) or kind
            if kind in (Kind.FROZEN, Kind.OLD) and not self._last:
                kind = Kind.CLEAN  # a new process has no picture of before to show again
            number = self._world.add(Event(time.monotonic_ns(), kind, index))
            if kind is not Kind.UNSEEN:
                return Shot(f"part-{number}", partial(self._read, number, kind, index), number=number)

    def _read(self, number: int, kind: Kind, index: int) -> Frame:
        frame = stamped(self._pool[index], number)
        self.damage = kind if kind in (Kind.FLIPPED, Kind.OVERWRITTEN) else Kind.CLEAN
        if kind is Kind.NO_FRAME:
            raise ShotError(Reason.NO_FRAME, "no frame for this trigger")
        if kind is Kind.LATE:
            time.sleep(self._late_s)
        if kind is Kind.FROZEN and self._last:
            frame = self._last[-1]
        elif kind is Kind.OLD and self._last:
            frame = self._last[0]
        else:
            frame = self._changed(frame, number, kind)
            self._last.append(frame)
        return frame

    def _changed(self, frame: Frame, number: int, kind: Kind) -> Frame:
        if kind in (Kind.EMPTY, Kind.TRUNCATED):
            data = b""
            if kind is Kind.TRUNCATED:
                suffix = (".jpg", ".png")[number % 2]
                whole = cv2.imencode(suffix, frame)[1].tobytes()
                data = whole[: number * 7919 % (len(whole) - 2)]
            try:
                return decode_image(data, 1, f"part-{number}")
            except ImageError as error:
                raise ShotError(Reason.BAD_IMAGE, str(error)) from None
        if kind is Kind.GEOMETRY:
            odd = (
                frame[:-1],
                frame[:, :-1],
                frame.T.copy(),
                np.dstack([frame] * 3),
                frame[:0],
                frame.astype(np.float32),
            )
            return odd[number % len(odd)]  # type: ignore[return-value]  a wrong type is one of the faults
        if kind is Kind.BLACK:
            return np.full_like(frame, (0, 255)[number % 2])
        return frame

    def damage_tensor(self, tensor: NDArray[np.uint8]) -> None:
        """What a stray write does to the slot, after the checksum was taken."""
        if self.damage is Kind.FLIPPED:
            tensor.reshape(-1)[tensor.size // 3] ^= 16
        elif self.damage is Kind.OVERWRITTEN:  # by a good part: that is the dangerous one
            tensor[...] = self._good_tensor(tensor)
        self.damage = Kind.CLEAN

    def _good_tensor(self, tensor: NDArray[np.uint8]) -> Frame:
        good = next(frame for index, frame in enumerate(self._pool) if may_pass(Kind.CLEAN, index))
        return cv2.resize(good, tensor.shape[:0:-1], interpolation=cv2.INTER_AREA)[None]
