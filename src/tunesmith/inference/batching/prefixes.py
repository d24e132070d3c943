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
        for key in _keys(slot.row.model, text[:-1]):
            piece = self._pieces.get(key)
            if piece is None:
                return
            self._pieces.move_to_end(key)
            kept[:, slot.place, :, slot.size : slot.size + PIECE] = piece
            slot.size += PIECE
            self.num_found += PIECE

    def keep(self, slot: Slot) -> None:
        """Keep the whole pieces of what was read of a text."""
        if not slot.row.remembers:
            return
        kept, start = slot.shelf.kept, 0
        for key in _keys(slot.row.model, slot.row.tokens[: slot.size]):
            if key in self._pieces:
                self._pieces.move_to_end(key)
            else:
                piece = kept[:, slot.place, :, start : start + PIECE].clone()
                self._pieces[key] = piece
                self.used += piece.nbytes
            start += PIECE
        while self.used > self.limit:
            self.used -= self._pieces.popitem(last=False)[1].nbytes

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
