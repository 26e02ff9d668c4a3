"""manifest.json of a bundle, as strict models: unknown fields, wrong types and numbers out of range are refused."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator, AllowInfNan, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from calibration.decision import DecisionRule
from calibration.preprocess import PreprocessSpec
from calibration.values import BINS, Interval


def printable(name: str) -> str:
    """A name fit for screens and logs: 1 to 64 characters, none of them control, format or private-use.

    Raises:
        ValueError: otherwise. Terminals obey escape sequences inside names.
    """
    if not 1 <= len(name) <= 64 or any(unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs", "Cn") for c in name):
        raise ValueError(f"name {name!r} must have 1 to 64 printable characters")
    return name


Name = Annotated[str, AfterValidator(printable)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0, le=1), AllowInfNan(False)]
Finite = Annotated[float, AllowInfNan(False)]


class Strict(BaseModel):
    """Base of all models here: frozen, no unknown fields, no silent conversions."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class Parity(Strict):
    """An INT8 variant against FP32 on the validation fold.

    agreement: share of equal decisions between PASS and REJECT at the FP32 threshold.
    mean_deviation, max_deviation: of the calibrated defect probability, in 0..1.
    paired_escapes: defects that FP32 rejects and INT8 passes; paired_catches the other way round.
    """

    parts: int = Field(ge=1)
    defects: int = Field(ge=0)
    agreement: Share
    mean_deviation: Share
    max_deviation: Share
    paired_escapes: int = Field(ge=0)
    paired_catches: int = Field(ge=0)


class Baseline(Strict):
    """Reference of a drift monitor: histogram of a quantity in 0..1 on the validation fold.

    counts: parts per equal-width bin over [0, 1] (calibration.histogram.BINS of them).
    """

    counts: tuple[int, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Baseline:
        if min(self.counts) < 0 or sum(self.counts) < 1 or len(self.counts) != BINS:
            raise ValueError(f"counts must be {BINS} numbers >= 0 and not all zero")
        return self


class AppearanceBaseline(Strict):
    """How the preprocessed frames of the validation fold were taken, as calibration.appearance measures it."""

    brightness: Baseline
    sharpness: Baseline


class EscapeBound(Strict):
    """The bound on the escape rate that a rule was released with, as calibration.conformal.EscapeBound states it.

    alpha: in mean over calibration sets and parts, a defect escapes with at most this probability.
    defects: of the validation fold that it rests on; groups where several images show one part.
    threshold: the largest defect probability up to which parts may pass.
    """

    alpha: float = Field(gt=0, lt=1)
    method: Literal["conformal risk control"]
    defects: int = Field(ge=1)
    threshold: Share


class Variant(Strict):
    """One exported model with all that was fitted on its own scores.

    baseline: of the defect probability.
    escape_bound: None where the thresholds were chosen by cost alone.
    """

    model: Literal["model.cpu.onnx", "model.trt.onnx"]
    rule: DecisionRule
    parity: Parity
    baseline: Baseline
    escape_bound: EscapeBound | None = None

    @model_validator(mode="after")
    def _check(self) -> Variant:
        if self.escape_bound and self.rule.ok_below > self.escape_bound.threshold:
            raise ValueError(
                f"rule: ok_below is {self.rule.ok_below}, above the {self.escape_bound.threshold} of its escape_bound"
            )
        return self


class Golden(Strict):
    """One golden frame: its file in the bundle, the part's label, expected logits per variant."""

    frame: str = Field(pattern=r"^golden/\d{3}\.png$")
    label: str
    logits: dict[str, tuple[Finite, ...]]


class Provenance(Strict):
    """Where the bundle comes from: enough to make it again."""

    dataset: str
    dataset_sha256: Sha256
    code_revision: str
    seed: int
    recipe: str
    versions: dict[str, str]
    input_size_reason: str


class Manifest(Strict):
    """All that is known of a bundle.

    views: mirrored views of a part that its models average over, in one pass.
    metrics: held-out figures with their intervals, by name; rates are shares in 0..1.
    files: SHA-256 of every other member, by name.
    """

    schema_version: Literal[1] = 1
    name: Name
    created: AwareDatetime
    classes: tuple[Name, ...] = Field(min_length=2)
    ok_class: str
    preprocess: PreprocessSpec
    appearance: AppearanceBaseline
    max_batch: int = Field(ge=1, le=256)
    views: int = Field(default=1, ge=1, le=16)
    variants: dict[str, Variant] = Field(min_length=1)
    metrics: dict[str, Interval]
    provenance: Provenance
    files: dict[str, Sha256] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Manifest:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: a name occurs twice")
        if self.ok_class not in self.classes:
            raise ValueError(f"ok_class {self.ok_class!r} is none of the classes")
        for name, variant in self.variants.items():
            if variant.model != f"model.{name}.onnx":
                raise ValueError(f"variants: {name!r} names {variant.model}; known variants are cpu and trt")
        return self
