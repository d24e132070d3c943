"""Answers and errors as OpenAI's clients read them."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import orjson

from tunesmith.errors import TunesmithError
from tunesmith.inference.generate import Stream


def usage(stream: Stream) -> dict[str, int]:
    """Count the tokens of an answer."""
    return {
        "prompt_tokens": stream.num_prompt_tokens,
        "completion_tokens": stream.num_tokens,
        "total_tokens": stream.num_prompt_tokens + stream.num_tokens,
    }


@dataclass(frozen=True)
class Completion:
    """One chat completion, whole or in chunks, under one id."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, stream: Stream) -> dict[str, Any]:
        """Spell an answer that came in one piece."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": stream.finish,
        }
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage(stream)}

    def chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        """Spell one event of a stream."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return event({**self._head("chat.completion.chunk"), "choices": [choice]})

    def usage_chunk(self, stream: Stream) -> bytes:
        """Spell the event that tells the counts at the end of a stream."""
        head = self._head("chat.completion.chunk")
        return event({**head, "choices": [], "usage": usage(stream)})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def event(content: dict[str, Any]) -> bytes:
    """Spell a server-sent event."""
    return b"data: " + orjson.dumps(content) + b"\n\n"


DONE = b"data: [DONE]\n\n"


CODES = {"UnknownModel": "model_not_found", "Busy": "rate_limit_exceeded"}
"""What OpenAI's clients look for, by the names of our errors."""


def error_body(
    message: str, where: str, hint: str, *, kind: str = "invalid_request_error", code: str = ""
) -> dict[str, Any]:
    """Spell an error: the fields OpenAI's clients read, and ours."""
    message, where = (text.encode("utf-8", "replace").decode() for text in (message, where))
    return {
        "error": {
            "message": message,
            "where": where,
            "hint": hint,
            "type": kind,
            "param": where or None,
            "code": code or None,
        }
    }


def body_of(problem: TunesmithError) -> dict[str, Any]:
    """Spell an error a client can mend."""
    code = CODES.get(type(problem).__name__, "")
    return error_body(problem.message, problem.where, problem.hint, code=code)
