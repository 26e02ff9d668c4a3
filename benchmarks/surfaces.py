"""Frames of 1280x1024 pixels with small scratches and pits over real textures, for benchmarks.

The texture of a frame is a real photograph (a working solar cell of the package elpv-dataset, or any folder of grey
pictures of good parts), enlarged, mirrored to a seamless surface, lit unevenly and seen through a lens and a sensor.
A defect fills a box of a stated share of the frame, but only a few hundred of the pixels in that box.
"""

from __future__ import annotations

import csv
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError

HEIGHT, WIDTH = 1024, 1280
CLASSES = ("ok", "pit", "scratch")
FRAMES_PER_SOURCE = 4
"""Frames that show the same piece of texture, and so are one group."""

OPTICS_SIGMA, SENSOR_SIGMA = 0.6, 2.5
FINE = 4
"""Scratches are drawn this many times finer than pixels, then averaged: anti-aliasing that is exact."""

Picture = NDArray[np.float32]


@dataclass(frozen=True)
class Surfaces:
    """What to generate.

    Attributes:
        counts: frames of each of CLASSES.
        share: area of a defect's box as a share of the frame, 0 < share <= 0.25.
        contrast: depth of defects as a share of the local grey level, 0..1, (least, most).
        size: (height, width) of a frame in pixels.
    """

    counts: tuple[int, int, int] = (160, 70, 70)
    share: float = 0.01
    contrast: tuple[float, float] = (0.15, 0.40)
    size: tuple[int, int] = (HEIGHT, WIDTH)
    seed: int = 0


@dataclass(frozen=True)
class Box:
    """Where a defect is, in pixels."""

    top: int
    left: int
    height: int
    width: int


def texture_files(folder: Path | None = None) -> list[Path]:
    """Pictures of good parts: of ``folder``, or the working cells of elpv-dataset. InputError where there are none."""
    if folder is not None:
        found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
        if not found:
            raise InputError(f"{folder}: holds no PNG or JPEG pictures; give a folder of good parts")
        return found
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("textures: the package elpv-dataset is not installed: pip install elpv-dataset")
    root = Path(next(iter(spec.submodule_search_locations))) / "data"
    rows = [line.split() for line in (root / "labels.csv").read_text(encoding="utf-8").splitlines() if line.strip()]
    return [root / path for path, probability, _ in sorted(rows) if float(probability) == 0.0]


