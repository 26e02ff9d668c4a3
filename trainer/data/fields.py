"""The fields of a dataset's two text files: parsed strictly, each mistake named with file, line, field and remedy."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from calibration.errors import InputError
from trainer.data.names import class_name, is_safe

SOFT_TOLERANCE = 0.02
"""How far a soft label's written probabilities may miss a sum of 1: three times 0.33 is meant as a third each."""


def check_header(path: Path, header: list[str], columns: tuple[str, ...]) -> None:
    """Raise InputError unless the header is exactly `columns`, in this order."""
    for name in header:
        if name not in columns:
            raise InputError(f"{path}, line 1: unknown column {name!r}; expected {','.join(columns)}")
    for name in columns:
        if name not in header:
            raise InputError(f"{path}, line 1: column {name!r} is missing; expected {','.join(columns)}")
    if tuple(header) != columns:
        raise InputError(f"{path}, line 1: the columns are {','.join(header)}; expected {','.join(columns)}")


def soft_text(soft: tuple[float, ...] | None, classes: tuple[str, ...]) -> str:
    """`ok:0.67;defect:0.33`, with every digit that is needed to read the same numbers back; empty for None."""
    if soft is None:
        return ""
    return ";".join(f"{name}:{probability!r}" for name, probability in zip(classes, soft, strict=True))


def parse_soft(where: str, text: str, classes: tuple[str, ...]) -> tuple[float, ...] | None:
    """Inverse of `soft_text`; classes left out have probability 0. The sum is made exactly 1.

    Raises:
        InputError: no such class, given twice, no finite probability in 0..1, or a sum more than 0.02 from 1.
    """
    if not text:
        return None
    found: dict[str, float] = {}
    for part in text.split(";"):
        name, colon, number = part.rpartition(":")
        if not colon or name not in classes or name in found:
            raise InputError(f"{where}: {part!r} is not CLASS:PROBABILITY with each class of {list(classes)} once")
        try:
            found[name] = float(number)
        except ValueError:
            raise InputError(f"{where}: {number!r} is not a number; write e.g. {name}:0.67") from None
        if not (math.isfinite(found[name]) and 0.0 <= found[name] <= 1.0):
            raise InputError(f"{where}: the probability of {name!r} is {number}; it must lie in 0..1")
    total = math.fsum(found.values())
    if abs(total - 1.0) > SOFT_TOLERANCE:
        raise InputError(f"{where}: the probabilities sum to {total:.4g}; they must sum to 1")
    exact = abs(total - 1.0) < 1e-12  # dividing by 0.9999999999999999 would change what was written
    return tuple(found.get(name, 0.0) / (1.0 if exact else total) for name in classes)


def parse_settings(path: Path, version: int, fields: tuple[str, ...]) -> dict[str, Any]:
    """The values of dataset.json, checked, with ranges as tuples and without its version.

    Raises:
        InputError: no JSON object, another version, an unknown or missing field, or a value of the wrong kind.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); import the images again") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a JSON object; import the images again")
    if values.get("version") != version:
        raise InputError(
            f"{path}, version: {values.get('version')!r}; this program reads version {version}: "
            "import the images again, or use the program that wrote it"
        )
    del values["version"]
    for name in values:
        if name not in fields:
            raise InputError(f"{path}: unknown field {name!r}; expected {', '.join(fields)}")
    for name in fields:
        if name not in values:
            raise InputError(f"{path}: field {name!r} is missing; import the images again")
    return _checked(path, values)


def _checked(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    for name in ("name", "root", "ok_class", "ok_source", "licence"):
        if not isinstance(values[name], str) or not is_safe(values[name]):
            raise InputError(f"{path}, {name}: {values[name]!r} is no plain text")
    classes = values["classes"]
    if not isinstance(classes, list) or not all(isinstance(c, str) for c in classes):
        raise InputError(f"{path}, classes: expected a list of names")
    for name in classes:
        if class_name(name, f"{path}, classes") != name:
            raise InputError(f"{path}, classes: {name!r} holds ; : * / \\ or blanks; rename it")
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise InputError(f"{path}, classes: {classes}; at least two different names are needed")
    if values["ok_class"] not in classes:
        raise InputError(f"{path}, ok_class: {values['ok_class']!r} is none of the classes {classes}")
    if values["channels"] not in (1, 3) or isinstance(values["channels"], bool):
        raise InputError(f"{path}, channels: {values['channels']!r}; it must be 1 (grey) or 3 (colour)")
    if not isinstance(values["seed"], int) or isinstance(values["seed"], bool):
        raise InputError(f"{path}, seed: {values['seed']!r}; it must be a whole number")
    ranges = {
        "frame_heights": _range(path, "frame_heights", values["frame_heights"], whole=True),
        "frame_widths": _range(path, "frame_widths", values["frame_widths"], whole=True),
        "frame_aspects": _range(path, "frame_aspects", values["frame_aspects"], whole=False),
    }
    return {**values, **ranges, "classes": tuple(classes)}


def _range(path: Path, name: str, value: Any, whole: bool) -> tuple[Any, Any]:
    kinds = int if whole else int | float
    good = isinstance(value, list) and len(value) == 2 and not any(isinstance(v, bool) for v in value)
    if not (good and all(isinstance(v, kinds) and math.isfinite(v) for v in value) and 0 < value[0] <= value[1]):
        raise InputError(f"{path}, {name}: {value!r}; expected [least, most] of positive numbers")
    return value[0], value[1]
