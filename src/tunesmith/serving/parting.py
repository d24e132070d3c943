"""How the text of an answer is held to a form and parted, as a request and its model ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunesmith.errors import RequestError
from tunesmith.inference.engine import Form, Request, Speech
from tunesmith.inference.manner import Manner
from tunesmith.inference.sent import Sent
from tunesmith.inference.structured import Calling, Outline, Wanted
from tunesmith.inference.thinking import ThoughtSplitter
from tunesmith.inference.tool_calls import ToolParser
from tunesmith.serving.limits import SECONDS_FOR_FORMS
from tunesmith.serving.message import Message
from tunesmith.serving.schema.tools import ToolOptions
from tunesmith.serving.service import Service, Speaker

TAIL = 16
"""Tokens at the end of a prompt that tell whether it opens a thought."""


@dataclass(frozen=True)
class Parting:
    """How answers to one request are read.

    Attributes:
        tools: what may be called, each as OpenAI's API takes it.
        opened: whether the prompt has the model think at once.
        closed: whether it has it think no more.
        closing: the token that ends thoughts, if it is one.
        one_call: whether an answer may call only once.
        calling: calls that answers are held to.
        wanted: the form that they are held to.
    """

    manner: Manner
    tools: Sequence[Mapping[str, Any]] = ()
    opened: bool = False
    closed: bool = False
    closing: int | None = None
    one_call: bool = False
    calling: Calling | None = None
    wanted: Wanted | None = None

    @property
    def keep(self) -> frozenset[int]:
        """Special tokens by which the text is parted."""
        return frozenset(self.manner.specials[mark] for mark in self._marks)

    @property
    def is_held(self) -> bool:
        """Whether answers are held to a form."""
        return self.wanted is not None or self.calling is not None

    @property
    def _marks(self) -> tuple[str, ...]:
        return self.manner.marks(calls=bool(self.tools))

    def message(self) -> Message:
        """Begin a message."""
        thinking, form = self.manner.thinking, self.manner.tools
        thoughts = ThoughtSplitter(thinking, opened=self.opened) if thinking else None
        parser = ToolParser(form, self.tools) if form and self.tools else None
        return Message(thoughts, parser, self._marks, closing=self.closing, one_call=self.one_call)

    def forms(self, speech: Speech, count: int) -> Sequence[Form | Sent]:
        """Make the forms of so many answers; this may take long.

        Raises:
            RequestError: if one cannot be held to, naming the field.
        """
        thinking = self.manner.thinking
        thinks = (thinking, self.opened) if thinking and not self.closed else None
        return speech.forms(Outline(self.wanted, self.calling, thinks), count)


def find_parting(
    speaker: Speaker, prompt: Sequence[int], asked: ToolOptions, wanted: Wanted | None
) -> Parting:
    """Find how the answers to a request are to be held and read.

    Raises:
        RequestError: if tools are offered to a model whose calls nobody can read.
    """
    manner, tools, called = speaker.manner, asked.offered(), asked.called()
    if tools and manner.tools is None:
        raise RequestError(
            "calls of tools are not recognised in what this model writes",
            hint="name their format with --tool-format, or leave tools out",
            where="tools",
        )
    opened, closed, closing = False, False, None
    if manner.thinking is not None:
        ids = speaker.speech.encode(manner.thinking.closing)
        closing = ids[0] if len(ids) == 1 else None
        tail = speaker.speech.decode(prompt[-TAIL:], keep_special=True)
        opened, closed = manner.thinking.is_opened_by(tail), manner.thinking.is_closed_by(tail)
    calling, many = None, not asked.one_call
    if manner.tools is not None and called is not None:
        calling = Calling(manner.tools, called, many)
        wanted = None  # it is what is said that has a form
    elif manner.tools is not None and any(tool["function"].get("strict") for tool in tools):
        calling = Calling(manner.tools, tools, many, free=wanted is None)
    elif manner.tools is not None and tools and wanted is not None:
        calling = Calling(manner.tools, tools, many)
    return Parting(manner, tools, opened, closed, closing, asked.one_call, calling, wanted)


async def parted(
    requests: Sequence[Request], parting: Parting, speaker: Speaker, service: Service
) -> list[Request]:
    """Have the engine hold answers to their form, and spell what they are parted by."""
    forms: Sequence[Form | Sent | None] = [None] * len(requests)
    if parting.is_held:
        forms = await service.work(
            "forms",
            lambda: parting.forms(speaker.speech, len(requests)),
            SECONDS_FOR_FORMS,
            "the form",
        )
    return [
        replace(request, form=form, keep=parting.keep)
        for request, form in zip(requests, forms, strict=True)
    ]
