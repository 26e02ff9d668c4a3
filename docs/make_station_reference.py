"""docs/station.md: every key of station.toml, from the models that read it.

python docs/make_station_reference.py
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from appliance.config import Station
from appliance.section import Section

PAGE = Path(__file__).with_name("station.md")

HEAD = """# station.toml
Every key of a station's configuration. Paths are relative to the file. An unknown key is refused by name, as is a value
out of its range; `appliance doctor --config station.toml` looks at what it names. Made by
`python docs/make_station_reference.py`.
"""

BOUNDS = {"ge": ">= {}", "gt": "> {}", "le": "<= {}", "lt": "< {}", "max_length": "at most {} characters"}


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for name, field in Station.model_fields.items():
        models = sections(field.annotation)
        title = f"[{name}.NAME]" if name == "camera" else f"[{name}]"
        if len(models) == 1:
            parts.append(section(f"## {title}", models[0]))
            continue
        parts.append(f"## {title}\n")
        for model in models:
            kind = next(key for key in ("source", "kind") if key in model.model_fields)
            (chosen,) = get_args(model.model_fields[kind].annotation)
            parts.append(section(f'### `{kind} = "{chosen}"`', model))
    return "\n".join(parts)


def sections(annotation: Any) -> list[type[Section]]:
    """The models that a key of a station takes: one, or several to choose from."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [model for part in get_args(annotation) for model in sections(part)]


def section(title: str, model: type[Section]) -> str:
    """A heading, what the section is for, and a table of the keys that leave something to choose."""
    lines = [title, " ".join(inspect.getdoc(model).split()) if model.__doc__ else "", ""]
    fields = {
        name: field
        for name, field in model.model_fields.items()
        if field.annotation not in (None, type(None)) and len(get_args(field.annotation)) != 1
    }
    if fields:
        lines += ["| key | default | values | |", "|---|---|---|---|"]
    for name, field in fields.items():
        cells = (f"`{name}`", default(field), values(field), (field.description or "").replace("|", "\\|"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def default(field: FieldInfo) -> str:
    """As it would be written in the file."""
    if field.default is PydanticUndefined:
        return "needed"
    if field.default is None:
        return ""
    value = str(field.default) if isinstance(field.default, Path) else field.default
    return f"`{json.dumps(value)}`"


def values(field: FieldInfo) -> str:
    """Type and range of a key."""
    kind = field.annotation
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (part for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is Literal:
        return ", ".join(f"`{json.dumps(value)}`" for value in get_args(kind))
    names = {bool: "true, false", int: "whole number", float: "number", str: "text", Path: "path"}
    bounds = [
        text.format(getattr(limit, bound))
        for bound, text in BOUNDS.items()
        for limit in field.metadata
        if getattr(limit, bound, None) is not None
    ]
    return ", ".join([names.get(kind, "text"), *bounds])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
