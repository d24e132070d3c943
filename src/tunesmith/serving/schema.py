"""Requests as OpenAI's clients send them; what is not known or not done yet is refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from tunesmith.errors import RequestError

LONGEST_ANSWER = 1024


class Request(BaseModel):
    """What every request shares."""

    model_config = ConfigDict(extra="forbid")


def whole_characters(text: str) -> str:
    """Refuse halves of characters, which JSON can spell and no tokenizer can read."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text holds half a character, a lone surrogate") from None
    return text


Words = Annotated[str, AfterValidator(whole_characters)]
Nothing = Annotated[list[Any], Field(max_length=0)] | None


class TextPart(Request):
    """A part of a message."""

    type: Literal["text"]
    text: Words


class ChatMessage(Request):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Words | list[TextPart]
    name: str | None = None
    refusal: None = None
    annotations: Nothing = None
    audio: None = None
    function_call: None = None
    tool_calls: Nothing = None
    """Empty fields of an answer that a client sends back as it got it."""

    def plain(self) -> dict[str, str]:
        """Return it as chat templates take it."""
        text = self.content
        if not isinstance(text, str):
            text = "".join(part.text for part in text)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class SamplingOptions(Request):
    """How to answer; what is not given is the model's own way."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None

    def sampling(self) -> dict[str, Any]:
        """Return what was given, by the names that answers are sampled with."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        return {
            "max_tokens": LONGEST_ANSWER if self.max_tokens is None else self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "repetition_penalty": self.repetition_penalty,
            "seed": self.seed,
            "stop": tuple(stop) if stop else None,
        }


class StreamOptions(Request):
    """What a stream tells besides text."""

    include_usage: bool = False
    include_obfuscation: bool = False


class ChatRequest(SamplingOptions):
    """Body of /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1)
    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: dict[str, Any] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None

    def check(self) -> None:
        """Refuse what would change the answer and cannot be done yet.

        Raises:
            RequestError: naming the field.
        """
        wanted = {
            "n": self.n not in (None, 1),
            "presence_penalty": bool(self.presence_penalty),
            "frequency_penalty": bool(self.frequency_penalty),
            "logit_bias": bool(self.logit_bias),
            "logprobs": bool(self.logprobs),
            "top_logprobs": bool(self.top_logprobs),
            "response_format": (self.response_format or {}).get("type", "text") != "text",
            "tools": bool(self.tools),
            "tool_choice": self.tool_choice not in (None, "none", "auto"),
        }
        for name, asked in wanted.items():
            if asked:
                raise RequestError(f"{name} is not supported yet", hint="leave it out", where=name)

    def sampling(self) -> dict[str, Any]:
        """Return what was given, by the names that answers are sampled with."""
        given = super().sampling()
        if self.max_completion_tokens is not None:
            given["max_tokens"] = self.max_completion_tokens
        return given


class GenerateQuery(SamplingOptions):
    """A question in the address of /generate."""

    prompt: Words = Field(description="The question, or a text to continue.")
    stop: list[str] | None = None

    def asked(self) -> str:
        """Return what is asked."""
        return self.prompt


class GenerateRequest(SamplingOptions):
    """Body of /generate: a prompt, or messages."""

    prompt: Words | None = None
    messages: list[ChatMessage] | None = None

    def asked(self) -> str | list[dict[str, str]]:
        """Return what is asked.

        Raises:
            RequestError: if it is nothing, or both.
        """
        if (self.prompt is None) == (not self.messages):
            raise RequestError(
                "give either `prompt` or `messages`",
                hint='send {"prompt": "..."}',
                where="body",
            )
        return self.prompt if self.prompt is not None else [m.plain() for m in self.messages or ()]
