"""docs/results.md, whose tables are made: each between two marks of its own."""

from __future__ import annotations

from pathlib import Path

PAGE = Path("docs/results.md")


def write_section(begin: str, text: str, end: str) -> None:
    """Put `text` between the marks `begin` and `end`, leaving everything else as it is."""
    head, rest = PAGE.read_text(encoding="utf-8").split(begin)
    tail = rest.split(end)[1]
    PAGE.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")
