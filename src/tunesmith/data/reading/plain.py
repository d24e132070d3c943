"""Plain text files: a text is a line, or a paragraph where the file is written in paragraphs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TextIO

from tunesmith.data.reading.encoding import bad_byte_reason, find_bad_byte, open_text
from tunesmith.data.rows import Place, Problem, Record

HEAD = 1 << 16
MAX_TEXT = 1 << 20
"""Characters of the longest text; what goes on beyond is the next text, so nothing is lost."""
PARAGRAPHS = 0.05
"""Share of blank lines from which a file counts as written in paragraphs."""

Piece = tuple[Place, str]


def read_plain(path: Path, encoding: str = "auto") -> Iterator[Record | Problem]:
    """Read texts; blank lines only separate.

    A file whose lines are wrapped, with blank lines between paragraphs, gives a text a paragraph;
    any other file a text a line.
    """
    with open_text(path, encoding) as file:
        wrapped = _is_wrapped(file.read(HEAD))
        file.seek(0)
        pieces = _pieces(file, path)
        for piece in _join(pieces) if wrapped else pieces:
            record = _record(piece)
            if record is not None:
                yield record


def _is_wrapped(head: str) -> bool:
    lines = [bool(line.strip()) for line in head.strip().split("\n")]
    blank = lines.count(False)
    goes_on = any(line and after for line, after in pairwise(lines))
    return goes_on and blank > 0 and blank >= PARAGRAPHS * len(lines)


def _pieces(file: TextIO, path: Path) -> Iterator[Piece]:
    """Read lines, blank ones too; a line over MAX_TEXT comes in pieces."""
    line, column = 1, 1
    while True:
        text = file.readline(MAX_TEXT)
        if not text:
            return
        yield Place(str(path), line, column), text
        if text.endswith("\n"):
            line, column = line + 1, 1
        else:
            column += len(text)


def _join(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Join the lines of each paragraph."""
    place: Place | None = None
    lines: list[str] = []
    length = 0
    for piece in pieces:
        blank = not piece[1].strip()
        if place is not None and (blank or length > MAX_TEXT):
            yield place, "".join(lines)
            place, lines, length = None, [], 0
        if not blank:
            place = place or piece[0]
            lines.append(piece[1])
            length += len(piece[1])
    if place is not None:
        yield place, "".join(lines)


def _record(piece: Piece) -> Record | Problem | None:
    place, text = piece
    if not text.strip():
        return None
    bad = find_bad_byte(text)
    if bad is None:
        return Record(place, {"text": text.rstrip("\n")})
    line = place.line + text.count("\n", 0, bad.start())
    newline = text.rfind("\n", 0, bad.start())
    column = bad.start() - newline if newline >= 0 else place.column + bad.start()
    return Problem(Place(place.path, line, column), bad_byte_reason(bad))
