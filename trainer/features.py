"""What the frozen part of a network computes, once per frame and mirrored copy."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable
from copy import copy as shallow_copy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.device import device_of
from trainer.models.build import Network
from trainer.models.classifier import FLIPS, Classifier, Flips, Views

Pixels = NDArray[np.uint8]
"""Preprocessed frames: uint8 (n, C, H, W), in memory or mapped from a file."""

Progress = Callable[[str, int, int], None]
"""What is being done, how many of it are done, of how many."""

CACHE_BYTES = 8 * 2**30
FORWARD_BATCH = 16


def silent(what: str, done: int, total: int) -> None:
    """A Progress that shows nothing."""


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory instead of returning it to the kernel after every layer.

    Activations are tens of megabytes each; mapping and clearing them anew for each layer took three quarters
    of the time. Elsewhere than on glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)


class Activations:
    """Outputs of the lower ``stages`` of ``model`` for every frame and every copy of it, on demand.

    They are kept as float16 in a temporary file that vanishes with this object, or in ``keep``; where they would
    exceed ``cache_bytes`` they are computed anew each time.

    Args:
        model: whose ``lower`` is frozen from here on.
        frames: uint8 (n, C, H, W).
        stages: see Recipe.frozen_stages.
        flips: which copies there are; copy 0 is the frame itself.
        jitter: 0..1, contrast and brightness of the copies vary by up to this share; drawn from ``seed``.
        keep: a file that outlives this object. What is in it is taken for these very activations: its name must say
            all that they depend on. One process at a time may make it.
    """

    def __init__(
        self,
        model: Classifier,
        frames: Pixels,
        stages: int,
        flips: Flips = "none",
        jitter: float = 0.0,
        seed: int = 0,
        cache_bytes: int = CACHE_BYTES,
        keep: Path | None = None,
    ) -> None:
        self.model, self.frames, self.stages = model, frames, stages
        self.copies = self._computed = FLIPS[flips]
        draw = np.random.default_rng([seed, 1]).uniform(-jitter, jitter, (2, len(self.copies), len(frames)))
        self._light = torch.from_numpy(draw).float()
        self._rows, self._copies = np.arange(len(frames)), np.arange(len(self.copies))
        self._cache: Tensor | None = None
        self._keep, self._filled = keep, False
        shape = self._compute(np.zeros(1, np.int64), np.zeros(1, np.int64)).shape[1:]
        whole = (len(self.copies), len(frames), *shape)
        if 2 * int(np.prod(whole, dtype=np.int64)) <= cache_bytes:
            self._cache = self._mapped(whole)

    def _mapped(self, shape: tuple[int, ...]) -> Tensor:
        if self._keep is None:
            with tempfile.TemporaryFile() as file:  # the mapping outlives it and needs no name
                return torch.from_numpy(np.memmap(file, np.float16, "w+", shape=shape))
        if self._keep.is_file():
            self._filled = True
            return torch.from_numpy(np.memmap(self._keep, np.float16, "c", shape=shape))
        self._keep.parent.mkdir(parents=True, exist_ok=True)
        return torch.from_numpy(np.memmap(self._part(self._keep), np.float16, "w+", shape=shape))

    @staticmethod
    def _part(keep: Path) -> Path:
        return keep.with_name(f"{keep.name}.part")

    def __len__(self) -> int:
        """Frames there are to ask for."""
        return len(self._rows)

    def of(self, rows: NDArray[np.int64], copies: Views) -> Activations:
        """The same activations, of the frames ``rows`` alone, in their order, and of ``copies``, which must be among
        those there are; nothing is copied or computed.
        """
        view = shallow_copy(self)
        view._rows = self._rows[rows]
        view._copies = np.array([self._copies[self.copies.index(axes)] for axes in copies])
        view.copies = copies
        return view

    def fill(self, progress: Progress, what: str) -> None:
        """Compute every activation that the cache has room for, in a fixed order."""
        if self._cache is None or self._filled:
            return
        done, total = 0, len(self._computed) * len(self.frames)
        for copy in range(len(self._computed)):
            for start in range(0, len(self.frames), FORWARD_BATCH):
                rows = np.arange(start, min(start + FORWARD_BATCH, len(self.frames)))
                computed = self._compute(rows, np.full(len(rows), copy))
                self._cache[copy, rows[0] : rows[-1] + 1] = computed.half()
                done += len(rows)
                progress(what, done, total)
        self._filled = True
        if self._keep is not None:
            self._part(self._keep).replace(self._keep)  # the mapping goes with it

    def get(self, rows: NDArray[np.int64], copies: NDArray[np.int64]) -> Tensor:
        """Activations of frames ``rows`` in copies ``copies``: float32 (len(rows), channels, height,
        width).
        """
        rows, copies = self._rows[rows], self._copies[copies]
        if self._cache is None:
            return self._compute(rows, copies)
        picked = self._cache[torch.from_numpy(copies), torch.from_numpy(rows)]
        return picked.float().contiguous(memory_format=torch.channels_last)

    def _compute(self, rows: NDArray[np.int64], copies: NDArray[np.int64]) -> Tensor:
        device = device_of(self.model)
        pixels, axes = torch.from_numpy(self.frames[rows]).to(device).float(), self._computed
        mirrored = torch.stack(
            [frame.flip([axis - 1 for axis in axes[copy]]) for frame, copy in zip(pixels, copies, strict=True)]
        )
        light = self._light[:, torch.from_numpy(copies), torch.from_numpy(rows)]
        contrast, brightness = light.to(device)[:, :, None, None, None]
        lit = ((mirrored - 127) * (1 + contrast) + 127 * (1 + brightness)).clamp(0, 255)
        with torch.no_grad():
            lower = self.model.lower(lit.contiguous(memory_format=torch.channels_last), self.stages)
        # Rounded as in the cache, so that a run does not depend on whether there was room for one.
        return lower.half().float()


def embed_all(model: Classifier, activations: Activations, progress: Progress, what: str) -> NDArray[np.float32]:
    """Pooled features of every copy of every frame: float32 (copies, n, model.features)."""
    n, copies = len(activations), len(activations.copies)
    features = np.empty((copies, n, model.features), np.float32)
    with torch.no_grad():
        for copy in range(copies):
            for start in range(0, n, FORWARD_BATCH):
                rows = np.arange(start, min(start + FORWARD_BATCH, n))
                lower = activations.get(rows, np.full(len(rows), copy)).to(device_of(model))
                features[copy, rows] = model.embed(lower, activations.stages).cpu().numpy()
                progress(what, copy * n + int(rows[-1]) + 1, copies * n)
    return features


def predict(model: Network, frames: Pixels, progress: Progress = silent, what: str = "scoring") -> NDArray[np.float32]:
    """Logits of frames (n, C, H, W) uint8 as the exported model sees them: float32 (n, classes)."""
    model.eval()
    logits = np.empty((len(frames), model.config.classes), np.float32)
    with torch.no_grad():
        for start in range(0, len(frames), FORWARD_BATCH):
            batch = torch.from_numpy(np.array(frames[start : start + FORWARD_BATCH]))
            logits[start : start + FORWARD_BATCH] = model(batch.contiguous(memory_format=torch.channels_last))
            progress(what, min(start + FORWARD_BATCH, len(frames)), len(frames))
    return logits
