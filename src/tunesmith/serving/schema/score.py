"""Body of /score."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunesmith.serving.limits import MAX_INPUTS, MAX_MESSAGES
from tunesmith.serving.schema.messages import ChatMessage
from tunesmith.serving.schema.sampling import Body, Words

Written = Annotated[list[Words], Field(min_length=1, max_length=MAX_INPUTS)]
Talk = Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
Talks = Annotated[list[Talk], Field(min_length=1, max_length=MAX_INPUTS)]


class ScoreRequest(Body):
    """Body of /score: a conversation, several, or texts as LLaMA-Factory's servers take them."""

    messages: Written | Talk | Talks
    model: Words | None = None
