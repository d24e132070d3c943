"""JSON values one after the other in a file of any size, held in memory one window at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from tunesmith.data.reading.json_value import MAX_ROW, TOO_LONG, Decoder, NotJSON
from tunesmith.data.rows import Place, Problem, Record

CHUNK = 1 << 20
NEARBY = 1 << 16
"""Characters in which the next row is looked for after what does not even begin as one."""
NEAR_END = 16
"""A fault within so many characters of the window's end may only mean that more is to come."""
KEPT = 200
"""Characters kept before the cursor, to know how a row's line starts."""
NOT_SPACE = re.compile(r"[^ \t\n\r]")
SEPARATOR = re.compile(r"[,\[\]{}\n]")
STRUCTURE = re.compile(r'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"?|[\[\]{}]')
"""A string, closed or up to the line's end, or a bracket; possessive, to take no memory."""


class Window:
    """The part of a text file in memory, and a cursor `at` that knows its line and column."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.text = ""
        self.at = 0
        self.ended = False
        self._line, self._column, self._counted = 1, 1, 0

    def grow(self) -> bool:
        """Read on, as much again as is waiting; return whether there was more."""
        self._forget()
        more = self._file.read(max(CHUNK, len(self.text)))
        self.ended = not more
        self.text += more
        return bool(more)

    def tidy(self) -> None:
        """Forget what was read once it is much: a decoder's errors count lines from the start."""
        if self.at > max(NEARBY, len(self.text) // 16):
            self._forget()

    def _forget(self) -> None:
        self._count_to(self.at)
        start = max(0, self.at - KEPT)
        self.text = self.text[start:]
        self.at = self._counted = self.at - start

    def place(self, path: Path, offset: int) -> Place:
        """Name the place of an offset at or after the cursor."""
        self._count_to(self.at)
        line = self._line + self.text.count("\n", self.at, offset)
        newline = self.text.rfind("\n", self.at, offset)
        column = offset - newline if newline >= 0 else self._column + offset - self.at
        return Place(str(path), line, column)

    def peek(self) -> str:
        """Move to the next character that is not space and return it, or nothing at the end."""
        while True:
            found = NOT_SPACE.search(self.text, self.at)
            self.at = found.start() if found else len(self.text)
            if found:
                return found.group()
            if not self.grow():
                return ""

    def _count_to(self, offset: int) -> None:
        lines = self.text.count("\n", self._counted, offset)
        if lines:
            self._line += lines
            self._column = offset - self.text.rfind("\n", self._counted, offset)
        else:
            self._column += offset - self._counted
        self._counted = offset


def read_values(file: TextIO, path: Path, *, closing: str) -> Iterator[Record | Problem]:
    """Read the objects of an array, or objects that stand one after the other.

    A row that is not JSON is reported and the next one looked for: by the line that starts like
    it, else by counting brackets. Where there is none, the rest of the file is one problem.

    Args:
        closing: the bracket that ends them, or nothing if they end with the file.
    """
    return _Values(file, path, closing).read()


class _Values:
    """Read values and remember what came last: start, comma, row, or lost after a bad row."""

    def __init__(self, file: TextIO, path: Path, closing: str) -> None:
        self._window = Window(file)
        self._path, self._closing = path, closing
        self._decoder = Decoder()
        self._last = "start"

    def read(self) -> Iterator[Record | Problem]:
        window = self._window
        if self._closing:
            window.peek()
            window.at += 1
        while (found := window.peek()) not in ("", self._closing):
            if found == ",":
                if self._last in ("start", "comma"):
                    yield self._problem("not valid JSON: a comma without a row before it")
                self._last = "comma"
                window.at += 1
                continue
            if self._last == "row" and self._closing and found == "{":
                yield self._problem("not valid JSON: no comma between this row and the last")
            yield self._read_row()
        yield from self._read_end(found)

    def _read_end(self, found: str) -> Iterator[Problem]:
        if found and self._last == "comma":
            yield self._problem("not valid JSON: a comma without a row after it")
        if self._closing and not found and self._last != "lost":
            yield self._problem("the file ends inside its array: it is cut off")
        elif found:
            self._window.at += 1
            if self._window.peek():
                yield self._problem("there is more text after the end of the array")

    def _problem(self, reason: str) -> Problem:
        return Problem(self._window.place(self._path, self._window.at), reason)

    def _read_row(self) -> Record | Problem:
        window = self._window
        window.tidy()
        try:
            value, end = self._decode()
        except NotJSON as fault:
            problem = Problem(window.place(self._path, fault.position), str(fault))
            self._skip_row()
            self._last = "lost"
            return problem
        self._last = "row"
        place = window.place(self._path, window.at)
        try:
            return Record(place, self._decoder.check(value, window.text, window.at, end))
        except NotJSON as fault:
            return Problem(window.place(self._path, fault.position), str(fault))
        finally:
            window.at = end

    def _decode(self) -> tuple[Any, int]:
        """Decode the value at the cursor, with as much of the file as it takes."""
        window = self._window
        while True:
            try:
                value, end = self._decoder.decode(window.text, window.at)
                if end < len(window.text) or window.ended or not window.grow():
                    return value, end
            except NotJSON as fault:
                unfinished = "unterminated string" in str(fault)
                near_end = fault.position >= len(window.text) - NEAR_END
                if not (unfinished or near_end):
                    raise
                if len(window.text) - window.at > MAX_ROW:
                    raise NotJSON(TOO_LONG, window.at) from None
                ahead = fault.position - window.at
                if window.ended or not window.grow():
                    cut_off = unfinished or not window.text[window.at + ahead :].strip()
                    reason = f"the file ends inside this row ({fault})" if cut_off else str(fault)
                    raise NotJSON(reason, window.at + ahead) from None

    def _skip_row(self) -> None:
        """Move to where the next row may start, or to the end of the file."""
        window = self._window
        line = window.text.rfind("\n", 0, window.at) + 1
        indent = window.text[line : window.at]
        sibling = "" if indent.strip(" \t") else f"\n{indent}{{"
        opened = window.text[window.at] in "[{"
        while (found := self._next_start(sibling, opened)) is None:
            if len(window.text) - window.at > MAX_ROW:
                window.at = len(window.text) - KEPT
            if window.ended or not window.grow():
                window.at = len(window.text)
                return
        window.at = found

    def _next_start(self, sibling: str, opened: bool) -> int | None:
        """Look for the next row behind the cursor; None asks for more of the file.

        Args:
            sibling: how a line starts that holds a row like this one; empty if lines tell nothing.
            opened: whether the bad row began with a bracket.
        """
        window = self._window
        text, start = window.text, window.at
        if sibling:
            found = text.find(sibling, start, len(text) if opened else start + NEARBY)
            if found >= 0:
                return found + len(sibling) - 1
            if not window.ended and len(text) - start < (CHUNK if opened else NEARBY):
                return None
        if opened:
            return _after_brackets(text, start)
        separator = SEPARATOR.search(text, start + 1)
        return separator.start() if separator else None


def _after_brackets(text: str, start: int) -> int | None:
    """Find where the brackets opened at `start` are closed again, if any are."""
    if text[start] not in "[{":
        return None
    depth = 0
    for found in STRUCTURE.finditer(text, start):
        bracket = found.group()
        if bracket[0] == '"':
            continue
        depth += 1 if bracket in "[{" else -1
        if depth == 0:
            return found.end()
    return None
