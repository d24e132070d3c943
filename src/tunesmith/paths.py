"""Paths as people write them: `~`, names no file can have."""

from __future__ import annotations

from pathlib import Path


def expand(path: str | Path) -> Path:
    """Put the home folder in place of `~`; a path whose home cannot be found stays as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def last_part(name: str) -> str:
    """Return the last part of a name or a path: what others may know of it."""
    path = expand(name)
    return (path.resolve() if exists(path) else path).name or name


def exists(path: Path) -> bool:
    """Whether there is such a file; nothing has a name that is too long or holds a NUL."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
