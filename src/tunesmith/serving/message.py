"""The message of an answer, put together from its pieces: the one place that knows its parts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tunesmith.inference.engine import Token
from tunesmith.inference.generate import Finish
from tunesmith.inference.parts import (
    CallArguments,
    CallBroken,
    CallStart,
    Part,
    Text,
    Thought,
    put_together,
)
from tunesmith.inference.text_stream import overlap
from tunesmith.inference.thinking import ThoughtSplitter
from tunesmith.inference.tool_calls import ToolParser

NOTHING = Text("")
Delta = dict[str, Any]
"""What a message gains by a piece, as streams tell it."""


class Message:
    """One message while it is written.

    Args:
        thoughts: parts thoughts from the rest; None if there are none.
        tools: parts calls from what is said; None if nothing may be called.
        specials: special tokens that are spelled in the text; they are never said.
        closing: the token that ends thoughts, if it is one.
        one_call: leave out all that follows the first call.

    Attributes:
        parts: what it consists of so far.
        thought_tokens: how many tokens were written while it thought.
        is_full: whether nothing that is still written will belong to it.
    """

    def __init__(
        self,
        thoughts: ThoughtSplitter | None = None,
        tools: ToolParser | None = None,
        specials: Sequence[str] = (),
        *,
        closing: int | None = None,
        one_call: bool = False,
    ) -> None:
        self._closing = closing
        self._thoughts, self._tools, self._one_call = thoughts, tools, one_call
        self._unsaid = Unsaid(specials)
        self.parts: list[Part] = []
        self.thought_tokens, self.is_full = 0, False

    def push(self, text: str, tokens: Sequence[Token] = ()) -> list[Delta]:
        """Add a piece of text; return what can be told of the message by now.

        Args:
            tokens: what it was written with.
        """
        return deltas_of(self._read(text, tokens))

    def end(self) -> list[Delta]:
        """Return what was held back until the answer was over."""
        return deltas_of(self._read_end())

    def _read(self, text: str, tokens: Sequence[Token]) -> list[Part]:
        if self._thoughts is None:
            return self._take([Text(text)] if text else [])
        before = self._thoughts.num_read
        parts = self._thoughts.push(text)
        self.thought_tokens += self._count(tokens, self._thoughts.num_read - before, len(text))
        return self._take(parts)

    def _count(self, tokens: Sequence[Token], thought: int, whole: int) -> int:
        """Count the tokens of a piece that belong to the thought.

        A thought's end that is no token of its own may come in one piece with what follows; then
        the tokens are taken to be equally long.
        """
        ids = [token.id for token in tokens]
        if thought and self._closing in ids:
            return ids.index(self._closing) + 1
        return round(len(ids) * thought / whole) if whole else 0

    def _read_end(self) -> list[Part]:
        told = self._take(self._thoughts.end()) if self._thoughts else []
        told += self._add(self._tools.end()) if self._tools else []
        return told + self._tell(Text(self._unsaid.end()))

    def finish(self, reason: Finish) -> str:
        """Return why the message ended, in OpenAI's words."""
        called = put_together(self.parts).calls
        return "tool_calls" if called and reason == "stop" else reason

    def whole(self) -> dict[str, Any]:
        """Return the message once it is over."""
        said = put_together(self.parts)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": said.text or (None if said.calls else ""),
            "refusal": None,
        }
        if said.thought:
            message["reasoning_content"] = said.thought
        if said.calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in said.calls
            ]
        return message

    def _take(self, parts: list[Part]) -> list[Part]:
        """Part calls from what is said."""
        told: list[Part] = []
        for part in parts:
            if isinstance(part, Text) and self._tools is not None:
                told += self._add(self._tools.push(part.text))
            else:
                told += self._add([part])
        return told

    def _add(self, parts: list[Part]) -> list[Part]:
        told: list[Part] = []
        for part in parts:
            if isinstance(part, Text):
                told += self._tell(Text(self._unsaid.push(part.text)))
            else:
                told += self._tell(Text(self._unsaid.end())) + self._tell(part)
        return told

    def _tell(self, part: Part) -> list[Part]:
        """Add a part, unless it is empty or nothing more belongs to the message."""
        if self._one_call and isinstance(part, CallStart):
            self.is_full |= bool(put_together(self.parts).calls)
        told = [] if self.is_full or part == NOTHING else [part]
        self.parts += told
        return told


class Unsaid:
    """Leave special tokens out of a text that comes in pieces."""

    def __init__(self, specials: Sequence[str]) -> None:
        self._specials = specials
        self._pattern = re.compile("|".join(map(re.escape, specials)) or "(?!)")
        self._held = ""

    def push(self, text: str) -> str:
        """Add a text; return what is certainly said, without what may begin a special token."""
        text = self._pattern.sub("", self._held + text)
        held = max((overlap(text, special) for special in self._specials), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def end(self) -> str:
        """Return what was held back."""
        text, self._held = self._held, ""
        return text


def deltas_of(parts: list[Part]) -> list[Delta]:
    """Spell what a message gains by parts; a call that broke cannot be taken back."""
    return [delta_of(part) for part in parts if not isinstance(part, CallBroken)]


def delta_of(part: Text | Thought | CallStart | CallArguments) -> Delta:
    """Spell what a message gains by a part."""
    match part:
        case Text():
            return {"content": part.text}
        case Thought():
            return {"reasoning_content": part.text}
        case CallStart():
            function = {"name": part.name, "arguments": ""}
            start = {"index": part.index, "id": part.id, "type": "function", "function": function}
            return {"tool_calls": [start]}
        case CallArguments():
            more = {"index": part.index, "function": {"arguments": part.text}}
            return {"tool_calls": [more]}
