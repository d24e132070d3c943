"""What a template itself marks as said by the assistant (`{% generation %}`)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tunesmith.templates.breaks import MARK_END, MARK_START

MARKS = re.compile(f"[{MARK_START}{MARK_END}]")
BLOCK = re.compile(r"{%-?\s*generation\s*-?%}")
END = re.compile(r"{%-?\s*endgeneration\s*-?%}")

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


def without_marks(source: str) -> str:
    """Rewrite a template for readers that know no such block; it renders the same text."""
    plain = BLOCK.sub(lambda tag: tag.group().replace("generation", "if true"), source)
    return END.sub(lambda tag: tag.group().replace("endgeneration", "endif"), plain)
