"""Generated image folders of every shape a user may bring: grey or colour, tiny or large, two classes or twelve.

Parts are band-limited texture with a lighting gradient; each defect class is one kind of mark in one place or size,
so a working trainer separates them and a broken one does not.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

MARKS = ("scratch", "pit", "stain", "break", "spot", "band", "blob", "cross", "ring", "line", "edge")


@dataclass(frozen=True)
class FolderSpec:
    """What to generate. `counts` are images per class, the good class first; `shots` images show the same part."""

    height: int
    width: int
    counts: tuple[int, ...]
    colour: bool = False
    shots: int = 1
    suffix: str = ".png"
    vary_size: float = 0.0
    seed: int = 0

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names: good, then one kind of mark each."""
        return ("good", *MARKS[: len(self.counts) - 1])


def write_folder(root: Path, spec: FolderSpec) -> Path:
    """Write the image folder (and groups.csv where parts have several shots); returns `root`."""
    rng = np.random.default_rng(spec.seed)
    groups = []
    for name, count in zip(spec.classes, spec.counts, strict=True):
        (root / name).mkdir(parents=True)
        for i in range(count):
            part = np.random.default_rng([spec.seed, len(name), i // spec.shots, *name.encode()])
            scale = 1 + spec.vary_size * rng.uniform(-1, 1)
            image = _part(part, round(spec.height * scale), round(spec.width * scale), name)
            image = np.clip(image + rng.normal(0, 4, image.shape), 0, 255)
            if spec.colour:
                image = np.stack([image * 0.8, image, np.clip(image * 1.1, 0, 255)], axis=-1)
            path = root / name / f"{name}-{i:04d}{spec.suffix}"
            cv2.imwrite(str(path), image.astype(np.uint8))
            groups.append((f"{name}/{path.name}", f"{name}-{i // spec.shots}"))
    if spec.shots > 1:
        with (root / "groups.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("path", "group"), *groups])
    return root


def _part(rng: np.random.Generator, height: int, width: int, kind: str) -> NDArray[np.float32]:
    coarse = rng.normal(0, 1, (max(2, height // 8), max(2, width // 8))).astype(np.float32)
    image = 135 + 14 * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    image += np.linspace(-10, 10, width, dtype=np.float32)[None, :] * rng.uniform(-1, 1)
    if kind != "good":
        _mark(rng, image, kind)
    return image


def _mark(rng: np.random.Generator, image: NDArray[np.float32], kind: str) -> None:
    height, width = image.shape
    size = max(2, min(height, width) // 5)
    x, y = int(rng.integers(size, width - size)), int(rng.integers(size, height - size))
    dark, bright, thin = 40.0, 235.0, max(1, size // 6)
    if kind == "scratch":
        cv2.line(image, (x - size, y - size), (x + size, y + size), dark, thin)
    elif kind == "pit":
        cv2.circle(image, (x, y), max(1, size // 2), dark, -1)
    elif kind == "stain":
        cv2.ellipse(image, (x, y), (size, max(1, size // 2)), 20, 0, 360, 90.0, -1)
    elif kind == "break":
        cv2.rectangle(image, (0, 0), (size, size), 5.0, -1)
    elif kind == "spot":
        cv2.circle(image, (x, y), max(1, size // 2), bright, -1)
    elif kind == "band":
        cv2.rectangle(image, (0, y), (width, y + thin), dark, -1)
    elif kind == "blob":
        cv2.circle(image, (x, y), size, 180.0, -1)
    elif kind == "cross":
        cv2.line(image, (x - size, y), (x + size, y), bright, thin)
        cv2.line(image, (x, y - size), (x, y + size), bright, thin)
    elif kind == "ring":
        cv2.circle(image, (x, y), size, dark, thin)
    elif kind == "line":
        cv2.rectangle(image, (x, 0), (x + thin, height), bright, -1)
    else:
        cv2.rectangle(image, (width - size, 0), (width, height), bright, -1)
