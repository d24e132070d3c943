"""What is noted of one request: for the log, for the figures, and to end what it began."""

from __future__ import annotations

import re
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

NOTE = "tunesmith.note"
"""Where a request's scope keeps it."""
FINE_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)


@dataclass
class Note:
    """One request, from its first byte to the last of its answer.

    Attributes:
        id: what clients and the log call the request.
        key: the name of the key it came with.
        model: the served model that answers.
        prompt_tokens: tokens that were read.
        written: tokens that were written.
        reused: tokens of the prompt that the engine had kept from others; None if it does not tell.
        thought: how many of them are thoughts; None for models that write none down.
        begun: when it came, in seconds of a clock that never goes back.
        first: when the first token was there.
        prompt: what was asked.
        answer: what was answered, where it was not streamed.
        ends: closed when the answer is over or nobody waits for it any longer.
    """

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    key: str = ""
    model: str = ""
    prompt_tokens: int = 0
    written: int = 0
    reused: int | None = None
    thought: int | None = None
    begun: float = field(default_factory=time.monotonic)
    first: float | None = None
    prompt: Any = None
    answer: Any = None
    ends: ExitStack = field(default_factory=ExitStack)

    def hear(self, num_tokens: int) -> None:
        """Note that tokens were written."""
        self.written += num_tokens
        if self.first is None and num_tokens:
            self.first = time.monotonic()


def note_of(scope: Any) -> Note:
    """Return what is noted of a request."""
    found: Note = scope[NOTE]
    return found


def choose_id(given: str | None) -> str:
    """Take a client's own name for its request where it is a plain one."""
    return given if given and FINE_ID.fullmatch(given) else uuid.uuid4().hex
