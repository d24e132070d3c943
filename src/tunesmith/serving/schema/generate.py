"""What /generate is asked: a prompt, or messages."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from tunesmith.errors import RequestError
from tunesmith.serving.limits import MAX_MESSAGES
from tunesmith.serving.schema.messages import ChatMessage
from tunesmith.serving.schema.sampling import SamplingOptions, Words


class GenerateQuery(SamplingOptions):
    """A question in the address of /generate, where all values are texts."""

    model_config = ConfigDict(strict=False)

    prompt: Words = Field(description="The question, or a text to continue.")
    model: Words | None = None
    stop: list[Words] | None = None
    logit_bias: None = None

    def asked(self) -> str:
        """Return what is asked."""
        return self.prompt


class GenerateRequest(SamplingOptions):
    """Body of /generate: a prompt, or messages."""

    prompt: Words | None = None
    messages: Annotated[list[ChatMessage], Field(max_length=MAX_MESSAGES)] | None = None
    model: Words | None = None

    def asked(self) -> str | list[ChatMessage]:
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
        return self.prompt if self.prompt is not None else self.messages or []
