"""Write a file, read it, and tell rows from problems."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tunesmith.data.reading import read_records
from tunesmith.data.rows import Problem, Record


class Found(NamedTuple):
    """What a file gave: fields of the rows, their places, and problems without the folder."""

    rows: list[Mapping[str, object]]
    places: list[str]
    problems: list[str]


def write(path: Path, content: str | bytes) -> Path:
    """Write a file exactly as given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def read(path: Path, encoding: str = "auto") -> Found:
    """Read a file to its end."""
    found = list(read_records(path, encoding))
    rows = [record for record in found if isinstance(record, Record)]
    problems = [str(record) for record in found if isinstance(record, Problem)]
    return Found(
        [record.fields for record in rows],
        [str(record.place).removeprefix(f"{path.parent}/") for record in rows],
        [problem.removeprefix(f"{path.parent}/") for problem in problems],
    )
