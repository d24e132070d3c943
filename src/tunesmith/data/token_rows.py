"""The rows a training loop takes, put together from stored tokens without copying them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.data.media.images import Picture
from tunesmith.data.media.medium import Shows
from tunesmith.data.media.senses import Senses
from tunesmith.data.rows import Conversation, LabelledImage, Text, media_of
from tunesmith.data.store import UNJUDGED, Ints, Store

UNLEARNED = -100


class TokenRows:
    """Rows of token ids and labels, backed by memory-mapped files.

    A row is made of parts, each a stretch of a stored row: one part if rows stand alone, several
    if texts were packed.

    Args:
        stores: where the tokens lie.
        parts: [parts, 4]: number of the store, row in it, first token, end.
        starts: first part of each row, ascending, [rows].

    Attributes:
        lengths: tokens of each row, [rows].
        reach: most tokens that any token sees, itself included.
        num_tokens: tokens of all rows.
        num_learned: tokens that carry a label, of all rows.
        sets: rows that are measured by themselves too, by name; none stands in two.
    """

    def __init__(self, stores: Sequence[Store], parts: Ints, starts: Ints) -> None:
        self._stores, self._parts, self._starts = tuple(stores), parts, starts
        self._beside: dict[str, npt.NDArray[np.float64]] = {}
        self._givers: Ints | None = None
        self.sets: Mapping[str, range] = {}
        self._pixels: Callable[[Any], Any] | None = None
        self._senses: Senses | None = None
        sizes = parts[:, 3] - parts[:, 2]
        total = np.add.reduceat(sizes, starts) if len(starts) else np.zeros(0, np.int64)
        self.lengths: npt.NDArray[np.int32] = total.astype(np.int32)
        self.num_tokens = int(total.sum())
        self.reach = self._find_reach()
        self.num_learned = self._count_learned(sizes)

    def __len__(self) -> int:
        """Count the rows."""
        return len(self._starts)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """Return a row.

        Returns:
            input_ids; labels, -100 where nothing is learned, not shifted; weights, how much each
            learned token counts, only where they differ from 1; answers, where each of
            two answers begins, only for a row that has them; good, only for one that was judged;
            mismatched, the row with another one's answer, if givers were named; pixels, which
            decodes the row's image when called, if rows are images; shown, what a conversation
            shows; and what was put beside.
        """
        found = self._tokens(row)
        if self._givers is not None:
            found["mismatched"] = self._mismatch(found, self._tokens(int(self._givers[row])))
        if self._pixels is not None:
            found["pixels"] = partial(_decode, self._pixels, self.picture(row))
        if self._senses is not None:
            source = self.conversation(row)
            if isinstance(source, Conversation) and media_of(source):
                found["shown"] = Shows(self._senses, media_of(source), source.place)
        return found | {name: column[row].tolist() for name, column in self._beside.items()}

    def _tokens(self, row: int) -> dict[str, Any]:
        ids: list[int] = []
        labels: list[int] = []
        answers: list[int] = []
        weighed: list[float] = []
        good = UNJUDGED
        for store, stored, start, end in self._parts_of(row):
            source = self._stores[store]
            part = source.ids(stored)[start:end].tolist()
            marked = [UNLEARNED] * len(part)
            counts = source.weights(stored)
            for number, (first, last) in enumerate(source.learned(stored)):
                inside = slice(max(first - start, 0), max(min(last, end) - start, 0))
                marked[inside] = part[inside]
                if counts:
                    weighed += [counts[number]] * len(part[inside])
            ids += part
            labels += marked
            answers, good = source.answers(stored), int(source.good[stored])
        found: dict[str, Any] = {"input_ids": ids, "labels": labels}
        if weighed:
            found["weights"] = weighed
        if answers:
            found["answers"] = answers
        if good != UNJUDGED:
            found["good"] = bool(good)
        return found

    def _mismatch(self, row: dict[str, Any], giver: dict[str, Any]) -> dict[str, Any]:
        """Put another row's answer after a row's question, no longer than the longest row."""
        asked, taken = (
            next(at for at, label in enumerate(each["labels"]) if label != UNLEARNED)
            for each in (row, giver)
        )
        both = {name: row[name][:asked] + giver[name][taken:] for name in ("input_ids", "labels")}
        return {name: values[: self.reach] for name, values in both.items()} | {"good": row["good"]}

    def beside(self, **columns: npt.NDArray[np.float64]) -> TokenRows:
        """Return the same rows with more numbers in each.

        Args:
            columns: numbers by name, [rows, any].
        """
        more = copy(self)
        more._beside = {**self._beside, **columns}
        return more

    def with_givers(self, givers: Ints) -> TokenRows:
        """Return the same rows, each of which takes the answer of another one too.

        Args:
            givers: number of the row whose answer a row takes, [rows].
        """
        more = copy(self)
        more._givers = givers
        return more

    def with_sets(self, sets: Mapping[str, range]) -> TokenRows:
        """Return the same rows, some of which are measured by themselves too."""
        more = copy(self)
        more.sets = sets
        return more

    def with_pixels(self, pixels: Callable[[Any], Any]) -> TokenRows:
        """Return the same rows, whose images are turned into numbers so."""
        more = copy(self)
        more._pixels = pixels
        return more

    def with_senses(self, senses: Senses | None) -> TokenRows:
        """Return the same rows, whose conversations may show something that is read so."""
        more = copy(self)
        more._senses = senses
        return more

    def picture(self, row: int) -> Picture:
        """Return the image of a row."""
        read = self.conversation(row)
        assert isinstance(read, LabelledImage)
        return Picture(read.file, read.sha256)

    def conversation(self, row: int) -> Conversation | Text:
        """Return a row as it was read; of packed texts, the first that begins in it."""
        parts = self._parts_of(row)
        begins = next((part for part in parts if part[2] == 0), parts[0])
        return self._stores[begins[0]].source(begins[1])

    def _parts_of(self, row: int) -> list[list[int]]:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row %= len(self)
        start = self._starts[row]
        end = self._starts[row + 1] if row + 1 < len(self) else len(self._parts)
        parts: list[list[int]] = self._parts[start:end].tolist()
        return parts

    def _find_reach(self) -> int:
        longest = int(self.lengths.max(initial=0))
        if len(self._parts) != len(self._starts):
            return longest  # rows of several parts hold no answers
        reaches = [
            store.reaches[self._parts[self._parts[:, 0] == number, 1]].max(initial=0)
            for number, store in enumerate(self._stores)
        ]
        return min(longest, int(max(reaches, default=0)))

    def _count_learned(self, sizes: Ints) -> int:
        total = 0
        for number, store in enumerate(self._stores):
            mine = self._parts[:, 0] == number
            rows = self._parts[mine, 1]
            whole = sizes[mine] == store.lengths[rows]
            total += int(store.num_learned[rows][whole].sum())
            total += int(sizes[mine][~whole].sum())  # only texts are parted; all of them is learned
        return total


def _decode(pixels: Callable[[Any], Any], picture: Picture) -> Any:
    return pixels(picture.open())


def whole_rows(stores: Sequence[Store], chosen: Ints) -> TokenRows:
    """Let each chosen row stand alone.

    Args:
        chosen: [rows, 2]: number of the store, row in it.
    """
    lengths = _lengths(stores, chosen)
    parts = np.column_stack([chosen, np.zeros(len(chosen), np.int64), lengths])
    return TokenRows(stores, parts.reshape(-1, 4), np.arange(len(chosen)))


def join_rows(parts: Sequence[TokenRows]) -> TokenRows:
    """Lay rows of the same stores one after the other."""
    first, *_ = parts
    sizes = np.cumsum([0, *(len(part._parts) for part in parts)])
    starts = [part._starts + size for part, size in zip(parts, sizes, strict=False)]
    joined = np.concatenate([part._parts for part in parts])
    return TokenRows(first._stores, joined, np.concatenate(starts))


def cut_rows(stores: Sequence[Store], chosen: Ints, size: int) -> TokenRows:
    """Cut each chosen text into rows of at most `size` tokens."""
    lengths = _lengths(stores, chosen)
    counts = -(-lengths // size)
    owner = np.repeat(np.arange(len(chosen)), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    start = (np.arange(len(owner)) - first) * size
    end = np.minimum(start + size, lengths[owner])
    parts = np.column_stack([chosen[owner], start, end])
    return TokenRows(stores, parts.reshape(-1, 4), np.arange(len(parts)))


def pack_rows(stores: Sequence[Store], chosen: Ints, size: int) -> TokenRows:
    """Join the chosen texts and cut the whole into rows of exactly `size` tokens, but the last."""
    lengths = _lengths(stores, chosen)
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    edges = np.union1d(np.concatenate([[0], ends]), np.arange(0, total, size))
    start, end = edges[:-1], edges[1:]
    owner = np.searchsorted(ends, start, side="right")
    shift = (ends - lengths)[owner]
    parts = np.column_stack([chosen[owner], start - shift, end - shift])
    starts = np.searchsorted(start, np.arange(0, total, size))
    return TokenRows(stores, parts.reshape(-1, 4), starts)


def _lengths(stores: Sequence[Store], chosen: Ints) -> Ints:
    lengths = np.zeros(len(chosen), np.int64)
    for number, store in enumerate(stores):
        mine = chosen[:, 0] == number
        lengths[mine] = store.lengths[chosen[mine, 1]]
    return lengths
