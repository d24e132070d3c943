"""JSON files: one object a line, or one array of objects, whatever the file is called."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from tunesmith.data.reading.encoding import bad_byte_reason, find_bad_byte, open_text
from tunesmith.data.reading.json_array import read_values
from tunesmith.data.reading.json_value import MAX_ROW, TOO_LONG, Decoder, NotJSON
from tunesmith.data.rows import Place, Problem, Record, RowFault

SPACE = " \t\n\r"
HEAD = 1 << 16


def read_json(path: Path, encoding: str = "auto") -> Iterator[Record | Problem]:
    """Read a file of JSON objects.

    An array is read as one; objects over several lines, value after value; the rest line by line,
    where a bad line never hides the next one.
    """
    with open_text(path, encoding) as file:
        head = file.read(HEAD)
        first = head.lstrip(SPACE)[:1]
        file.seek(0)
        if first == "[":
            yield from read_values(file, path, closing="]")
        elif first == "{" and _goes_over_lines(head, path):
            yield from read_values(file, path, closing="")
        else:
            yield from read_lines(file, path)


def _goes_over_lines(head: str, path: Path) -> bool:
    """Whether the first object is written over several lines, which `.jsonl` files seldom are."""
    line, newline, _ = head.lstrip(SPACE).partition("\n")
    if line.strip(SPACE) == "{":
        return True
    if path.suffix.lower() != ".json" or (not newline and len(head) >= HEAD):
        return False
    try:
        _, end = Decoder().decode(line, 0)
    except RowFault:
        return True
    return bool(line[end:].strip(SPACE))


def read_lines(file: TextIO, path: Path) -> Iterator[Record | Problem]:
    """Read one object a line; blank lines are no rows."""
    decoder = Decoder()
    for number, line in number_lines(file):
        place = Place(str(path), number, 1)
        if isinstance(line, RowFault):
            yield Problem(place, str(line))
            continue
        text = line.strip(SPACE)
        if not text:
            continue
        indent = line.index(text[0])
        try:
            yield Record(Place(str(path), number, indent + 1), _decode_line(decoder, text))
        except NotJSON as fault:
            yield Problem(Place(str(path), number, indent + fault.position + 1), str(fault))


def number_lines(file: TextIO, limit: int = MAX_ROW) -> Iterator[tuple[int, str | RowFault]]:
    """Read lines with their numbers; one over `limit` characters gives a fault instead."""
    for number in itertools.count(1):
        line = file.readline(limit + 1)
        if not line:
            return
        if len(line) > limit and not line.endswith("\n"):
            while rest := file.readline(limit):
                if rest.endswith("\n"):
                    break
            yield number, RowFault(TOO_LONG)
        else:
            yield number, line


def _decode_line(decoder: Decoder, text: str) -> dict[str, object]:
    bad = find_bad_byte(text)
    if bad is not None:
        raise NotJSON(bad_byte_reason(bad), bad.start())
    value, end = decoder.decode(text, 0)
    fields = decoder.check(value, text, 0, end)
    if text[end:].strip(SPACE):
        after = end + len(text[end:]) - len(text[end:].lstrip(SPACE))
        raise NotJSON("more than one value on the line; a row has one", after)
    return fields
