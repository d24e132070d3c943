"""A text that comes in pieces, for parsers that are written as if they had it whole.

A parser is a generator: it yields None where it waits for more text, and parts of the answer as
soon as they are certain. What it decides depends on the text alone, never on how that was cut.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from typing import Any, TypeVar

from tunesmith.inference.parts import Part

T = TypeVar("T")
Reading = Generator[Part | None, None, T]
DEEPEST = 64
"""How far values may lie in each other; what is deeper is no call."""
PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")
WORDS = {"t": "true", "f": "false", "n": "null"}
SPACE = " \t\r\n"


class Broken(Exception):
    """The text is not what it began as."""


class Source:
    """The text so far, and how much of it was read.

    Attributes:
        ended: whether no more will come.
    """

    def __init__(self) -> None:
        self.text, self.at, self.ended = "", 0, False

    def peek(self) -> Reading[str]:
        """Return the next character, or nothing at the end."""
        while self.at >= len(self.text) and not self.ended:
            yield None
        return self.text[self.at : self.at + 1]

    def meets(self, wanted: str) -> Reading[bool]:
        """Go past a text if it is what comes next."""
        while True:
            seen = self.text[self.at : self.at + len(wanted)]
            if seen == wanted:
                self.at += len(wanted)
                return True
            if self.ended or not wanted.startswith(seen):
                return False
            yield None

    def expect(self, wanted: str) -> Reading[None]:
        """Go past a text that must come next."""
        if not (yield from self.meets(wanted)):
            raise Broken

    def skip_space(self) -> Reading[None]:
        """Go past blanks and line ends."""
        while (found := (yield from self.peek())) and found in SPACE:
            self.at += 1

    def up_to(self, *ends: str) -> Reading[str]:
        """Return what stands before the first of some texts, without going past that."""
        start, longest = self.at, max(map(len, ends))
        while True:
            places = [place for end in ends if (place := self.text.find(end, start)) >= 0]
            # an end found early may come behind another one that is not whole yet
            if places and (self.ended or min(places) + longest <= len(self.text)):
                self.at = min(places)
                return self.text[start : self.at]
            if self.ended:
                raise Broken
            yield None

    def read_string(self) -> Reading[str]:
        """Read a string of JSON; return what it spells."""
        start = self.at
        yield from self.expect('"')
        while (found := (yield from self.peek())) != '"':
            if plain := PLAIN.match(self.text, self.at):
                self.at = plain.end()
            elif found == "\\":
                yield from self._read_escape()
            else:
                raise Broken
        self.at += 1
        return str(json.loads(self.text[start : self.at]))

    def _read_escape(self) -> Reading[None]:
        self.at += 1
        kind = yield from self.peek()
        if not kind or kind not in '"\\/bfnrtu':
            raise Broken
        self.at += 1
        for _ in range(4 if kind == "u" else 0):
            digit = yield from self.peek()
            if not digit or digit not in "0123456789abcdefABCDEF":
                raise Broken
            self.at += 1

    def read_value(self, depth: int = 0) -> Reading[Any]:
        """Read a value of JSON; return its spelling."""
        start = self.at
        first = yield from self.peek()
        if depth > DEEPEST:
            raise Broken
        if first == '"':
            yield from self.read_string()
        elif first == "{":
            yield from self._read_many("}", depth, has_keys=True)
        elif first == "[":
            yield from self._read_many("]", depth, has_keys=False)
        elif first in WORDS and first:
            yield from self.expect(WORDS[first])
        else:
            yield from self._read_number()
        return self.text[start : self.at]

    def _read_number(self) -> Reading[None]:
        start = self.at
        while (digit := (yield from self.peek())) and digit in "+-.eE0123456789":
            self.at += 1
        if not NUMBER.fullmatch(self.text, start, self.at):
            raise Broken

    def _read_many(self, end: str, depth: int, *, has_keys: bool) -> Reading[None]:
        self.at += 1
        yield from self.skip_space()
        if (yield from self.meets(end)):
            return
        while True:
            yield from self.skip_space()
            if has_keys:
                yield from self.read_key()
            yield from self.read_value(depth + 1)
            yield from self.skip_space()
            if (yield from self.meets(end)):
                return
            yield from self.expect(",")

    def read_key(self) -> Reading[str]:
        """Read the key of an object and what stands before its value."""
        key = yield from self.read_string()
        yield from self.skip_space()
        yield from self.expect(":")
        yield from self.skip_space()
        return key
