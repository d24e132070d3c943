"""Tables in text: csv and tsv, with a line of column names."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from tunesmith.data.reading.encoding import bad_byte_reason, find_bad_byte, open_text
from tunesmith.data.reading.json_value import MAX_ROW
from tunesmith.data.rows import Place, Problem, Record
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
        rows = csv.reader(file, delimiter=delimiter, strict=True)
        names = _read_names(rows, path)
        yield from _read_rows(rows, names, path)


def _guess_delimiter(file: TextIO) -> str:
    header = file.readline(MAX_ROW)
    file.seek(0)
    return max(DELIMITERS, key=header.count)


def _read_names(rows: Iterator[list[str]], path: Path) -> list[str]:
    try:
        names = next(rows, [])
    except (csv.Error, UnicodeDecodeError) as problem:
        raise DataError(
            f"the line of column names cannot be read: {problem}",
            hint="write the names of the columns in the first line",
            where=f"{path}:1:1",
        ) from None
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(
            f"the column `{twice}` stands twice in the first line",
            hint="rename one of them",
            where=f"{path}:1:1",
        )
    return names


def _read_rows(
    rows: csv._reader,  # type: ignore[name-defined]
    names: list[str],
    path: Path,
) -> Iterator[Record | Problem]:
    while True:
        place = Place(str(path), rows.line_num + 1, 1)
        try:
            cells = next(rows, None)
        except csv.Error as problem:
            yield Problem(place, f"not a row of a table: {problem}")
            continue
        except UnicodeDecodeError as problem:
            yield Problem(place, f"the file's last bytes are cut off: {problem.reason}")
            return
        if cells is None:
            return
        if cells:
            yield _read_cells(cells, names, place)


def _read_cells(cells: list[str], names: list[str], place: Place) -> Record | Problem:
    for name, cell in zip(names, cells, strict=False):
        bad = find_bad_byte(cell)
        if bad is not None:
            reason = f"`{name}`, character {bad.start() + 1}: {bad_byte_reason(bad)}"
            return Problem(place, reason)
    if len(cells) != len(names):
        return Problem(place, f"the row has {len(cells)} cells; the first line has {len(names)}")
    return Record(place, dict(zip(names, cells, strict=True)))
