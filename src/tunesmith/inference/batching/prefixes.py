"""Keys and values of how texts began, kept for others that begin alike."""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tunesmith.inference.batching.shelves import Slot

if TYPE_CHECKING:
    import torch

PIECE = 32
"""Tokens that are kept together."""


@dataclass
class Prefixes:
    """Pieces of texts, each under a hash of all tokens up to its end and of who read them.

    Attributes:
        limit: bytes they may take; the ones not used for longest go first.
        num_found: tokens that needed no reading since they were kept.
    """

    limit: int
    num_found: int = 0
    used: int = 0
    _pieces: OrderedDict[bytes, torch.Tensor] = field(default_factory=OrderedDict)

    def fill(self, slot: Slot) -> None:
        """Put what is kept of a text into its slot, but for its last token."""
        text, kept = slot.row.tokens, slot.shelf.kept
        if not slot.row.remembers:
            return
        found = []
        for key in _keys(slot.row.model, text[:-1]):
            piece = self._pieces.get(key)
            if piece is None:
                break
            found.append(key)
            kept[:, slot.place, :, slot.size : slot.size + PIECE] = piece
            slot.size += PIECE
        self.num_found += PIECE * len(found)
        if slot.row.reused is None:
            slot.row.reused = PIECE * len(found)
        self._note_use(found)

    def keep(self, slot: Slot) -> None:
        """Keep the whole pieces of what was read of a text."""
        if not slot.row.remembers:
            return
        kept, keys = slot.shelf.kept, [*_keys(slot.row.model, slot.row.tokens[: slot.size])]
        for place, key in enumerate(keys):
            if key not in self._pieces:
                start = place * PIECE
                piece = kept[:, slot.place, :, start : start + PIECE].clone()
                self._pieces[key] = piece
                self.used += piece.nbytes
        self._note_use(keys)
        while self.used > self.limit:
            self.used -= self._pieces.popitem(last=False)[1].nbytes

    def _note_use(self, keys: Sequence[bytes]) -> None:
        """Let the end of a text go before its beginning, without which it is of no use."""
        for key in reversed(keys):
            self._pieces.move_to_end(key)

    def clear(self) -> None:
        """Forget everything."""
        self._pieces.clear()
        self.used = 0


def _keys(model: str, tokens: Sequence[int]) -> Iterator[bytes]:
    """Hash each beginning of a text that ends with a whole piece."""
    so_far = hashlib.sha256(model.encode())
    for start in range(0, len(tokens) - PIECE + 1, PIECE):
        so_far.update(array("q", tokens[start : start + PIECE]).tobytes())
        yield so_far.digest()
