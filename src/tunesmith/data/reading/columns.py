"""Columnar files: parquet and arrow, a few hundred rows in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tunesmith.data.rows import Place, Problem, Record

BATCH = 256


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
            rows = batch.to_pylist() if batch is not None else None
        except (pa.ArrowException, OSError, UnicodeDecodeError, ValueError) as problem:
            first_line = (str(problem).strip().splitlines() or ["damaged"])[0]
            place = Place(str(path), number + 1)
            yield Problem(place, f"the file cannot be read from here: {first_line:.200}")
            return
        if rows is None:
            return
        for fields in rows:
            number += 1
            yield Record(Place(str(path), number), fields)
