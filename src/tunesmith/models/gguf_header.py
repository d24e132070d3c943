"""Read what a GGUF says of itself: its options and its vocabulary, without its weights.

The layout is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 2 and 3.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.errors import ModelError

MAGIC, VERSIONS = b"GGUF", (2, 3)
NUMBERS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
TEXT, LIST = 8, 9


def is_gguf(path: Path) -> bool:
    """Whether a path is that of a GGUF file."""
    try:
        with path.open("rb") as file:
            return file.read(4) == MAGIC
    except (OSError, ValueError):
        return False


def read_gguf_header(path: Path) -> Mapping[str, Any]:
    """Read the options of a GGUF by their names, such as `tokenizer.chat_template`.

    Raises:
        ModelError: if it is no GGUF, or damaged.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            return _Header(whole).read()
    except (OSError, ValueError, KeyError, struct.error) as problem:
        raise ModelError(
            f"the GGUF cannot be read: {problem}",
            hint="copy or export it again",
            where=str(path),
        ) from None


class _Header:
    def __init__(self, whole: mmap.mmap) -> None:
        self._whole, self._at = whole, 0

    def read(self) -> dict[str, Any]:
        if self._take(4) != MAGIC:
            raise ValueError("it does not begin with GGUF")
        if (version := self._number(4)) not in VERSIONS:
            raise ValueError(f"it is of version {version}, we read {VERSIONS}")
        self._number(10)  # of tensors
        return {self._text(): self._value(self._number(4)) for _ in range(self._number(10))}

    def _value(self, kind: int) -> Any:
        if kind == TEXT:
            return self._text()
        if kind != LIST:
            return self._number(kind)
        kind, count = self._number(4), self._number(10)
        if count > len(self._whole):
            raise ValueError("a list is longer than the file")
        if kind in NUMBERS:
            layout = f"<{count}{NUMBERS[kind][1]}"
            return struct.unpack(layout, self._take(struct.calcsize(layout)))
        return [self._value(kind) for _ in range(count)]

    def _text(self) -> str:
        return self._take(self._number(10)).decode("utf-8", "replace")

    def _number(self, kind: int) -> Any:
        layout = NUMBERS[kind]
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _take(self, size: int) -> bytes:
        taken = self._whole[self._at : self._at + size]
        if len(taken) < size:
            raise ValueError("it ends too early")
        self._at += size
        return taken
