"""Where keys and values of the answers in work are kept."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from tunesmith.inference.batching.weights import Weights
from tunesmith.inference.row import Row

SHORTEST = 256
"""Tokens of the smallest slots; those of each further shelf are twice as long."""


@dataclass(eq=False)
class Slot:
    """The keys and values of the text of one answer.

    Attributes:
        place: on its shelf; it changes as others come and go.
        size: how many tokens of the text are in.
    """

    row: Row
    shelf: Shelf
    place: int
    size: int = 0

    @property
    def left(self) -> int:
        """How many tokens of the text are still to be read; the last one brings the next."""
        return len(self.row.tokens) - self.size


class Shelf:
    """Slots of equal length, those in use side by side from the first on.

    Attributes:
        kept: [layers, slots, 2 * kv heads, length, head]; of each slot the keys, then the values.
        slots: in order; those that are ready to write on come before those that still read.
        num_ready: how many are ready.
    """

    def __init__(self, weights: Weights, length: int) -> None:
        self.length, self.weights = length, weights
        self.slots: list[Slot] = []
        self.num_ready = 0
        self.kept = self._room(0)

    def _room(self, slots: int) -> torch.Tensor:
        """Make room; zeros, since what is masked is multiplied nevertheless."""
        weights = self.weights
        shape = (len(weights.layers), slots, 2 * weights.num_kv_heads, self.length)
        return torch.zeros((*shape, weights.head_size), dtype=weights.dtype, device=weights.device)

    @property
    def room(self) -> int:
        """How many slots there are, used or not."""
        return self.kept.shape[1]

    def resize(self, slots: int) -> None:
        """Make room for so many slots."""
        used, kept = len(self.slots), self.kept
        self.kept = self._room(slots)
        self.kept[:, :used].copy_(kept[:, :used])

    def add(self, slot: Slot) -> None:
        """Put a slot that still reads behind all others."""
        slot.shelf, slot.place = self, len(self.slots)
        self.slots.append(slot)

    def make_ready(self, slot: Slot) -> None:
        """Put a slot among those that write."""
        other = self.slots[self.num_ready]
        self.num_ready += 1
        if other is slot:
            return
        size = max(slot.size, other.size)
        mine, theirs = (self.kept[:, each.place, :, :size] for each in (slot, other))
        before = mine.clone()
        mine.copy_(theirs)
        theirs.copy_(before)
        slot.place, other.place = other.place, slot.place
        self.slots[slot.place], self.slots[other.place] = slot, other

    def wipe(self, slot: Slot) -> None:
        """Leave nothing of a text to whoever comes next: masked or not, NaN stays NaN."""
        self.kept[:, slot.place].zero_()

    def remove(self, slot: Slot) -> None:
        """Give a slot back; the last ones take its place."""
        hole = slot.place
        if hole < self.num_ready:
            self.num_ready -= 1
            self._fill(hole, self.num_ready)
            hole = self.num_ready
        self._fill(hole, len(self.slots) - 1)
        self.slots.pop()

    def _fill(self, hole: int, place: int) -> None:
        """Move the slot at a place to where another was."""
        if place != hole:
            slot = self.slots[place]
            self.kept[:, hole, :, : slot.size] = self.kept[:, place, :, : slot.size]
            slot.place, self.slots[hole] = hole, slot


@dataclass
class Shelves:
    """All shelves; they grow with what is asked of them.

    Attributes:
        limit: bytes they may take together.
        shortest: tokens of the smallest slots.
        by_length: the shelves, by the length of their slots.
    """

    weights: Weights
    limit: int
    shortest: int = SHORTEST
    by_length: dict[int, Shelf] = field(default_factory=dict)

    @property
    def used(self) -> int:
        """How many bytes are taken."""
        return sum(shelf.kept.nbytes for shelf in self.by_length.values())

    @property
    def part_in_use(self) -> float:
        """Tell which part of the room that may be taken holds something, 0 to 1."""
        held = sum(len(shelf.slots) * shelf.length for shelf in list(self.by_length.values()))
        return held * self.weights.token_bytes / self.limit

    def in_use(self) -> list[Shelf]:
        """Return the shelves that hold something."""
        return [shelf for shelf in self.by_length.values() if shelf.slots]

    def reserve(self, tokens: int, slots: int) -> None:
        """Make room at once for so many texts of a length."""
        self._shelf(tokens).resize(slots)

    def take(self, row: Row) -> Slot | None:
        """Take a slot for a text and the next token; None if there is no room now."""
        shelf = self._find(len(row.tokens) + 1)
        if shelf is None:
            return None
        slot = Slot(row, shelf, 0)
        shelf.add(slot)
        return slot

    def lengthen(self, slot: Slot) -> bool:
        """Move a slot that is full, and writes, to a longer one, if there is room."""
        shelf, old, size = self._find(slot.size + 1), slot.shelf, slot.size
        if shelf is None:
            return False
        text = old.kept[:, slot.place, :, :size]
        new = Slot(slot.row, shelf, 0, size)
        shelf.add(new)
        shelf.kept[:, new.place, :, :size] = text
        old.remove(slot)
        slot.shelf, slot.place = shelf, new.place
        shelf.slots[new.place] = slot
        shelf.make_ready(slot)
        return True

    def clear(self) -> None:
        """Forget everything."""
        self.by_length.clear()

    def _find(self, tokens: int) -> Shelf | None:
        """Find a shelf with an empty slot for so many tokens."""
        shelf = self._shelf(tokens)
        full = len(shelf.slots) == shelf.room
        return shelf if not full or self._grow(shelf) else None

    def _shelf(self, tokens: int) -> Shelf:
        length = self.shortest
        while length < tokens:
            length *= 2
        length = min(length, rounded(self.weights.longest))
        if length not in self.by_length:
            self.by_length[length] = Shelf(self.weights, length)
        return self.by_length[length]

    def _grow(self, shelf: Shelf) -> bool:
        """Add slots to a shelf; those that are empty give way."""
        wanted = max(shelf.room, 1)
        if (more := self._fitting(shelf)) < wanted:
            self._shrink_others(shelf)
            more = self._fitting(shelf)
        if more:
            shelf.resize(shelf.room + min(more, wanted))
        return more > 0

    def _fitting(self, shelf: Shelf) -> int:
        """Count the slots of a shelf that may still be added."""
        return (self.limit - self.used) // (shelf.length * self.weights.token_bytes)

    def _shrink_others(self, shelf: Shelf) -> None:
        for other in self.by_length.values():
            if other is not shelf and len(other.slots) < other.room:
                other.resize(len(other.slots))


def rounded(tokens: int) -> int:
    """Round up to what kernels like."""
    return -(-tokens // 8) * 8
