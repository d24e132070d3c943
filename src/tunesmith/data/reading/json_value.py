"""Decode one JSON value, strictly, and say why it is not a row."""

from __future__ import annotations

import json
import re
from typing import Any

from tunesmith.data.reading.encoding import bad_byte_reason, find_bad_byte
from tunesmith.data.rows import RowFault, spell

MAX_ROW = 1 << 25
"""Characters of the longest row we hold in memory."""
TOO_LONG = f"the row is longer than {MAX_ROW:,} characters"
STRING_OR_CONSTANT = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|NaN|-?Infinity', re.DOTALL)
"""Possessive repeats (`*+`) keep no way back; else a long string takes 100 times its memory."""


class NotJSON(RowFault):
    """The text stops being JSON at `position` of the decoded string."""

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(reason)
        self.position = position


class Decoder:
    """Decode JSON values and keep what was wrong but readable: constants, repeated keys."""

    def __init__(self) -> None:
        self._repeated = ""
        self._constant = ""
        self._json = json.JSONDecoder(
            object_pairs_hook=self._read_pairs, parse_constant=self._read_constant
        )

    def decode(self, text: str, at: int) -> tuple[Any, int]:
        """Decode the value that starts at `at`; return it and where it ends.

        Raises:
            NotJSON: with the place where it stops being JSON.
        """
        self._repeated = self._constant = ""
        try:
            return self._json.raw_decode(text, at)
        except json.JSONDecodeError as problem:
            raise NotJSON(_reason(problem), problem.pos) from None
        except RecursionError:
            raise NotJSON("it is nested too deeply", at) from None
        except ValueError as problem:  # a number of thousands of digits
            raise NotJSON(f"a number in it cannot be read: {problem}", at) from None

    def check(self, value: Any, text: str, start: int, end: int) -> dict[str, object]:
        """Return the value just decoded if it is a sound object.

        Args:
            text: where `text[start:end]` is the value's spelling.

        Raises:
            NotJSON: with the place of the first thing wrong.
        """
        bad = None if text.isascii() else find_bad_byte(text[start:end])
        if bad is not None:
            raise NotJSON(bad_byte_reason(bad), start + bad.start())
        if self._constant:
            place = next(
                found.start()
                for found in STRING_OR_CONSTANT.finditer(text, start, end)
                if not found.group().startswith('"')
            )
            raise NotJSON(f"{self._constant} is no number that JSON allows", place)
        if not isinstance(value, dict):
            raise NotJSON("a row is an object, {...}; this is not", start)
        if self._repeated:
            raise NotJSON(f"the key `{spell(self._repeated)}` stands in it twice", start)
        return value

    def _read_pairs(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        value = dict(pairs)
        if len(value) != len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    self._repeated = key
                seen.add(key)
        return value

    def _read_constant(self, spelling: str) -> None:
        self._constant = self._constant or spelling


def _reason(problem: json.JSONDecodeError) -> str:
    bad = find_bad_byte(problem.doc[problem.pos : problem.pos + 1])
    if bad is not None:
        return bad_byte_reason(bad)
    plain = problem.msg[0].lower() + problem.msg[1:]
    return f"not valid JSON: {plain.removesuffix(' starting at')}"
