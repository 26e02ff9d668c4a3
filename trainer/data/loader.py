"""From a dataset's files to the arrays training and scoring read: decoded once, then mapped from disk."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.cli_support import Report
from calibration.errors import InputError
from calibration.images import ImageError, read_image
from calibration.preprocess import GeometryError, PreprocessSpec
from trainer.data.manifest import SPLITS, Dataset, Item
from trainer.data.names import printable

ASPECT_TOLERANCE = 1.25
"""Frames whose aspect ratios differ by no more than this factor are stretched onto the input, others padded."""

THREADS = 2
CACHES_KEPT = 4
"""Decoded copies of a dataset (one per preprocessing) kept on disk; the oldest goes first."""


@dataclass(frozen=True)
class LoadedSplit:
    """One split, ready to train or score on.

    Attributes:
        images: uint8 (n, channels, height, width), as `PreprocessSpec.apply` gives them; read-only, mapped from disk
            when the dataset has a folder.
        labels: int64 (n,), class indices.
        soft: float32 (n, classes), each row summing to 1: the annotators' doubt, or one-hot where nobody doubts.
        paths, groups: (n,) as in the manifest.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    soft: NDArray[np.float32]
    paths: tuple[str, ...]
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def spec_for(dataset: Dataset, height: int, width: int) -> PreprocessSpec:
    """The preprocessing of a model with this input size.

    Frames of (nearly) one shape are stretched onto the input, since every pixel then carries picture; frames whose
    aspect ratios differ by more than 25 % are padded, since stretching would deform the same defect differently.

    Raises:
        InputError: a size below one pixel.
    """
    if height < 1 or width < 1:
        raise InputError(f"input size {height}x{width}: height and width must be at least 1")
    least, most = dataset.frame_aspects
    return PreprocessSpec(
        height=height,
        width=width,
        channels=dataset.channels,
        frame_heights=dataset.frame_heights,
        frame_widths=dataset.frame_widths,
        fit="stretch" if most / least <= ASPECT_TOLERANCE else "pad",
    )


def soft_labels(items: tuple[Item, ...], classes: tuple[str, ...]) -> NDArray[np.float32]:
    """Probability of each class, float32 (n, classes): the item's soft label, else one-hot of its label.

    Raises:
        InputError: a soft label is no probability of each class, or does not sum to 1.
    """
    soft = np.zeros((len(items), len(classes)), np.float32)
    index = {name: i for i, name in enumerate(classes)}
    for row, item in zip(soft, items, strict=True):
        if item.soft is None:
            row[index[item.label]] = 1.0
        else:
            if len(item.soft) != len(classes) or not min(item.soft) >= 0 or not abs(sum(item.soft) - 1) < 1e-3:
                raise InputError(
                    f"{printable(item.path)}, soft: {item.soft} is not one probability for each of {list(classes)} "
                    "that sum to 1; correct it"
                )
            row[:] = item.soft
    return soft


def load_split(dataset: Dataset, spec: PreprocessSpec, split: str, progress: Report | None = None) -> LoadedSplit:
    """Decode and preprocess one split, or map it from DATA/cache where that was done before.

    The cache is keyed by the dataset's hash, which covers the images' bytes, and the spec's: a changed image, label or
    size is never answered from an old copy.

    Args:
        progress: called with (images done, images in all).

    Raises:
        InputError: no such split, an empty one, or an image that cannot be read or is not one the spec was made for.
    """
    if split not in SPLITS:
        raise InputError(f"split {split!r}: it must be one of {', '.join(SPLITS)}")
    items = dataset.of(split)
    if not items:
        raise InputError(f"{dataset.folder or dataset.name}: no image is in split {split!r}; import again")
    images = _cached(dataset, spec, split, items, progress) if dataset.folder else None
    if images is None:
        images = np.empty((len(items), *spec.shape), np.uint8)
        _decode(dataset.root, items, spec, images, progress)
        images.flags.writeable = False
    return LoadedSplit(
        images=images,
        labels=dataset.labels(split),
        soft=soft_labels(items, dataset.classes),
        paths=tuple(item.path for item in items),
        groups=tuple(item.group for item in items),
    )


def _cached(
    dataset: Dataset, spec: PreprocessSpec, split: str, items: tuple[Item, ...], progress: Report | None
) -> NDArray[np.uint8] | None:
    """The split mapped from the cache, made first where it is not there; None where no cache can be written."""
    folder = (dataset.folder or Path()) / "cache"
    key = hashlib.sha256(f"{dataset.sha256} {spec.sha256}".encode()).hexdigest()[:24]
    path = folder / key / f"{split}.npy"
    shape = (len(items), *spec.shape)
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f"{split}.{os.getpid()}.part")
            images = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
        except OSError:
            return None  # a read-only place: decode into memory instead
        try:
            _decode(dataset.root, items, spec, images, progress)
            images.flush()
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        _forget_old(folder)
    try:
        mapped = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}); delete the cache folder") from None
    if mapped.shape != shape or mapped.dtype != np.uint8:
        raise InputError(f"{path}: holds {mapped.dtype} {mapped.shape}, not uint8 {shape}; delete the cache folder")
    os.utime(path.parent)  # the least recently used goes first
    return np.asarray(mapped)


def _forget_old(folder: Path) -> None:
    kept = sorted((p for p in folder.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime, reverse=True)
    for old in kept[CACHES_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def _decode(
    root: Path, items: tuple[Item, ...], spec: PreprocessSpec, out: NDArray[np.uint8], progress: Report | None
) -> None:
    """Fill `out` with the items' preprocessed pixels; two threads, since decoding leaves Python's lock free."""

    def one(position: int) -> None:
        item = items[position]
        try:
            spec.apply(read_image(root / item.path, spec.channels), out=out[position])
        except (ImageError, GeometryError) as error:
            raise InputError(f"{printable(item.path)}: {error}; restore it, or import again to leave it out") from None

    with ThreadPoolExecutor(THREADS) as pool:
        work: Iterator[int] = iter(range(len(items)))
        done = 0
        while chunk := list(islice(work, 64)):  # small chunks, so that a bad image stops the work soon
            list(pool.map(one, chunk))
            done += len(chunk)
            if progress is not None:
                progress(done, len(items))
