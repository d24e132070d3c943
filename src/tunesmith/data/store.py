"""Token rows on disk, memory-mapped: one Arrow file a set, and a manifest that seals it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from tunesmith.data.rows import (
    Call,
    Conversation,
    Judged,
    Labelled,
    LabelledImage,
    Medium,
    Message,
    Place,
    Preference,
    Prompt,
    Text,
)
from tunesmith.data.tokens import TokenRow

ROWS_FILE, MANIFEST_FILE, SUMS_FILE = "rows.arrow", "manifest.json", "sums.txt"
MAGIC_BYTES = 8
"""What an Arrow file begins with; after it come record batches as in a stream."""
BATCH = 512
"""Rows of each record batch but the last, so that a row is found by division."""
SCHEMA = pa.schema(
    [
        ("ids", pa.list_(pa.int32())),
        ("learned", pa.list_(pa.int32())),
        ("answers", pa.list_(pa.int32())),
        ("content", pa.large_binary()),
        ("file", pa.int32()),
        ("line", pa.int64()),
        ("column", pa.int64()),
        ("unit", pa.int64()),
        ("cut", pa.uint8()),
        ("digest", pa.uint64()),
        ("good", pa.int8()),
        ("weights", pa.list_(pa.float32())),
    ]
)
UNJUDGED = -1
Ints = npt.NDArray[np.int64]


class StoreWriter:
    """Write rows in the order given."""

    def __init__(self, path: Path) -> None:
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._file, SCHEMA)
        self._sums = path.with_name(SUMS_FILE).open("w", encoding="ascii")
        self._columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}

    def add(self, row: TokenRow, source: Conversation | Text, file: int, unit: int) -> None:
        """Append a row.

        Args:
            source: the row as read.
            file: number of its file in the set.
            unit: number of the conversation or text it comes from; rows of one unit are never
                parted between training and validation.
        """
        content = _dump(source)
        # the same image under two names is the same row
        same = source.sha256.encode() if isinstance(source, LabelledImage) else content
        digest = hashlib.blake2b(same, digest_size=8).digest()
        values = {
            "ids": row.ids,
            "learned": [edge for span in row.learned for edge in span],
            "answers": row.answers or (),
            "content": content,
            "file": file,
            "line": source.place.line,
            "column": source.place.column,
            "unit": unit,
            "cut": row.was_cut,
            "digest": int.from_bytes(digest, "little"),
            "good": int(source.good) if isinstance(source, Judged) else UNJUDGED,
            "weights": row.weights,
        }
        for name, value in values.items():
            self._columns[name].append(value)
        if len(self._columns["ids"]) == BATCH:
            self._flush()

    def close(self) -> None:
        """Write what is waiting and the footer."""
        if self._columns["ids"]:
            self._flush()
        self._writer.close()
        self._file.close()
        self._sums.close()

    def _flush(self) -> None:
        arrays = [_as_array(self._columns[field.name], field.type) for field in SCHEMA]
        batch = pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)
        self._writer.write_batch(batch)
        print(batch_sum(batch), file=self._sums, flush=True)
        self._columns = {name: [] for name in SCHEMA.names}


def batch_sum(batch: pa.RecordBatch) -> str:
    """Hash what a record batch holds."""
    digest = hashlib.blake2b(digest_size=16)
    for column in batch.columns:
        for buffer in column.buffers():
            if buffer is not None:
                digest.update(buffer)
    return digest.hexdigest()


def as_numpy(array: pa.Array) -> npt.NDArray[Any]:
    """View numbers without a copy; pyarrow's own way imports pandas."""
    kind = array.type.to_pandas_dtype()
    return np.frombuffer(array.buffers()[1], kind, len(array), array.offset * kind().itemsize)


