"""What went wrong in a library, in one line for a person."""

from __future__ import annotations

from collections.abc import Sequence

MAX_CHARS = 300


def reason_of(problem: Exception) -> str:
    """Take the line of an error that says most: the first, with the next if it opens a list."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    if not lines:
        return type(problem).__name__
    if isinstance(problem, KeyError):
        return f"{lines[0]} is unknown or missing"
    said = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return said[:MAX_CHARS]


def few(names: Sequence[str]) -> str:
    """Name the first of several things and count the others."""
    others = len(names) - 1
    return f"{min(names)} and {others:,} more" if others else names[0]
