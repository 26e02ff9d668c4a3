"""The simulated engine: the real one, which obeys orders between batches."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.engines.protocol import Engine, EngineError
from tests.faults.simulator.plan import is_stamped, number_of
from tests.faults.simulator.world import EngineOrder, Word, World


class SimulatedEngine:
    """An Engine around another. Attributes: see Engine."""

    def __init__(self, engine: Engine, world: World, slow_s: float) -> None:
        """`slow_s`: how long a slow batch takes longer, in seconds."""
        self.name = engine.name
        self._engine, self._world, self._slow_s = engine, world, slow_s

    def infer(self, batch: NDArray[np.uint8], *lane: Any) -> NDArray[np.float32]:
        """See Engine.infer."""
        live = is_stamped(batch[0])  # goldens are judged in peace: an engine that fails them is a FAULT, and no fault
        order = EngineOrder(self._world.take(Word.ENGINE) if live else 0)
        if order:
            self._world.carried_out(order)
        if order == EngineOrder.HANG:
            time.sleep(600)
        elif order == EngineOrder.ABORT:
            os.abort()
        elif order == EngineOrder.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        elif order == EngineOrder.RAISE:
            raise EngineError("told to fail")
        elif order == EngineOrder.SLOW:
            time.sleep(self._slow_s)
        logits = self._engine.infer(batch, *lane)
        if self._world.get(Word.SWAPPED):
            logits = np.ascontiguousarray(logits[:, ::-1])
        if order in (EngineOrder.NAN, EngineOrder.INFINITE):
            self._world.spoil(number for tensor in batch if (number := number_of(tensor)) is not None)
        if order == EngineOrder.NAN:
            return np.full_like(logits, np.nan)
        if order == EngineOrder.INFINITE:
            return np.where(np.arange(logits.shape[1]) == 0, np.float32(np.inf), logits).astype(np.float32)
        return logits[:-1] if order == EngineOrder.FEWER else logits

    def trim(self, frame: NDArray[np.uint8], size: int) -> None:
        """See Engine.trim."""
        self._engine.trim(frame, size)
