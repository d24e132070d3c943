"""Rules in the dialect of Lark that llguidance reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SPACE = r"[ \t]{0,2}|\n[ \t]{0,40}"
"""Between the parts of JSON: without an end to it, a model may write blanks for ever."""
ANYTHING = "/(?s:.*)/"


@dataclass(frozen=True)
class Spacing:
    """How JSON may be spelled.

    Attributes:
        options: llguidance's.
        around: what may stand before and behind it.
    """

    options: Mapping[str, Any]
    around: str = ""


BOUNDED = Spacing({"whitespace_pattern": SPACE})
ONE_LINE = Spacing({"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "})
ANY = Spacing(
    {
        "whitespace_pattern": r"[ \t\r\n]*",
        "json_allowed_escapes": 'nrbtf\\"u',
        "json_allow_general_unicode_escapes": True,
    },
    r"/[ \t\r\n]*/",
)


class Rules:
    """The rules of a grammar.

    Args:
        specials: ids of special tokens, which no text spells, by what they are called.
    """

    def __init__(self, specials: Mapping[str, int], spacing: Spacing = BOUNDED) -> None:
        self._specials, self._spacing = specials, spacing
        spelled = sorted(specials, key=len, reverse=True)
        self._special = re.compile(f"({'|'.join(map(re.escape, spelled)) or '(?!)'})")
        self._lines: list[str] = []

    def add(self, name: str, body: str, *, ends_with: str = "") -> str:
        """Add a rule, or a terminal if its name is in capitals; return its name.

        Args:
            ends_with: a text; all before its first occurrence belongs to the rule.
        """
        attributes = f"[suffix={quote(ends_with)}]" if ends_with else ""
        self._lines.append(f"{name}{attributes}: {body}")
        return name

    def literal(self, text: str) -> str:
        """Spell a text of which special tokens may be a part."""
        pieces = self._special.split(text)
        spelled = [
            f"<[{self._specials[piece]}]>" if piece in self._specials else quote(piece)
            for piece in pieces
            if piece
        ]
        return " ".join(spelled)

    def is_special(self, text: str) -> bool:
        """Whether a text is one special token."""
        return text in self._specials

    def json_of(self, schema: Any) -> str:
        """Spell any JSON that a schema describes."""
        around = self._spacing.around
        read = json.dumps(with_options(schema, self._spacing), ensure_ascii=False)
        return f"{around} %json {read} {around}".strip()

    def up_to(self, name: str, mark: str, pattern: str = ANYTHING) -> str:
        """Add a rule for a text up to and with a mark."""
        if self._special.search(mark) is None:
            return self.add(name, pattern, ends_with=mark)
        terminal = self.add(f"{name.upper()}_BEFORE", pattern)
        return self.add(name, f"{terminal} {self.literal(mark)}")

    def text(self, start: str) -> str:
        """Return the grammar, which begins with a rule."""
        return "\n".join([f"start: {start}", *self._lines]) + "\n"


def quote(text: str) -> str:
    """Spell a text literally."""
    return json.dumps(text, ensure_ascii=False)


def with_options(schema: Any, spacing: Spacing = BOUNDED) -> Any:
    """Add to a schema how llguidance is to read it.

    `oneOf` is read as `anyOf` where a discriminator keeps the alternatives apart.
    """
    if not isinstance(schema, Mapping):
        return schema
    options = {**spacing.options, "coerce_one_of": _are_apart(schema)}
    return {**schema, "x-guidance": options}


def _are_apart(value: Any) -> bool:
    """Whether all alternatives of which one must hold are told apart by a field."""
    if isinstance(value, Mapping):
        fine = "oneOf" not in value or "discriminator" in value
        return fine and all(map(_are_apart, value.values()))
    return all(map(_are_apart, value)) if isinstance(value, list | tuple) else True
