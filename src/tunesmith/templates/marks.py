"""What a template itself marks as said by the assistant (`{% generation %}`)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tunesmith.templates.breaks import MARK_END, MARK_START

MARKS = re.compile(f"[{MARK_START}{MARK_END}]")
BLOCK = re.compile(r"{%-?\s*generation\s*-?%}")

Span = tuple[int, int]


@dataclass(frozen=True)
class Rendering:
    """A rendered text and the spans of it that generation marks enclose."""

    text: str
    marked: tuple[Span, ...]


def has_marks(source: str) -> bool:
    """Whether a template marks anything."""
    return BLOCK.search(source) is not None


def read_marks(text: str) -> Rendering:
    """Take the generation marks out of a rendered text."""
    spans: list[Span] = []
    parts: list[str] = []
    done = length = opened = 0
    for mark in MARKS.finditer(text):
        parts.append(text[done : mark.start()])
        length += len(parts[-1])
        done = mark.end()
        if mark.group() == MARK_START:
            opened = length
        elif length > opened:
            spans.append((opened, length))
    parts.append(text[done:])
    return Rendering("".join(parts), tuple(spans))
