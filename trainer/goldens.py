"""Golden frames: pictures in the bundle whose scores every device must reproduce before it may judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.decision import DecisionRule
from calibration.errors import InputError
from calibration.images import ImageError, decode_image, read_image
from calibration.preprocess import Frame
from trainer.data.manifest import Dataset

COUNT = 16
MAX_BYTES = 48 * 2**20
"""All golden frames together; fewer are taken where frames are huge."""

LEAST = 4
MARGIN = 0.5
"""Distance from a threshold in units of logits that a golden keeps, so that a device whose kernels round another way
still comes to the same decision; twice the deviation of a logit that devices allow."""


@dataclass(frozen=True)
class GoldenMember:
    """A golden frame: its row in the fold, its label's name, and its PNG."""

    row: int
    label: str
    png: bytes


def choose(
    rules: Mapping[str, DecisionRule], logits: Mapping[str, NDArray[np.float32]], labels: NDArray[np.int64], count: int
) -> list[int]:
    """Rows of a fold that make good goldens, best first: clear cases of every class, then close ones of both kinds.

    Args:
        rules, logits: of each variant, by its name; logits float32 (n, classes). labels: int (n,).
    """
    distance = np.min([_distance(rule, logits[name]) for name, rule in rules.items()], axis=0)
    rule = next(iter(rules.values()))
    classes = [int(label) for label in np.unique(labels)]
    clear = {label: _sorted(np.flatnonzero(labels == label), -distance) for label in classes}
    safe = distance >= MARGIN
    kinds = [np.flatnonzero(safe & (labels == rule.ok_index)), np.flatnonzero(safe & (labels != rule.ok_index))]
    close = [_sorted(rows, distance) for rows in kinds]
    order = [rows[0] for rows in clear.values()]
    for i in range(max(map(len, [*clear.values(), *close]))):
        order.extend(rows[i] for rows in (*close, *clear.values()) if i < len(rows))
    unique = list(dict.fromkeys(order))
    return unique[: max(count, len(classes))]


def _sorted(rows: NDArray[np.int64], key: NDArray[np.float64]) -> list[int]:
    return [int(row) for row in rows[np.argsort(key[rows], kind="stable")]]


def _distance(rule: DecisionRule, logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Distance of each part from the nearer threshold, in units of logits (log odds times temperature)."""
    tiny = 1e-9
    p = np.clip(rule.defect_probability(logits), tiny, 1 - tiny)
    thresholds = np.clip([rule.ok_below, rule.defect_above], tiny, 1 - tiny)
    odds, limits = np.log(p / (1 - p)), np.log(thresholds / (1 - thresholds))
    return np.asarray(rule.temperature * np.abs(odds[:, None] - limits).min(axis=1))


def load(dataset: Dataset, paths: Sequence[str], labels: NDArray[np.int64], rows: Sequence[int]) -> list[GoldenMember]:
    """The original frames of these rows as lossless PNG, in order, until MAX_BYTES are reached.

    Raises:
        InputError: a frame cannot be read, or does not survive the round trip bit for bit.
    """
    members: list[GoldenMember] = []
    used = 0
    for row in rows:
        frame = frame_of(dataset, paths[row])
        done, encoded = cv2.imencode(".png", frame)
        png = encoded.tobytes() if done else b""
        used += len(png)
        if used > MAX_BYTES and len(members) >= LEAST:
            break
        if not done or not np.array_equal(decode_image(png, dataset.channels, paths[row]), frame):
            raise InputError(f"{paths[row]}: cannot be written as PNG without loss; remove it from the dataset")
        members.append(GoldenMember(row, dataset.classes[int(labels[row])], png))
    return members


def frame_of(dataset: Dataset, path: str) -> Frame:
    """An original frame of the dataset. Raises InputError where it cannot be read."""
    try:
        return read_image(dataset.root / path, dataset.channels)
    except ImageError as error:
        raise InputError(f"{error}; restore it, or import again to leave it out") from None
