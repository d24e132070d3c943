"""Keep special tokens that a person merely spells from being read as such."""

from __future__ import annotations

import re
from collections.abc import Iterable

BREAK = "\ufdd0"
"""Stands inside a spelled special token; the tokenizer is called on each side of it alone.

U+FDD0 to U+FDD5 are noncharacters, which Unicode keeps for a program's own use.
"""
MARK_START, MARK_END = "\ufdd1", "\ufdd2"
PLACES = {"image": "\ufdd3", "video": "\ufdd4", "audio": "\ufdd5"}
"""Each stands in a message's text where something is shown or heard."""
LAST = PLACES["audio"]
THINKING = ("<think>", "</think>")
"""Tokens that an assistant writes itself: an answer may spell them and mean them."""
RESERVED = re.compile(f"[{BREAK}-{LAST}]")


def has_reserved(text: str) -> bool:
    """Whether a text holds a character that we keep for ourselves."""
    return RESERVED.search(text) is not None


class Breaker:
    """Put a BREAK behind the first character of every special token that a text spells.

    Args:
        specials: spellings that the tokenizer reads as one token wherever they stand. Blank ones
            (runs of newlines are such tokens in some vocabularies) and single characters mean
            the same either way and are left alone.
        spare: spellings among them to leave whole.
    """

    def __init__(self, specials: Iterable[str], *, spare: Iterable[str] = ()) -> None:
        spared = set(spare)
        kept = {text for text in specials if len(text) > 1 and text.strip() and text not in spared}
        longest_first = sorted(kept, key=lambda text: (-len(text), text))
        spelled = "|".join(re.escape(text) for text in longest_first)
        self._pattern = re.compile(f"(?=(?:{spelled}))(.)", re.DOTALL) if spelled else None

    def __call__(self, text: str) -> str:
        """Return the text with its spelled special tokens broken."""
        return self._pattern.sub(rf"\1{BREAK}", text) if self._pattern else text
