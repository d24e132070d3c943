"""Body of /v1/completions."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tunesmith.errors import RequestError
from tunesmith.serving.limits import MAX_CHOICES, MAX_INPUTS
from tunesmith.serving.schema.forms import FormOptions
from tunesmith.serving.schema.sampling import Ids, SamplingOptions, StreamOptions, Words

Several = Annotated[list[Words], Field(min_length=1, max_length=MAX_INPUTS)]
SeveralIds = Annotated[list[Ids], Field(min_length=1, max_length=MAX_INPUTS)]
Texts = Words | Several | Annotated[Ids, Field(min_length=1)] | SeveralIds
USUAL_TOKENS = 16
"""As long as OpenAI's completions are where a request says nothing."""


class CompletionRequest(SamplingOptions, FormOptions):
    """Body of /v1/completions."""

    prompt: Texts
    model: Words | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    best_of: int | None = None
    echo: bool | None = None
    logprobs: int | None = None
    suffix: str | None = None
    user: Words | None = None

    def check(self) -> None:
        """Refuse what cannot be done.

        Raises:
            RequestError: naming the field.
        """
        refused = {
            "suffix": (self.suffix, "send what stands before it as the prompt"),
            "best_of": (
                self.best_of not in (None, self.n or 1),
                "ask for n answers and choose among them",
            ),
            "echo": (
                self.echo and self.logprobs is not None,
                "leave out logprobs, which are told of answers only",
            ),
            "stream_options": (
                self.stream_options is not None and not self.stream,
                'send "stream": true with it, or leave it out',
            ),
        }
        for name, (asked, hint) in refused.items():
            if asked:
                raise RequestError(f"{name} is not taken here", hint=hint, where=name)

    def prompts(self) -> list[str | list[int]]:
        """Return what is to be continued, each a text or tokens."""
        return parted(self.prompt)

    def sampling(self) -> dict[str, Any]:
        """Return what was given, by the names that answers are sampled with."""
        tokens = USUAL_TOKENS if self.max_tokens is None else self.max_tokens
        return {**super().sampling(), "max_tokens": tokens, "logprobs": self.logprobs}


def parted(given: str | list[str] | list[int] | list[list[int]]) -> list[str | list[int]]:
    """Return each of the texts, whether there is one or several, words or tokens."""
    if isinstance(given, str):
        return [given]
    texts = [one for one in given if not isinstance(one, int)]
    tokens = [one for one in given if isinstance(one, int)]
    return [*texts] if texts else [tokens]