def write_surfaces(root: Path, wanted: Surfaces, textures: list[Path]) -> dict[str, Box]:
    """Write the image folder with its groups.csv, as `trainer import folder` takes it.

    Returns:
        The box of each defect, by the path of its frame inside ``root``. Nothing in training may look at it.
    """
    order = np.random.default_rng([wanted.seed, 1])
    names = order.permutation(np.repeat(CLASSES, wanted.counts))
    sources = order.permutation(len(textures))
    boxes, groups = {}, []
    for i, name in enumerate(names):
        source = textures[sources[(i // FRAMES_PER_SOURCE) % len(textures)]]
        frame, box = frame_of(source, str(name), wanted, np.random.default_rng([wanted.seed, 2, i]))
        path = f"{name}/{i:05d}.png"
        (root / str(name)).mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(root / path), frame, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
            raise InputError(f"{root / path}: cannot be written")
        groups.append((path, source.stem))
        if box is not None:
            boxes[path] = box
    with (root / "groups.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "group"), *groups])
    return boxes


def frame_of(
    source: Path, kind: str, wanted: Surfaces, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], Box | None]:
    """One frame uint8 (height, width) of a class, and where its defect is."""
    picture = cv2.imread(str(source), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise InputError(f"{source}: not a picture; remove it from the textures")
    surface = lit(tiled(np.asarray(picture, np.float32), wanted.size, rng), rng)
    box = None
    if kind != "ok":
        box = place(wanted, rng)
        mark = scratch if kind == "scratch" else pits
        inside = surface[box.top : box.top + box.height, box.left : box.left + box.width]
        inside *= 1 - mark(box, rng) * np.float32(rng.uniform(*wanted.contrast))
    seen = cv2.GaussianBlur(surface, (0, 0), OPTICS_SIGMA)
    seen = seen + rng.normal(0, SENSOR_SIGMA, seen.shape)
    return np.clip(np.round(seen), 0, 255).astype(np.uint8), box


def tiled(texture: Picture, size: tuple[int, int], rng: np.random.Generator) -> Picture:
    """A texture enlarged, turned and mirrored to ``size``, from a random place on: no seams."""
    zoom = rng.uniform(1.2, 2.0)
    texture = np.rot90(texture, rng.integers(4))
    texture = np.asarray(cv2.resize(texture, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC), np.float32)
    pads = [(0, 0), (0, 0)]
    for axis in (0, 1):
        before = int(rng.integers(texture.shape[axis]))
        pads[axis] = (before, max(0, size[axis] - before))
    return np.pad(texture, pads, mode="symmetric")[: size[0], : size[1]]


def lit(surface: Picture, rng: np.random.Generator) -> Picture:
    """The surface at a mean grey level of 100 to 140 under a lamp that is brighter on one side and in one place."""
    height, width = surface.shape
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)[None]
    tilt_y, tilt_x, centre_y, centre_x = rng.uniform(-1, 1, 4)
    lamp = 1 + 0.12 * (tilt_y * y + tilt_x * x) - 0.08 * ((y - centre_y) ** 2 + (x - centre_x) ** 2)
    return np.asarray(surface * lamp * (rng.uniform(100, 140) / float(surface.mean())), np.float32)


def place(wanted: Surfaces, rng: np.random.Generator) -> Box:
    """A box of the wanted area, up to twice as long as wide, somewhere in the frame."""
    height, width = wanted.size
    ratio = 2.0 ** rng.uniform(-1, 1)
    area = wanted.share * height * width
    tall = min(round((area * ratio) ** 0.5), height - 2)
    wide = min(round(area / tall), width - 2)
    return Box(int(rng.integers(1, height - tall)), int(rng.integers(1, width - wide)), tall, wide)


def scratch(box: Box, rng: np.random.Generator) -> Picture:
    """Depth -0.4..1 of a scratch from edge to edge of its box: curved, 1 to 3 pixels wide, with a bright burr."""
    steps = np.linspace(0, 1, 200)[:, None]
    ends = np.array([[0.02, rng.uniform(0, 0.2)], rng.uniform(0.2, 0.8, 2), [0.98, rng.uniform(0.8, 1)]])
    if rng.random() < 0.5:
        ends[:, 1] = 1 - ends[:, 1]
    curve = (1 - steps) ** 2 * ends[0] + 2 * steps * (1 - steps) * ends[1] + steps**2 * ends[2]
    points = curve * np.array([box.width, box.height]) * FINE
    pressure = np.interp(np.linspace(0, 1, 200), np.linspace(0, 1, 7), rng.uniform(0.35, 1.0, 7))
    thick = rng.uniform(1.0, 3.0) * FINE
    dark, burr = (np.zeros((box.height * FINE, box.width * FINE), np.uint8) for _ in range(2))
    shift = np.array([thick, 0]) * rng.choice([-1, 1])
    for i in range(len(points) - 1):
        for canvas, offset, share in ((burr, shift, 0.5), (dark, np.zeros(2), 1.0)):
            a, b = (points[j] + offset for j in (i, i + 1))
            width = max(1, round(thick * share))
            cv2.line(canvas, _pixel(a), _pixel(b), round(255 * float(pressure[i])), width)
    small = (np.asarray(cv2.resize(c, (box.width, box.height), interpolation=cv2.INTER_AREA)) for c in (dark, burr))
    depth, bright = (np.asarray(c, np.float32) / 255 for c in small)
    return np.where(depth > 0, depth, -0.4 * bright).astype(np.float32)


def _pixel(point: NDArray[np.float64]) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def pits(box: Box, rng: np.random.Generator) -> Picture:
    """Depth -0.3..1 of three to seven round pits with raised rims, radius 3 to 7 pixels, two of them in far corners."""
    y, x = np.mgrid[: box.height, : box.width].astype(np.float32)
    depth = np.zeros((box.height, box.width), np.float32)
    for i in range(int(rng.integers(3, 8))):
        radius = float(rng.uniform(3, 7))
        far = 1.6 * radius
        share = (0.0, 0.0) if i == 0 else (1.0, 1.0) if i == 1 else rng.random(2)
        centre_y, centre_x = (far + s * max(0.0, n - 2 * far) for s, n in zip(share, depth.shape, strict=True))
        distance = np.hypot(y - centre_y, x - centre_x) / radius
        hollow = np.exp(-(distance**4)) - 0.3 * np.exp(-(((distance - 1.35) / 0.2) ** 2))
        depth = np.where(np.abs(hollow) > np.abs(depth), hollow, depth)
    return depth.astype(np.float32)
