"""station.toml: one station's configuration, as strict models. An unknown key is an error, never ignored.

Example::

    [station]
    name = "cell-line-1"
    data = "data"                  # directory of the database; relative to this file
    bundle = "root"                # a .lgb file, or a device root that `deploy push` filled

    [camera.top]
    source = "folder"
    path = "frames"
    fps = 20.0

    [batch]
    size = 8
    wait_ms = 0                    # an idle engine takes what is there; batches fill while it is busy
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from appliance.outputs.settings import NoOutput, OutputSection, absolute
from appliance.section import Section
from appliance.sources.settings import Camera
from appliance.sources.settings import absolute as absolute_camera
from calibration.errors import InputError
from deploy.manifest import Name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class StationSection(Section):
    """Who this station is and where its files lie."""

    name: Name = Field(description="shown on screens and written on every verdict row")
    data: Path = Field(description="directory of the database and of run-time files; made when missing")
    bundle: Path = Field(description="a .lgb file, or a device root filled by `deploy push`")
    lot: str = Field(
        default="", max_length=64, description="written on the row of every part whose trigger names no lot"
    )


class BatchSection(Section):
    """When a batch is sent to the engine: full, or as full as it is when the engine is idle and its oldest part has
    waited long enough."""

    size: int = Field(default=8, ge=1, le=256, description="at most; which size pays is measured at start")
    wait_ms: float = Field(
        default=0.0,
        ge=0,
        le=10_000,
        description="an idle engine waits so long for a batch to fill; 0 = it takes what is there, and batches fill "
        "while it is busy",
    )


class EngineSection(Section):
    """Which engine judges, and how many threads it may use."""

    kind: Literal["onnxruntime", "openvino", "onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt"] = Field(
        default="onnxruntime", description="`appliance doctor` says which of them this machine can use"
    )
    threads: int = Field(
        default=0,
        ge=0,
        le=64,
        description="batches judged at once, at most, each on a thread of its own; how many pay is measured at start; "
        "0 = at most 4 and no more than there are cores",
    )
    timeout_s: float = Field(default=10.0, gt=0, le=600, description="a batch that takes longer means a hung engine")


class CacheSection(Section):
    """Scores of recorded frames that come again, to the bit. Live cameras never use it: a picture that they repeat is
    STALE."""

    mib: int = Field(
        default=0, ge=0, le=100_000, description="memory for preprocessed frames and their scores; 0 = off"
    )


class TimingSection(Section):
    """Deadlines, on the monotonic clock."""

    deadline_ms: float = Field(
        default=1000.0, gt=0, le=600_000, description="trigger to verdict; later is REJECT(LATE)"
    )
    camera_timeout_s: float = Field(
        default=5.0, ge=1, le=600, description="a live camera's process that is silent for so long is started anew"
    )


class EvidenceSection(Section):
    """Which frames are kept as evidence, and how much disk they may take; shared out evenly among the cameras.

    A class with 0 MiB is off. Verdicts never wait for evidence: what cannot be stored in time is dropped and counted.
    """

    defect_mib: int = Field(default=0, ge=0, le=100_000_000, description="parts rejected as DEFECT")
    unsure_mib: int = Field(default=0, ge=0, le=100_000_000, description="UNSURE parts; kept until a person has judged")
    sample_mib: int = Field(
        default=0, ge=0, le=100_000_000, description="parts drawn for re-evaluation, see [reevaluation]"
    )
    other_mib: int = Field(default=0, ge=0, le=100_000_000, description="parts with a frame, rejected unjudged or late")
    per_second: float = Field(default=5.0, gt=0, le=1000, description="frames stored per second and camera, at most")


class DiskSection(Section):
    """What to do when the disk of station.data runs full."""

    warn_mib: int = Field(default=512, ge=0, description="less than this free: DEGRADED, and no evidence is stored")
    hold_mib: int = Field(default=64, ge=0, description="less than this free: HOLD; rejects still get their rows")


class RetentionSection(Section):
    """How long verdict rows stay. The audit, open alerts and rows that a person has judged are never removed."""

    days: int = Field(default=0, ge=0, le=36_500, description="older rows go, by the wall clock; 0 = of any age")
    max_mib: int = Field(default=16_384, ge=0, le=100_000_000, description="beyond it the oldest go; 0 = no limit")


class DriftSection(Section):
    """Drift of the predictions, and of each camera's brightness and sharpness, from what the bundle was made on or a
    person has accepted (`appliance drift accept`)."""

    window: int = Field(
        default=500, ge=20, le=1_000_000, description="parts per comparison; of frames, one in four is measured"
    )
    false_alarm: float = Field(
        default=0.001, gt=0, lt=0.5, description="probability of an alarm per window without drift"
    )
    hold_nats: float = Field(
        default=2.0, gt=0, description="predictions that diverge more hold the line until an operator has looked"
    )


class HoldSection(Section):
    """When the line is held because the inspection itself seems to be at fault."""

    rejects_in_row: int = Field(
        default=5, ge=1, le=100_000, description="so many parts of one camera in a row that nothing could judge"
    )


class ChallengeSection(Section):
    """How often the engine is asked about frames whose verdicts the bundle knows; a wrong answer holds the line."""

    every_parts: int = Field(default=0, ge=0, description="after so many parts at the latest; 0 = not by parts")
    every_minutes: float = Field(default=60.0, ge=0, le=10_000, description="so often at least; 0 = not by time")


class ReevaluationSection(Section):
    """How the model is held against people's judgement of parts drawn at random; needs `[evidence]
    sample_mib`."""

    passed_share: float = Field(default=0.01, ge=0, le=1, description="share of passed parts that a person shall judge")
    defect_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of DEFECT parts that a person shall judge; of UNSURE ones all",
    )
    days: int = Field(default=30, ge=1, le=3650, description="parts of so many days count, today's among them (UTC)")
    every_hours: float = Field(default=24.0, ge=0, le=10_000, description="how often; 0 = not by the daemon")
    false_alarm: float = Field(
        default=0.001, ge=0.0005, lt=0.5, description="probability with which a rate as stated still raises an alert"
    )


class TrialSection(Section):
    """How long a new bundle is on trial: until so many parts and so much time. Until then a failure goes back."""

    frames: int = Field(default=200, ge=0, le=1_000_000, description="parts that it has to judge")
    seconds: float = Field(default=60.0, ge=0, le=86_400, description="time that it has to judge for")
    late_share: float = Field(default=0.05, ge=0, le=1, description="share of `frames` that may be too late")


class Station(Section):
    """A whole station.toml, with all paths made absolute."""

    station: StationSection
    camera: dict[Name, Camera] = Field(min_length=1, max_length=16)
    batch: BatchSection = BatchSection()
    engine: EngineSection = EngineSection()
    cache: CacheSection = CacheSection()
    timing: TimingSection = TimingSection()
    output: OutputSection = NoOutput()
    drift: DriftSection = DriftSection()
    hold: HoldSection = HoldSection()
    challenge: ChallengeSection = ChallengeSection()
    reevaluation: ReevaluationSection = ReevaluationSection()
    trial: TrialSection = TrialSection()
    evidence: EvidenceSection = EvidenceSection()
    disk: DiskSection = DiskSection()
    retention: RetentionSection = RetentionSection()


def engine_settings(station: Station) -> dict[str, Any]:
    """What an engine is loaded with: its section, and where it may keep what it has built for this device."""
    return {**station.engine.model_dump(mode="json"), "plans": str(station.station.data / "plans")}


def load_station(path: Path) -> Station:
    """Read station.toml.

    Raises:
        InputError: missing, no TOML, unknown key, or a value out of bounds; the message names file and key.
    """
    try:
        raw: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; name the station's configuration with --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    try:
        station = Station.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(_explain(item) for item in error.errors())
        raise InputError(f"{path}: {problems}") from None
    return _absolute(station, path.resolve().parent)


def _explain(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"unknown key {where}; remove it or correct its spelling"
    return f"{where}: {item['msg']} (it is {item['input']!r})" if item["type"] != "missing" else f"{where} is missing"


def _absolute(station: Station, base: Path) -> Station:
    section = station.station
    section = section.model_copy(update={"data": base / section.data, "bundle": base / section.bundle})
    cameras = {name: absolute_camera(cam, base) for name, cam in station.camera.items()}
    output = absolute(station.output, base)
    return station.model_copy(update={"station": section, "camera": cameras, "output": output})
