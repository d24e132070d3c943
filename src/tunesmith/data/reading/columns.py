"""Columnar files: parquet and arrow, a few hundred rows in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tunesmith.data.rows import Place, Problem, Record, RowFault, spell
from tunesmith.errors import DataError

BATCH = 256
UNREADABLE = (pa.ArrowException, ArithmeticError, KeyError, OSError, ValueError)


def read_parquet(path: Path, encoding: str = "auto") -> Iterator[Record | Problem]:
    """Read the rows of a parquet file; `encoding` is always UTF-8 there."""
    yield from _guarded(path, _parquet_batches(path))


def read_arrow(path: Path, encoding: str = "auto") -> Iterator[Record | Problem]:
    """Read the rows of an Arrow file or stream; `encoding` is always UTF-8 there."""
    yield from _guarded(path, _arrow_batches(path))


def _parquet_batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
        yield from file.iter_batches(batch_size=BATCH)


def _arrow_batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(str(path)) as file:
        try:
            reader: Iterable[pa.RecordBatch] = _file_batches(pa.ipc.open_file(file))
        except pa.ArrowInvalid:
            file.seek(0)
            reader = pa.ipc.open_stream(file)
        for batch in reader:
            for start in range(0, batch.num_rows, BATCH):
                yield batch.slice(start, BATCH)


def _file_batches(file: pa.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
    for number in range(file.num_record_batches):
        yield file.get_batch(number)


def _guarded(path: Path, batches: Iterator[pa.RecordBatch]) -> Iterator[Record | Problem]:
    """Name rows by their number; damage ends the file with one problem."""
    number = 0
    while True:
        try:
            batch = next(batches, None)
            names = batch.schema.names if batch is not None else []
        except UNREADABLE as problem:
            place = Place(str(path), number + 1)
            yield Problem(place, f"the file cannot be read from here: {_first_line(problem)}")
            return
        if batch is None:
            return
        _check_names(names, path)
        for row in _rows(batch):
            number += 1
            place = Place(str(path), number)
            yield Problem(place, str(row)) if isinstance(row, RowFault) else Record(place, row)


def _check_names(names: Sequence[str], path: Path) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(
            f"the file has the column `{spell(twice)}` twice",
            hint="rename one of them",
            where=str(path),
        )


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, object] | RowFault]:
    """Return the rows at once, or one by one where a value in them cannot be read.

    Arrow trusts what a file says of itself and reads outside of its memory where that is wrong, so
    everything is validated first.
    """
    try:
        batch.validate(full=True)
        yield from batch.to_pylist()
    except UNREADABLE:
        for at in range(batch.num_rows):
            yield _row(batch, at)


def _row(batch: pa.RecordBatch, at: int) -> dict[str, object] | RowFault:
    row: dict[str, object] = {}
    for name in batch.schema.names:
        try:
            value = batch[name].slice(at, 1)
            value.validate(full=True)
            row[name] = value[0].as_py()
        except UNREADABLE as problem:
            return RowFault(f"`{spell(name)}` cannot be read: {_first_line(problem)}")
    return row


def _first_line(problem: Exception) -> str:
    return spell((str(problem).strip().splitlines() or ["damaged"])[0], 200)