def _as_array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Write a column by its buffers; pyarrow's own way takes longer and imports pandas."""
    nested = pa.types.is_list(kind) or pa.types.is_large_binary(kind)
    if not nested:
        flat = np.array(values, kind.to_pandas_dtype())
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(flat)])
    edges = np.zeros(len(values) + 1, np.int32 if pa.types.is_list(kind) else np.int64)
    np.cumsum([len(value) for value in values], out=edges[1:])
    if pa.types.is_large_binary(kind):
        buffers = [None, pa.py_buffer(edges), pa.py_buffer(b"".join(values))]
        return pa.Array.from_buffers(kind, len(values), buffers)
    number = kind.value_type.to_pandas_dtype()
    inner = np.fromiter(chain.from_iterable(values), number, int(edges[-1]))
    child = pa.Array.from_buffers(kind.value_type, len(inner), [None, pa.py_buffer(inner)])
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(edges)], children=[child])


@contextmanager
def write_store(path: Path) -> Iterator[StoreWriter]:
    """Open a writer and close it, whatever happens."""
    writer = StoreWriter(path)
    try:
        yield writer
    finally:
        writer.close()


class Store:
    """Rows of tokens in a memory-mapped file.

    Attributes:
        lengths: tokens of each row, [rows].
        num_learned: learned tokens of each row, [rows].
        reaches: tokens that the last one sees, itself included, [rows].
        units: number of the conversation or text of each row, ascending, [rows].
        digests: 64 bits of hash of each row as read, [rows].
        good: 1 or 0 for an answer judged good or bad, UNJUDGED for others, [rows].
    """

    def __init__(self, folder: Path, files: tuple[Path, ...]) -> None:
        self.folder, self.files = folder, files
        self._reader = pa.ipc.open_file(pa.memory_map(str(folder / ROWS_FILE)))
        parts = [self._measure(batch) for batch in self._batches()]
        columns = zip(*parts, strict=True) if parts else ([np.zeros(0, np.int64)] for _ in range(6))
        self.lengths, self.num_learned, self.reaches, self.units, digests, self.good = map(
            np.concatenate, columns
        )
        self.digests = digests.astype(np.uint64)

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.lengths)

    def __reduce__(self) -> tuple[type[Store], tuple[Path, tuple[Path, ...]]]:
        """Open the file anew in another process."""
        return Store, (self.folder, self.files)

    def ids(self, row: int) -> Ints:
        """Return the token ids of a row, [seq]."""
        return self._values("ids", row)

    def learned(self, row: int) -> list[tuple[int, int]]:
        """Return the spans of tokens that are learned."""
        return _spans(self._values("learned", row))

    def answers(self, row: int) -> list[int]:
        """Return where each of two answers begins; nothing for other rows."""
        starts: list[int] = self._values("answers", row).tolist()
        return starts

    def weights(self, row: int) -> list[float]:
        """Return how much each learned span counts; nothing where all count 1."""
        weights: list[float] = self._values("weights", row).tolist()
        return weights

    def source(self, row: int) -> Conversation | Text:
        """Return a row as it was read."""
        batch, at = self._find(row)
        return source_of(batch, at, self.files)

    def _values(self, name: str, row: int) -> Ints:
        batch, at = self._find(row)
        values: Ints = as_numpy(batch[name][at].values)
        return values

    def _find(self, row: int) -> tuple[pa.RecordBatch, int]:
        return self._reader.get_batch(row // BATCH), row % BATCH

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for number in range(self._reader.num_record_batches):
            yield self._reader.get_batch(number)

    @staticmethod
    def _measure(batch: pa.RecordBatch) -> tuple[Any, ...]:
        lengths = np.diff(as_numpy(batch["ids"].offsets))
        offsets = as_numpy(batch["learned"].offsets)
        edges = as_numpy(batch["learned"].values).reshape(-1, 2)
        sums = np.concatenate([[0], np.cumsum(edges[:, 1] - edges[:, 0])])
        num_learned = np.diff(sums[offsets // 2])
        reaches = lengths.copy()
        paired = np.diff(as_numpy(batch["answers"].offsets)) > 0
        first, second = as_numpy(batch["answers"].values).reshape(-1, 2).T
        reaches[paired] = np.maximum(second, lengths[paired] - (second - first))
        rest = [as_numpy(batch[name]) for name in ("unit", "digest", "good")]
        return lengths, num_learned, reaches, *rest


def source_of(batch: pa.RecordBatch, at: int, files: Sequence[Path]) -> Conversation | Text:
    """Return a row of a record batch as it was read."""
    file, line, column = (int(batch[name][at].as_py()) for name in ("file", "line", "column"))
    return _load(batch["content"][at].as_py(), Place(str(files[file]), line, column))


def tokens_of(batch: pa.RecordBatch, at: int) -> TokenRow:
    """Return the tokens of a row of a record batch."""
    ids, learned, answers, weights = (
        as_numpy(batch[name][at].values) for name in ("ids", "learned", "answers", "weights")
    )
    begin = (int(answers[0]), int(answers[1])) if len(answers) else None
    was_cut = bool(batch["cut"][at].as_py())
    return TokenRow(ids.tolist(), _spans(learned), begin, was_cut, weights.tolist())


def _spans(edges: Ints) -> list[tuple[int, int]]:
    numbers = edges.tolist()
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def seal_store(folder: Path, content: dict[str, Any]) -> None:
    """Write the manifest: what was counted, size and hash of the rows, and a hash of it all."""
    rows = folder / ROWS_FILE
    sealed = {**content, "size": rows.stat().st_size, "sha256": _sha256(rows)}
    with (folder / MANIFEST_FILE).open("w", encoding="utf-8") as file:
        json.dump({"sealed": sealed, "seal": _seal(sealed)}, file)
        file.flush()
        os.fsync(file.fileno())


def read_seal(folder: Path) -> dict[str, Any] | None:
    """Return what was sealed with an undamaged store; None if anything is missing or damaged."""
    rows = folder / ROWS_FILE
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        sealed: dict[str, Any] = manifest["sealed"]
        sound = manifest["seal"] == _seal(sealed) and rows.stat().st_size == sealed["size"]
        return sealed if sound and _sha256(rows) == sealed["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _seal(sealed: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(sealed, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _dump(row: Conversation | Text) -> bytes:
    if isinstance(row, LabelledImage):
        return orjson.dumps({"image": row.text, "label": row.label, "sha256": row.sha256})
    if isinstance(row, Labelled):
        return orjson.dumps({"text": row.text, "label": row.label})
    if isinstance(row, Text):
        return orjson.dumps(row.text)
    messages = [_pack(message) for message in row.messages]
    more: dict[str, Any] = {"tools": row.tools} if row.tools else {}
    if isinstance(row, Judged):
        more["good"] = row.good
    if isinstance(row, Prompt):
        more["reference"] = row.reference
    if isinstance(row, Preference):
        more["rejected"] = _pack(row.rejected)
    packed = {"messages": messages, **more} if more else messages
    return orjson.dumps(packed)


def _load(content: bytes, place: Place) -> Conversation | Text:
    value = orjson.loads(content)
    if isinstance(value, str):
        return Text(value, place)
    packed = value if isinstance(value, dict) else {"messages": value}
    if "image" in packed:
        return LabelledImage(packed["image"], place, packed["label"], packed["sha256"])
    if "label" in packed:
        return Labelled(packed["text"], place, packed["label"])
    messages, tools = tuple(map(_unpack, packed["messages"])), tuple(packed.get("tools", ()))
    if "good" in packed:
        return Judged(messages, place, packed["good"], tools=tools)
    if "rejected" in packed:
        return Preference(messages, place, _unpack(packed["rejected"]), tools=tools)
    if "reference" in packed:
        return Prompt(messages, place, packed["reference"], tools=tools)
    return Conversation(messages, place, tools=tools)


def _pack(message: Message) -> list[Any]:
    """Write a message as role and text, and what else it holds, if it does."""
    more = {
        "calls": [[call.name, call.arguments, call.id] for call in message.calls],
        "reasoning": message.reasoning,
        "weight": message.weight if message.weight != 1 else None,
        "call_id": message.call_id,
        "name": message.name,
        "media": [medium.as_list(medium.source) for medium in message.media],
    }
    kept = {name: value for name, value in more.items() if value not in (None, "", [])}
    return [message.role, message.content, kept] if kept else [message.role, message.content]


def _unpack(packed: list[Any]) -> Message:
    role, content, *rest = packed
    more = dict(rest[0]) if rest else {}
    more["calls"] = tuple(Call(*call) for call in more.get("calls", ()))
    more["media"] = tuple(Medium.of(medium) for medium in more.get("media", ()))
    return Message(role, content, **more)
