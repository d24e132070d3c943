"""The bytes that each token of a vocabulary writes, also where they are a part of a character."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""How vocabularies made by SentencePiece spell a single byte."""
PROBE = "a"


class Spelling:
    """Spell tokens one by one; special ones are spelled by their names."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        backend = tokenizer.backend_tokenizer
        decoder: dict[str, Any] = json.loads(backend.to_str()).get("decoder") or {}
        steps = [decoder, *decoder.get("decoders", ())]
        self._is_bytes = any(step.get("type") == "ByteLevel" for step in steps)
        self._added = {
            number: token.content for number, token in backend.get_added_tokens_decoder().items()
        }
        self._probe = tokenizer.encode(PROBE, add_special_tokens=False)

    def __call__(self, token: int) -> bytes:
        """Return what a token writes after other text; nothing for ids without a token."""
        if token in self._added:
            return self._added[token].encode()
        spelled = self._tokenizer.convert_ids_to_tokens(token)
        if not isinstance(spelled, str):
            return b""
        if self._is_bytes:
            values = byte_values()
            return bytes(values[letter] for letter in spelled if letter in values)
        if found := BYTE.fullmatch(spelled):
            return bytes([int(found.group(1), 16)])
        # A first word loses its space in some vocabularies, so another one goes before it.
        before, both = map(self._decode, (self._probe, [*self._probe, token]))
        return both[len(before) :].encode()

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False))


@lru_cache
def byte_values() -> dict[str, int]:
    """Return the bytes behind the letters that byte-level vocabularies are written in.

    Printable letters stand for themselves; the others, in their order, for those from 256 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in printable]
    letters = {chr(value): value for value in printable}
    return letters | {chr(256 + place): value for place, value in enumerate(others)}
