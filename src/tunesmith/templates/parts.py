"""Messages that show or play something: in parts, as templates of models that see take them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tunesmith.templates.breaks import PLACES

KINDS = {place: kind for kind, place in PLACES.items()}
PLACE = re.compile(f"([{''.join(PLACES.values())}])")

Part = tuple[str, str]
"""What precedes a text, nothing for the first; and the text."""


def part_at_places(text: str) -> list[Part]:
    """Part a text where something is shown: the kind of that, and the text after it."""
    first, *rest = PLACE.split(text)
    return [("", first), *((KINDS[at], after) for at, after in zip(*[iter(rest)] * 2, strict=True))]


def spell_places(text: str) -> str:
    """Write a text for a person, with words where something is shown."""
    return PLACE.sub(lambda at: f"<{KINDS[at[1]]}>", text)


def in_parts(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Write parts as templates take them; a text is there only if it is not empty."""
    found: list[dict[str, Any]] = []
    for kind, text in parts:
        found += [{"type": kind}] if kind else []
        found += [{"type": "text", "text": text}] if text else []
    return found or [{"type": "text", "text": ""}]
