"""Tokens to text while they come: whole characters only, and nothing of a stop text."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

UNFINISHED = "\ufffd"
MOST_WAITING, LAST = 16, 3
"""Tokens without text that are read again with each further one, and of those the last ones that
may still be the beginning of a character."""


class TextStream:
    """Turn token ids into pieces of text that, joined, are the text of all of them.

    A character may be spread over several tokens; it comes out with the last of them. Text that
    may turn out to be the beginning of a stop text is held back until that is decided.

    Special tokens have no text but for those that are kept.

    Attributes:
        stopped: whether a stop text was met; what comes after it is dropped.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        stop: Sequence[str] = (),
        keep: Collection[int] = (),
    ) -> None:
        self._backend, self._stop = tokenizer.backend_tokenizer, tuple(stop)
        added = tokenizer.added_tokens_decoder.items() if keep else ()
        self._dropped = {number for number, token in added if token.special} - {*keep}
        self._keeps = bool(keep)
        self._ids: list[int] = []
        self._prefix = self._read = 0
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Add a token and return the text that is now certain."""
        if token in self._dropped:
            return ""
        self._ids.append(token)
        before = self._decode(self._ids[self._prefix : self._read])
        text = self._decode(self._ids[self._prefix :])
        until = len(self._ids)
        many, finished = until - self._read >= MOST_WAITING, not text.endswith(UNFINISHED)
        if finished and len(text) <= len(before):
            if many:  # but for the first, of which a blank may be left
                del self._ids[self._read + 1 :]
            return ""
        if not finished:
            if not many:
                return ""
            until -= LAST
            text = self._decode(self._ids[self._prefix : until])
        self._prefix, self._read = self._read, until
        return self._release(text[len(before) :])

    def end(self) -> str:
        """Return what was held back; a character that was never finished is marked as such."""
        before = self._decode(self._ids[self._prefix : self._read])
        text = self._decode(self._ids[self._prefix :])[len(before) :]
        self._prefix = self._read = len(self._ids)
        released = self._release(text)
        held, self._held = self._held, ""
        return released if self.stopped else released + held

    def _decode(self, ids: list[int]) -> str:
        return str(self._backend.decode(ids, skip_special_tokens=not self._keeps))

    def _release(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        places = [place for place in map(text.find, self._stop) if place >= 0]
        if places:
            self.stopped, self._held = True, ""
            return text[: min(places)]
        keep = max((overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def overlap(text: str, other: str) -> int:
    """Count the characters at the end of a text that may begin another one."""
    for size in range(min(len(text), len(other) - 1), 0, -1):
        if text.endswith(other[:size]):
            return size
    return 0
