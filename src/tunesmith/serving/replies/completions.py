"""Completions of texts, whole or in chunks."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from tunesmith.inference.engine import UNKNOWN, Piece, Speech, Token
from tunesmith.serving.replies.chat import LEAST_LOGPROB, told


@dataclass(frozen=True)
class TextCompletion:
    """One completion under one id."""

    model: str
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def head(self) -> dict[str, Any]:
        """Spell what stands in front of the choices."""
        kind = "text_completion"
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


class Text:
    """One text while it is continued.

    Args:
        echo: the prompt, where it is to stand before the answer.
    """

    def __init__(self, echo: str, speech: Speech, *, tells_logprobs: bool) -> None:
        self._texts, self._echo = [echo], echo
        self._speech, self._tells = speech, tells_logprobs
        self._tokens: list[Token] = []
        self._finish: str | None = None
        self._offset = len(echo)

    def push(self, piece: Piece) -> None:
        """Add a piece."""
        self._texts.append(piece.text)
        self._tokens += piece.tokens
        self._finish = piece.finish

    def whole(self, index: int) -> dict[str, Any]:
        """Spell the choice once it is over."""
        return self._choice(index, "".join(self._texts), self._tokens)

    def chunk(self, index: int, piece: Piece) -> dict[str, Any]:
        """Spell what is new; the prompt goes with the first of it."""
        self._finish = piece.finish
        echo, self._echo = self._echo, ""
        return self._choice(index, echo + piece.text, piece.tokens)

    def _choice(self, index: int, text: str, tokens: Any) -> dict[str, Any]:
        logprobs = self._logprobs(tokens) if self._tells else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": self._finish}

    def _logprobs(self, tokens: Any) -> dict[str, Any]:
        """Spell how likely tokens were, in lists side by side."""
        tokens = [token for token in tokens if token.id != UNKNOWN]
        spelled = [self._spell(token.id) for token in tokens]
        offsets = []
        for text in spelled:
            offsets.append(self._offset)
            self._offset += len(text)
        return {
            "tokens": spelled,
            "token_logprobs": [told(token) for token in tokens],
            "top_logprobs": [
                {self._spell(other): max(value, LEAST_LOGPROB) for other, value in token.likeliest}
                for token in tokens
            ],
            "text_offset": offsets,
        }

    def _spell(self, token: int) -> str:
        return self._speech.spell(token).decode("utf-8", "replace")
