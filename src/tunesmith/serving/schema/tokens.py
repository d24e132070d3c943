"""Bodies of /tokenize and /detokenize, as vLLM takes them."""

from __future__ import annotations

from typing import Literal

from tunesmith.errors import RequestError
from tunesmith.serving.schema.chat import Messages
from tunesmith.serving.schema.sampling import Body, Ids, JsonObject, Words
from tunesmith.serving.schema.tools import Tools


class TokenizeRequest(Body):
    """Body of /tokenize: a prompt, or messages."""

    prompt: Words | None = None
    messages: Messages | None = None
    model: Words | None = None
    tools: Tools | None = None
    chat_template_kwargs: JsonObject | None = None
    return_token_strs: bool | None = None
    add_generation_prompt: Literal[True] | None = None
    add_special_tokens: bool | None = None
    """Whether a prompt begins as plain texts of the model do: yes, as where it is continued."""

    def check(self) -> None:
        """Refuse requests for nothing, or for two things.

        Raises:
            RequestError: if there are not either a prompt or messages.
        """
        if (self.prompt is None) == (self.messages is None):
            raise RequestError(
                "give either `prompt` or `messages`",
                hint='send {"prompt": "..."}',
                where="body",
            )
        if self.messages is not None and self.add_special_tokens:
            raise RequestError(
                "the template writes all that the model is to read",
                hint="leave it out",
                where="add_special_tokens",
            )
        if self.messages is None and (self.tools or self.chat_template_kwargs):
            raise RequestError(
                "tools and chat_template_kwargs have no effect on a prompt",
                hint="send messages, or leave them out",
                where="tools" if self.tools else "chat_template_kwargs",
            )


class DetokenizeRequest(Body):
    """Body of /detokenize."""

    tokens: Ids
    model: Words | None = None
