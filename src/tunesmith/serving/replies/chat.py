"""Chat completions, whole or in chunks."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.errors import RequestError
from tunesmith.inference.engine import UNKNOWN, Speech, Token
from tunesmith.serving.note import Note
from tunesmith.serving.replies.events import event

LEAST_LOGPROB = -9999.0
"""What OpenAI tells of tokens that cannot come; JSON knows no infinity."""


def usage(note: Note) -> dict[str, Any]:
    """Count the tokens of a request and its answers."""
    counts: dict[str, Any] = {
        "prompt_tokens": note.prompt_tokens,
        "completion_tokens": note.written,
        "total_tokens": note.prompt_tokens + note.written,
    }
    if note.reused is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": note.reused}
    if note.thought is not None:
        counts["completion_tokens_details"] = {"reasoning_tokens": note.thought}
    return counts


@dataclass(frozen=True)
class Completion:
    """One chat completion, whole or in chunks, under one id."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, choices: list[dict[str, Any]], note: Note) -> dict[str, Any]:
        """Spell answers that came in one piece."""
        return {**self._head("chat.completion"), "choices": choices, "usage": usage(note)}

    def chunk(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None = None,
        finish: str | None = None,
    ) -> dict[str, Any]:
        """Spell one event of a stream."""
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def usage_chunk(self, note: Note) -> bytes:
        """Spell the event that tells the counts at the end of a stream."""
        return event({**self._head("chat.completion.chunk"), "choices": [], "usage": usage(note)})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def choice(
    index: int, message: dict[str, Any], logprobs: dict[str, Any] | None, finish: str
) -> dict[str, Any]:
    """Spell one of the answers."""
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}


def logprobs_of(tokens: Sequence[Token], speech: Speech) -> dict[str, Any]:
    """Spell how likely tokens were, but for those of which an engine elsewhere tells nothing.

    Raises:
        RequestError: if the engine did not tell.
    """
    known = [token for token in tokens if token.id != UNKNOWN]
    return {"content": [_likelihood(token, speech) for token in known], "refusal": None}


def _likelihood(token: Token, speech: Speech) -> dict[str, Any]:
    likeliest = [_spelled(*pair, speech) for pair in token.likeliest]
    return {**_spelled(token.id, told(token), speech), "top_logprobs": likeliest}


def told(token: Token) -> float:
    """Return a token's log-probability.

    Raises:
        RequestError: if the engine did not tell it.
    """
    if token.logprob is None:
        raise RequestError(
            "the engine tells no log-probabilities", hint="leave it out", where="logprobs"
        )
    return max(token.logprob, LEAST_LOGPROB)


def _spelled(token: int, logprob: float, speech: Speech) -> dict[str, Any]:
    written = speech.spell(token)
    return {
        "token": written.decode("utf-8", "replace"),
        "logprob": max(logprob, LEAST_LOGPROB),
        "bytes": list(written),
    }
