"""Stores that promise more than they keep: each must be found by the checks that the real one passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Rewrite = Callable[[str], Sequence[str]]
"""What is run in place of a statement."""


def as_it_is(statement: str) -> Sequence[str]:
    """No mutant."""
    return (statement,)


def _instead(old: str, new: str) -> Callable[[], Rewrite]:
    return lambda: lambda statement: (new if statement == old else statement,)


def _commit_later() -> Rewrite:
    """Says that it has committed, and does so with the next transaction."""
    owed = []

    def rewrite(statement: str) -> Sequence[str]:
        if statement == "COMMIT":
            owed.append(statement)
            return ()
        if statement == "BEGIN IMMEDIATE" and owed:
            owed.clear()
            return ("COMMIT", statement)
        return (statement,)

    return rewrite


MUTANTS: dict[str, Callable[[], Rewrite]] = {
    "synchronous OFF": _instead("PRAGMA synchronous = FULL", "PRAGMA synchronous = OFF"),
    "synchronous NORMAL": _instead("PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"),
    "journal in memory": _instead("PRAGMA journal_mode = WAL", "PRAGMA journal_mode = MEMORY"),
    "no journal": _instead("PRAGMA journal_mode = WAL", "PRAGMA journal_mode = OFF"),
    "acknowledged before the commit": _commit_later,
}
