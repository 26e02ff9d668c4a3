"""Names that come from a file system or a table: safe to print, to store and to put in a bundle."""

from __future__ import annotations

import unicodedata

from calibration.errors import InputError

MAX_NAME = 64
"""Most characters of a class name."""

UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that never belong in a name: control (ESC!), format, surrogate, private, separators."""

RESERVED = str.maketrans({";": "_", ":": "_", "*": "_", "/": "_", "\\": "_"})
"""Characters that mean something in a soft label or a score file."""


def is_safe(text: str) -> bool:
    """Whether every character can be printed on a terminal and written as UTF-8."""
    return not any(unicodedata.category(character) in UNSAFE for character in text)


def printable(text: str) -> str:
    """`text` with each unsafe character written as its code point, e.g. `\\u001b`: for messages about it."""
    return "".join(
        f"\\u{ord(character):04x}" if unicodedata.category(character) in UNSAFE else character for character in text
    )


def class_name(raw: str, where: str) -> str:
    """A class name as it is stored: Unicode NFC, no blanks around it, reserved characters made underscores.

    Args:
        raw: the name as found, e.g. of a folder.
        where: what to call its place in an error message.

    Raises:
        InputError: empty, longer than 64 characters, or with characters that cannot be shown.
    """
    name = unicodedata.normalize("NFC", raw).strip().translate(RESERVED)
    if not name or not is_safe(name):
        raise InputError(f"{where}: class name {raw!r} is empty or holds control characters; rename it")
    if len(name) > MAX_NAME:
        raise InputError(f"{where}: class name {name[:20]!r}... has {len(name)} characters; use at most {MAX_NAME}")
    return name


def listed(names: list[str], most: int = 10) -> str:
    """The first names, printable, and how many more there are."""
    shown = ", ".join(printable(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
