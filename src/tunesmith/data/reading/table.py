"""Tables in text: csv and tsv, with a line of column names."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from tunesmith.data.reading.encoding import bad_byte_reason, find_bad_byte, open_text
from tunesmith.data.reading.json_lines import number_lines
from tunesmith.data.reading.json_value import MAX_ROW
from tunesmith.data.rows import Place, Problem, Record, RowFault, spell
from tunesmith.errors import DataError

DELIMITERS = ",\t;|"


def read_table(path: Path, encoding: str = "auto") -> Iterator[Record | Problem]:
    """Read rows under the names of the first line; an empty cell is an empty text.

    Raises:
        DataError: if the names are missing or one stands twice.
    """
    with open_text(path, encoding) as file:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else _guess_delimiter(file)
        csv.field_size_limit(MAX_ROW)
        lines = _Lines(file)
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        names = _read_names(rows, lines, path)
        yield from _read_rows(rows, lines, names, path)


class _Lines:
    """Lines of a file, counted; one over MAX_ROW characters is passed over with an error."""

    def __init__(self, file: TextIO) -> None:
        self._lines = number_lines(file)
        self.count = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.count, line = next(self._lines)
        if isinstance(line, RowFault):
            raise csv.Error(str(line))
        return line


def _guess_delimiter(file: TextIO) -> str:
    header = file.readline(MAX_ROW)
    file.seek(0)
    return max(DELIMITERS, key=header.count)


def _read_names(rows: Iterator[list[str]], lines: _Lines, path: Path) -> list[str]:
    """Read the first line that is not blank."""
    try:
        names = next((cells for cells in rows if cells), [])
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
    rows: Iterator[list[str]], lines: _Lines, names: list[str], path: Path
) -> Iterator[Record | Problem]:
    while True:
        place = Place(str(path), lines.count + 1, 1)
        try:
            cells = next(rows, None)
        except csv.Error as problem:
            yield Problem(place, f"not a row of a table: {_reason(problem)}")
            continue
        if cells is None:
            return
        if cells:
            yield _read_cells(cells, names, place)


def _reason(problem: csv.Error) -> str:
    if str(problem) == "unexpected end of data":
        return "a quoted cell is never closed"
    if "expected after" in str(problem):
        return "text goes on after the quote that closes a cell"
    return str(problem)


def _read_cells(cells: list[str], names: list[str], place: Place) -> Record | Problem:
    for name, cell in zip(names, cells, strict=False):
        bad = find_bad_byte(cell)
        if bad is not None:
            reason = f"`{spell(name)}`, character {bad.start() + 1}: {bad_byte_reason(bad)}"
            return Problem(place, reason)
    if len(cells) != len(names):
        return Problem(place, f"the row has {len(cells)} cells; the first line has {len(names)}")
    return Record(place, dict(zip(names, cells, strict=True)))
