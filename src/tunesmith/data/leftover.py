"""Tokens that an interrupted run has made already, taken up row by row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from tunesmith.data.rows import (
    Row,
)
from tunesmith.data.store import MAGIC_BYTES, SUMS_FILE, batch_sum, source_of, tokens_of
from tunesmith.data.tokens import TokenRow

Found = list[tuple[Row, TokenRow]]


class Leftover:
    """The rows of an unfinished store, in their order, as far as they are whole.

    A record batch counts only if its sum was written after it and is still its sum.

    Args:
        path: the unfinished file of rows.
        files: the files of the set, by number.
    """

    def __init__(self, path: Path, files: tuple[Path, ...]) -> None:
        self._files = files
        self._rows = self._read(path)
        self._next = next(self._rows, None)

    def take(self, row: Row) -> Found | None:
        """Return the tokens of a row, or None where it has to be tokenized.

        Rows must be asked for in the order they were written in; those that made no tokens then,
        as they were bad, are simply not here.
        """
        found: Found = []
        while self._next is not None and self._next[0].place == row.place:
            found.append(self._next)
            self._next = next(self._rows, None)
        if not found or self._next is None:  # the last one may lack rows that came after it
            return None
        return found

    def _read(self, path: Path) -> Iterator[tuple[Row, TokenRow]]:
        for batch in _whole_batches(path):
            for at in range(len(batch)):
                yield source_of(batch, at, self._files), tokens_of(batch, at)


def _whole_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Read batches up to the first that is torn, or whose sum is missing or another."""
    try:
        sums = path.with_name(SUMS_FILE).read_text("ascii").split()
        with pa.memory_map(str(path)) as file:
            file.seek(MAGIC_BYTES)
            with pa.ipc.open_stream(file) as reader:
                for expected, batch in zip(sums, reader, strict=False):
                    if batch_sum(batch) != expected:
                        return
                    yield batch
    except (OSError, ValueError, pa.ArrowException):
        return
