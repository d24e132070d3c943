"""Body of /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import Field

from tunesmith.errors import RequestError
from tunesmith.inference.sampling import MOST_LOGPROBS
from tunesmith.serving.limits import MAX_CHOICES, MAX_MESSAGES
from tunesmith.serving.schema.forms import FormOptions
from tunesmith.serving.schema.messages import ChatMessage
from tunesmith.serving.schema.sampling import JsonObject, SamplingOptions, StreamOptions, Words
from tunesmith.serving.schema.tools import ToolOptions

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
Messages = Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
OLD = {"functions": "tools", "function_call": "tool_choice"}
"""Fields that OpenAI replaced, and by what."""


class ChatRequest(SamplingOptions, FormOptions, ToolOptions):
    """Body of /v1/chat/completions."""

    messages: Messages
    model: Words | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    logprobs: bool | None = None
    top_logprobs: int | None = None
    chat_template_kwargs: JsonObject | None = None
    reasoning_effort: Effort | None = None
    functions: Any = None
    function_call: Any = None
    user: Words | None = None
    metadata: dict[Words, Words] | None = None
    store: bool | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: Words | None = None
    prompt_cache_key: Words | None = None
    modalities: list[Literal["text"]] | None = None

    def check(self) -> None:
        """Refuse what contradicts itself, and what was replaced.

        Raises:
            RequestError: naming the field.
        """
        for name, new in OLD.items():
            if self.model_dump(include={name})[name] is not None:
                raise RequestError(f"{name} is not taken", hint=f"use {new}", where=name)
        if self.top_logprobs is not None and not self.logprobs:
            raise RequestError(
                "top_logprobs has no effect without logprobs",
                hint='send "logprobs": true with it',
                where="top_logprobs",
            )
        if not 0 <= (self.top_logprobs or 0) <= MOST_LOGPROBS:
            raise RequestError(
                f"top_logprobs cannot be {self.top_logprobs}",
                hint=f"write how many, 0 to {MOST_LOGPROBS}",
                where="top_logprobs",
            )
        self._check_length()
        if self.stream_options is not None and not self.stream:
            raise RequestError(
                "stream_options has no effect without a stream",
                hint='send "stream": true with it, or leave it out',
                where="stream_options",
            )

    def _check_length(self) -> None:
        newer, name = self.max_completion_tokens, "max_completion_tokens"
        if newer is not None and newer < 1:
            raise RequestError(
                f"{name} cannot be {newer}", hint="write a number from 1", where=name
            )
        if newer is not None and self.max_tokens not in (None, newer):
            raise RequestError(
                f"max_tokens and {name} say two lengths of one answer",
                hint=f"send {name} alone",
                where="max_tokens",
            )

    def sampling(self) -> dict[str, Any]:
        """Return what was given, by the names that answers are sampled with."""
        given = super().sampling()
        if self.max_completion_tokens is not None:
            given["max_tokens"] = self.max_completion_tokens
        if self.logprobs:
            given["logprobs"] = self.top_logprobs or 0
        return given

    def template_options(self, known: Collection[str]) -> dict[str, Any]:
        """Return what the template is told besides the messages.

        Args:
            known: the options that it has.

        Raises:
            RequestError: if the model does not think to order, or is told so twice.
        """
        given = dict(self.chat_template_kwargs or {})
        if self.reasoning_effort is None:
            return given
        effort: Any = self.reasoning_effort
        name = "reasoning_effort" if "reasoning_effort" in known else "enable_thinking"
        if name == "enable_thinking":
            effort = effort not in ("none", "minimal")
        if name not in known or name in given:
            raise RequestError(
                "the model's template has no option for reasoning_effort"
                if name not in known
                else f"reasoning_effort and chat_template_kwargs.{name} say the same",
                hint="leave it out",
                where="reasoning_effort",
            )
        return {**given, name: effort}
