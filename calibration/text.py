"""Text that is shown to people."""

from __future__ import annotations


def one_line(text: str) -> str:
    """`text` without line breaks and control characters: file names and manifests are not to steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
