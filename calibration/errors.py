"""Errors typed by what the caller does about them."""

from __future__ import annotations


class InputError(ValueError):
    """The user's input is unusable: say which file and field, and the remedy; exit code 2; nothing is changed.

    The message is shown to a person as it is, so it names the file, the field and what to do.
    """
