"""Read one row that shows something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.tiny import write_rows
from tunesmith.data.meaning import find_meaning, read_set
from tunesmith.data.rows import Conversation, Problem
from tunesmith.data.sources import RowSet

ANSWER = {"role": "assistant", "content": "red"}


def read(folder: Path, row: dict[str, Any], **options: Any) -> Conversation | str:
    """Return a row as it was read, or what is wrong with it."""
    path = write_rows(folder / "rows.jsonl", [row])
    rows = RowSet(path.name, (path,), **options)
    (found,) = read_set(rows, find_meaning(rows, "auto"), "auto", None)
    if isinstance(found, Problem):
        assert str(found).startswith(f"{path}:1:1: ")
        return found.reason
    assert isinstance(found, Conversation)
    return found


def asked(*parts: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}, ANSWER]}
