"""Tables in text: csv and tsv, with a line of column names."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from tunesmith.data.reading.encoding import bad_byte_reason, find_bad_byte, open_text
from tunesmith.data.reading.json_lines import number_lines
from tunesmith.data.reading.json_value import MAX_ROW
from tunesmith.data.rows import Place, Problem, Record, RowFault, spell
from tunesmith.errors import DataError

DELIMITERS = ",\t;|"
SAID = re.compile(r"sep=(.)")
"""How spreadsheets name their delimiter, in a line before the names."""
MAX_LINES = 1 << 22
"""Lines of the longest row: they are held in memory, to be read again if it is none."""
SWALLOWED, MOSTLY = 5, 0.9
"""So many lines of a quoted cell, and such a share of them, look like rows by no chance."""


def read_table(path: Path, encoding: str = "auto") -> Iterator[Record | Problem]:
    """Read rows under the names of the first line; an empty cell is an empty text.

    What is no row is reported by its first line, and the next line read as a row again: a quote
    too many hides none of the others.

    Raises:
        DataError: if the names are missing or one stands twice.
    """
    with open_text(path, encoding) as file:
        lines = _Lines(file)
        delimiter = _find_delimiter(lines, path)
        csv.field_size_limit(MAX_ROW)
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        names = _read_names(rows, lines, path)
        yield from _read_rows(rows, lines, _Header(names, delimiter), path)


def read_nameless(
    path: Path, names: Sequence[str], encoding: str = "auto"
) -> Iterator[Record | Problem]:
    """Read rows of cells parted by commas from a file whose first line is a row already."""
    with open_text(path, encoding) as file:
        lines = _Lines(file)
        csv.field_size_limit(MAX_ROW)
        rows = csv.reader(lines, delimiter=",", strict=True)
        yield from _read_rows(rows, lines, _Header(list(names), ",", "it must have"), path)


@dataclass(frozen=True)
class _Header:
    names: list[str]
    delimiter: str
    told_by: str = "the first line has"


class _Lines:
    """Lines of a file, counted; one over MAX_ROW characters is passed over with an error.

    Attributes:
        count: number of the last line read.
        row: the lines read since `begin`, no more than MAX_LINES.
    """

    def __init__(self, file: TextIO) -> None:
        self._lines = number_lines(file)
        self._waiting: deque[str | RowFault] = deque()
        self.row: list[str | RowFault] = []
        self.count = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self.row) == MAX_LINES:
            raise csv.Error(f"a quoted cell goes over more than {MAX_LINES:,} lines")
        line = self._waiting.popleft() if self._waiting else next(self._lines)[1]
        self.count += 1
        self.row.append(line)
        if isinstance(line, RowFault):
            raise csv.Error(str(line))
        return line

    def begin(self) -> None:
        """Begin a row."""
        self.row = []

    def put_back(self, start: int) -> None:
        """Read again from a line of this row on."""
        again = self.row[start:]
        self._waiting.extendleft(reversed(again))
        self.count -= len(again)


def _find_delimiter(lines: _Lines, path: Path) -> str:
    """Tell the delimiter from the first line that is not blank."""
    try:
        first = next((line for line in lines if line.strip()), "")
    except csv.Error:
        first = ""
    said = SAID.fullmatch(first.rstrip("\n"))
    if said:
        return said[1]
    lines.put_back(-1)
    return "\t" if path.suffix.lower() == ".tsv" else max(DELIMITERS, key=first.count)


def _read_names(rows: Iterator[list[str]], lines: _Lines, path: Path) -> list[str]:
    """Read the first line that is not blank."""
    try:
        names = next((cells for cells in rows if "".join(cells).strip()), [])
    except csv.Error as problem:
        raise _bad_names(
            f"cannot be read: {_reason(problem)}",
            "write the names of the columns in it",
            lines,
            path,
        ) from None
    for name in names:
        bad = find_bad_byte(name)
        if bad is not None:
            raise _bad_names(
                f"holds a bad name: {bad_byte_reason(bad)}", "set data.encoding", lines, path
            )
        if name and names.count(name) > 1:
            raise _bad_names(
                f"has the name `{spell(name)}` twice", "rename one of them", lines, path
            )
    return names


def _bad_names(message: str, hint: str, lines: _Lines, path: Path) -> DataError:
    return DataError(
        f"the line of column names {message}", hint=hint, where=f"{path}:{lines.count}:1"
    )


def _read_rows(
    rows: Iterator[list[str]], lines: _Lines, header: _Header, path: Path
) -> Iterator[Record | Problem]:
    while True:
        lines.begin()
        place = Place(str(path), lines.count + 1, 1)
        try:
            cells = next(rows, None)
            fault = _fault(cells, header, lines) if cells else ""
        except csv.Error as problem:
            cells, fault = [], f"not a row of a table: {_reason(problem)}"
        if cells is None:
            return
        if fault:
            lines.put_back(1)
            yield Problem(place, fault)
        elif cells:
            yield _read_cells(cells, header.names, place)


def _fault(cells: list[str], header: _Header, lines: _Lines) -> str:
    """Say why cells are no row, if they are none."""
    width = len(header.names)
    if len(cells) != width:
        over = f"; a quoted cell of it goes over {len(lines.row)} lines" if lines.row[1:] else ""
        return f"the row has {len(cells)} cells; {header.told_by} {width}{over}"
    inner = [line for line in lines.row[1:-1] if isinstance(line, str)]
    alike = sum(line.count(header.delimiter) == width - 1 for line in inner)
    if width > 1 and alike >= SWALLOWED and alike >= MOSTLY * len(inner):
        return f"a quoted cell holds {alike} lines that look like rows; is a quote one too many?"
    return ""


def _reason(problem: csv.Error) -> str:
    if str(problem) == "unexpected end of data":
        return "a quoted cell is never closed"
    if "expected after" in str(problem):
        return "text goes on after the quote that closes a cell"
    return str(problem)


def _read_cells(cells: list[str], names: list[str], place: Place) -> Record | Problem:
    for name, cell in zip(names, cells, strict=True):
        bad = find_bad_byte(cell)
        if bad is not None:
            reason = f"`{spell(name)}`, character {bad.start() + 1}: {bad_byte_reason(bad)}"
            return Problem(place, reason)
    return Record(place, dict(zip(names, cells, strict=True)))
