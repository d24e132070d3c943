"""Files to records, streaming, with the place of everything that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from tunesmith.data.reading.columns import read_arrow, read_parquet
from tunesmith.data.reading.json_lines import read_json
from tunesmith.data.reading.plain import read_plain
from tunesmith.data.reading.table import read_table
from tunesmith.data.rows import Problem, Record
from tunesmith.errors import DataError

Reader = Callable[[Path, str], Iterator[Record | Problem]]

READERS: dict[str, Reader] = {
    ".json": read_json,
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".csv": read_table,
    ".tsv": read_table,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".txt": read_plain,
}

PACKED = (".zip", ".gz", ".tgz", ".tar", ".bz2", ".xz", ".zst", ".7z", ".rar")


def read_records(path: Path, encoding: str = "auto") -> Iterator[Record | Problem]:
    """Read a file of any known kind, row by row.

    Raises:
        DataError: if the file cannot be opened or its kind is not known.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"files of kind {path.suffix or '(no ending)'} are not read",
            hint=("unpack it, and " if path.suffix.lower() in PACKED else "")
            + f"use one of {', '.join(READERS)}",
            where=str(path),
        )
    try:
        yield from reader(path, encoding)
    except OSError as problem:
        raise DataError(
            f"the file cannot be read: {problem.strerror or problem}",
            hint="check the path and its permissions",
            where=str(path),
        ) from None


__all__ = ["READERS", "read_records"]
