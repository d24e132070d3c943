"""The answers in work, step by step: who joins, what is read next, who makes room."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from tunesmith.errors import RequestError
from tunesmith.inference.batching.forward import Forward
from tunesmith.inference.batching.prefixes import Prefixes
from tunesmith.inference.batching.shelves import Shelves, Slot
from tunesmith.inference.batching.step import build_step
from tunesmith.inference.choosing import choose
from tunesmith.inference.row import Row

LONGEST_PAUSE, LEAST_CHUNK = 0.5, 128
"""Seconds that answers which are being written wait for prompts of others, about; and what of
those is read nevertheless."""
LEAST_PART = 32
"""Tokens of a long text that are read at least."""


@dataclass
class Batch:
    """Answers in work, and those that wait for room.

    Attributes:
        most: answers in work at the same time.
        chunk: tokens of prompts that are read in one step at most.
        at_once: whether all its answers were asked for together: nobody waits for pieces, and no
            one comes later who begins as they end.
        waiting: answers that have no slot yet, the oldest first.
        slots: those in work, the oldest first.
    """

    forward: Forward
    shelves: Shelves
    prefixes: Prefixes
    most: int
    chunk: int
    at_once: bool = False
    waiting: deque[Row] = field(default_factory=deque)
    slots: list[Slot] = field(default_factory=list)
    _seconds: float = 1e-3

    @property
    def rows(self) -> Iterable[Row]:
        """Return all answers, in work or not."""
        return [*(slot.row for slot in self.slots), *self.waiting]

    @torch.inference_mode()
    def step(self) -> None:
        """Read once through the model, and go on with each answer that has been read through."""
        self._drop_ended()
        self._make_room()
        reading = self._choose_reading()
        shelves = self.shelves.in_use()
        if not shelves:
            return
        began = time.perf_counter()
        step = build_step(shelves, reading, self.forward.windows)
        logits = self.forward(step)
        self._advance(reading)
        if step.rows:
            chosen = choose([row.way for row in step.rows], logits)
            for row, token in zip(step.rows, chosen, strict=True):
                row.take(token)
        if reading:
            self._seconds = (time.perf_counter() - began) / sum(reading.values())

    def clear(self) -> None:
        """Forget all answers and what was kept of them."""
        self.slots.clear()
        self.waiting.clear()
        self.shelves.clear()
        self.prefixes.clear()

    def _advance(self, reading: dict[Slot, int]) -> None:
        """Note what was read; put those that are through among those that write."""
        for shelf in self.shelves.in_use():
            for slot in shelf.slots[: shelf.num_ready]:
                slot.size += 1
        for slot, size in reading.items():
            slot.size += size
        for slot in reading:  # whose sizes are all known: they may change places
            if slot.left <= 1:
                self.prefixes.keep(slot)
                slot.shelf.make_ready(slot)

    def _drop_ended(self) -> None:
        """Take away the answers that are over; keep of them what others may begin with.

        Those that wait too: behind long answers, cancelled ones would pile up without end.
        """
        over = [slot for slot in self.slots if slot.row.is_over]
        for slot in over:
            if slot.row.finish is None:  # it failed, perhaps at what is not a number
                slot.shelf.wipe(slot)
            elif not self.at_once:
                self.prefixes.keep(slot)
            slot.shelf.remove(slot)
        if over:  # looked up once: others may be cancelled meanwhile
            self.slots = [slot for slot in self.slots if slot not in over]
        if any(row.is_over for row in self.waiting):
            self.waiting = deque(row for row in self.waiting if not row.is_over)

    def _make_room(self) -> None:
        """Lengthen slots that are full; if there is no room the youngest waits and reads again."""
        for slot in list(self.slots):
            while slot in self.slots and slot.left == 1 and slot.size >= slot.shelf.length:
                if self.shelves.lengthen(slot):
                    continue
                youngest = self.slots.pop()
                youngest.shelf.remove(youngest)
                if self.slots:
                    self.waiting.appendleft(youngest.row)
                else:
                    youngest.row.fail(_no_memory(youngest.row))

    def _choose_reading(self) -> dict[Slot, int]:
        """Choose how much is read of which text: short ones wait for no long one before them."""
        left = self._most_read()
        reading: dict[Slot, int] = {}
        for slot in self.slots:
            if left and slot.left > 1:
                reading[slot] = _part_of(slot, left)
                left -= reading[slot]
        while left and self.waiting and len(self.slots) < self.most:
            admitted = self._admit()
            if admitted is None:
                break
            if admitted.left > 1:
                reading[admitted] = _part_of(admitted, left)
                left -= reading[admitted]
                if not reading[admitted]:
                    break
        for slot, size in reading.items():
            more = min(slot.left - size, left)
            reading[slot] = size + more
            left -= more
        return {slot: size for slot, size in reading.items() if size}

    def _most_read(self) -> int:
        """Say how many tokens are read in this step: fewer if those who write would wait long."""
        waited_for = (slot for slot in self.slots if slot.left == 1 and slot.row.remembers)
        if self.at_once or not any(waited_for):
            return self.chunk
        return min(self.chunk, max(LEAST_CHUNK, int(LONGEST_PAUSE / self._seconds)))

    def _admit(self) -> Slot | None:
        """Give the answer that waits longest a slot; None if there is no room, or no answer."""
        while self.waiting and self.waiting[0].is_over:
            self.waiting.popleft()
        if not self.waiting:
            return None
        slot = self.shelves.take(self.waiting[0])
        if slot is None:
            if not self.slots:
                row = self.waiting.popleft()
                row.fail(_no_memory(row))
            return None
        self.slots.append(slot)  # first: others look whether an answer needs its adapter
        self.waiting.popleft()
        self.prefixes.fill(slot)
        if slot.left == 1:
            slot.shelf.make_ready(slot)
        return slot


def _part_of(slot: Slot, left: int) -> int:
    """Say how much is read of a text now: of a long one no more than half of what may be.

    Args:
        left: tokens that may be read in this step.
    """
    if slot.left <= left:
        return slot.left
    return left // 2 if left >= 2 * LEAST_PART else 0


def _no_memory(row: Row) -> RequestError:
    return RequestError(
        f"there is no memory for a text of {len(row.tokens):,} tokens",
        hint="send a shorter one, or give the server more memory",
        where="messages",
    )
