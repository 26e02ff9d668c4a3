"""Judging a stored part again: same frame, same bundle, same place in a batch; every bit has to be the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from appliance.bundles import find_bundle
from appliance.config import Station, engine_settings
from appliance.engines.protocol import EngineError, load_engine, variant_of
from appliance.evidence import EvidenceError, frame_of
from appliance.paths import StationPaths
from appliance.ring import checksum
from calibration.errors import InputError
from calibration.preprocess import Frame, GeometryError
from deploy.bundle import Bundle


@dataclass(frozen=True)
class Replay:
    """One row judged again.

    Attributes:
        stored: the row's values.
        again: what came out now, by the same names; empty where the part could not be judged again.
        why: why it could not; else empty.
    """

    stored: dict[str, Any]
    again: dict[str, Any]
    why: str = ""

    @property
    def differences(self) -> list[str]:
        """Names of values that are not the same, bit for bit."""
        return [name for name, value in self.again.items() if value != self.stored[name]]

    @property
    def equal(self) -> bool:
        """Judged again, with the very same result."""
        return bool(self.again) and not self.differences


class _NotStored(Exception):  # noqa: N818  no error: an answer
    """The part cannot be judged again."""


def replay(station: Station, row: dict[str, Any]) -> Replay:
    """Judge one row of table verdict again, from its evidence."""
    try:
        if row["logits"] is None:
            raise _NotStored(f"the part was not judged: {row['reason']} {row['detail']}".rstrip())
        frame = frame_of(StationPaths.of(station.station.data).evidence, row)
        bundle = find_bundle(station.station.bundle, row["bundle"])
        if bundle is None:
            raise _NotStored(
                f"bundle {row['bundle'][:12]} is not on this device any more; set station.bundle to a copy"
            )
        return Replay(row, _judged(station, bundle, frame, row))
    except (_NotStored, EvidenceError) as reason:
        return Replay(row, {}, str(reason))


def _judged(station: Station, bundle: Bundle, frame: Frame, row: dict[str, Any]) -> dict[str, Any]:
    """The values that a judgement gives, for the part at its place in a batch of the same size."""
    variant = variant_of(station.engine.kind)
    try:
        tensor = bundle.manifest.preprocess.apply(frame)
        size = row["batch"] or 1
        engine = load_engine(engine_settings(station), bundle.model(variant), size=size)
        logits = engine.infer(np.repeat(tensor[None], size, axis=0))
    except (GeometryError, EngineError) as error:
        raise InputError(f"serial {row['serial']}: {error}") from None
    rule, position = bundle.variant(variant).rule, row["position"] or 0
    probability = float(rule.defect_probability(logits)[position])
    return {
        "crc": checksum(tensor),
        "logits": np.ascontiguousarray(logits[position], "<f4").tobytes(),
        "defect_probability": probability,
        "top_class": rule.classes[int(logits[position].argmax())],
        "decision": rule.decide_probability(probability).value,
    }
