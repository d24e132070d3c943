"""Plain text, for pretraining."""

from __future__ import annotations

from tunesmith.data.formats.format import Fields, Format, Names, read_text
from tunesmith.data.rows import RowFault


def _matches(fields: Fields, tags: Names) -> bool:
    return "text" in fields


def _read(fields: Fields, tags: Names) -> str:
    text = read_text(fields, "text")
    if not text.strip():
        raise RowFault("the text is empty")
    return text


TEXT = Format(
    name="text",
    kind="text",
    columns={"text": "text"},
    tags={},
    matches=_matches,
    read=_read,
)
